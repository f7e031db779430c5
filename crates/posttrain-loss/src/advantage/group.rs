//! The arithmetic of one group, and the vectorised walk over many.

use super::AdvantageCounts;
use posttrain_kernel::{Kernel, dispatch, larger, smaller};

/// Rewards closer than this, relative to the largest magnitude and at least absolutely, are equal.
const EQUAL: f32 = 1e-6;

/// What a reward's distance from its group's mean is multiplied with.
#[derive(Clone, Copy)]
pub(super) enum Scale {
    /// The same number for every group.
    Constant(f32),
    /// `n / (n − 1)`.
    LeaveOneOut,
    /// `1 / (std + epsilon)` of the group.
    Deviation(f32),
}

/// Advantages of one group in which NaN stands for a missing reward. `None` when a sum is not finite.
pub(super) fn ragged(group: &[f32], scale: Scale, values: &mut [f32]) -> Option<AdvantageCounts> {
    if !group.is_empty() && group.iter().all(|reward| !reward.is_nan()) {
        return dense(group, group.len(), scale, values);
    }
    let present: Vec<f32> = group.iter().copied().filter(|reward| !reward.is_nan()).collect();
    let missing = group.len() - present.len();
    if present.is_empty() {
        return Some(AdvantageCounts { groups: 1, empty: 1, missing, ..AdvantageCounts::default() });
    }
    let mut advantages = vec![0.0; present.len()];
    let counts = dense(&present, present.len(), scale, &mut advantages)?;
    let slots = group.iter().zip(values).filter(|(reward, _)| !reward.is_nan());
    slots.zip(advantages).for_each(|((_, value), advantage)| *value = advantage);
    Some(AdvantageCounts { missing, ..counts })
}

/// Advantages of groups of one length, every reward present. `None` when a sum is not finite.
pub(super) fn dense(rewards: &[f32], length: usize, scale: Scale, values: &mut [f32]) -> Option<AdvantageCounts> {
    dispatch(Groups { rewards, length, scale, values })
}

struct Groups<'a> {
    rewards: &'a [f32],
    length: usize,
    scale: Scale,
    values: &'a mut [f32],
}

impl Kernel for Groups<'_> {
    type Output = Option<AdvantageCounts>;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> Self::Output {
        // A length known to the compiler turns the loops over a group into straight vector code.
        match self.length {
            4 => self.fixed::<4>(),
            8 => self.fixed::<8>(),
            16 => self.fixed::<16>(),
            _ => self.any(),
        }
    }
}

impl Groups<'_> {
    #[inline(always)]
    fn fixed<const N: usize>(self) -> Option<AdvantageCounts> {
        let (groups, _) = self.rewards.as_chunks::<N>();
        let (outs, _) = self.values.as_chunks_mut::<N>();
        let ((eights, last), (out_eights, last_outs)) = (groups.as_chunks::<LANES>(), outs.as_chunks_mut::<LANES>());
        let mut signals = 0;
        for (groups, outs) in eights.iter().zip(out_eights) {
            signals += eight(groups, self.scale, outs)?;
        }
        for (group, out) in last.iter().zip(last_outs) {
            signals += usize::from(one(group, self.scale, out)?);
        }
        Some(counts(groups.len(), N, signals))
    }

    #[inline(always)]
    fn any(self) -> Option<AdvantageCounts> {
        let groups = self.rewards.chunks_exact(self.length);
        let (number, mut signals) = (groups.len(), 0);
        for (group, out) in groups.zip(self.values.chunks_exact_mut(self.length)) {
            signals += usize::from(one(group, self.scale, out)?);
        }
        Some(counts(number, self.length, signals))
    }
}

fn counts(groups: usize, length: usize, signals: usize) -> AdvantageCounts {
    let still = groups - signals;
    let (single, constant_groups) = if length == 1 { (still, 0) } else { (0, still) };
    AdvantageCounts { groups, groups_with_signal: signals, constant_groups, single, ..AdvantageCounts::default() }
}

/// One group: whether its rewards differ, and its advantages.
#[inline(always)]
fn one(group: &[f32], scale: Scale, values: &mut [f32]) -> Option<bool> {
    let n = group.len() as f32;
    let mean = sum(group, |reward| reward) / n;
    // What rounding left of the mean: a small deviation would blow it up.
    let rest = sum(group, |reward| reward - mean) / n;
    let centred = |reward: f32| (reward - mean) - rest;
    let (low, high) = extremes(group);
    let squares = sum(group, |reward| centred(reward) * centred(reward));
    if !squares.is_finite() {
        return None;
    }
    let differ = high - low > EQUAL * high.abs().max(low.abs()).max(1.0);
    let factor = match scale {
        _ if !differ => 0.0,
        Scale::Constant(factor) => factor,
        Scale::LeaveOneOut => n / (n - 1.0),
        Scale::Deviation(epsilon) => 1.0 / ((squares / (n - 1.0)).sqrt() + epsilon),
    };
    for (value, reward) in values.iter_mut().zip(group) {
        *value = centred(*reward) * factor;
    }
    Some(differ)
}

/// A number of each of eight groups.
type Lanes = [f32; LANES];

/// Eight groups side by side, a lane each, so that nothing is added up across a register: how many have rewards that differ,
/// and their advantages, to the last bit those of [`one`].
#[inline(always)]
fn eight<const N: usize>(groups: &[[f32; N]; LANES], scale: Scale, values: &mut [[f32; N]; LANES]) -> Option<usize> {
    let mut rewards = [[0.0; LANES]; N];
    for lane in 0..LANES {
        for i in 0..N {
            rewards[i][lane] = groups[lane][i];
        }
    }
    let n = N as f32;
    let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    for reward in &rewards {
        for lane in 0..LANES {
            (low[lane], high[lane]) = (smaller(low[lane], reward[lane]), larger(high[lane], reward[lane]));
        }
    }
    let mut centred = rewards;
    // Twice: the second time takes away what rounding left of the mean.
    for _ in 0..2 {
        let mean = sums(&centred);
        for row in &mut centred {
            for lane in 0..LANES {
                row[lane] -= mean[lane] / n;
            }
        }
    }
    let mut squares = centred;
    squares.as_flattened_mut().iter_mut().for_each(|value| *value *= *value);
    let squares = sums(&squares);
    let (mut factors, mut signals) = ([0.0; LANES], 0);
    for lane in 0..LANES {
        if !squares[lane].is_finite() {
            return None;
        }
        let differ = high[lane] - low[lane] > EQUAL * high[lane].abs().max(low[lane].abs()).max(1.0);
        signals += usize::from(differ);
        factors[lane] = match scale {
            _ if !differ => 0.0,
            Scale::Constant(factor) => factor,
            Scale::LeaveOneOut => n / (n - 1.0),
            Scale::Deviation(epsilon) => 1.0 / ((squares[lane] / (n - 1.0)).sqrt() + epsilon),
        };
    }
    for lane in 0..LANES {
        for i in 0..N {
            values[lane][i] = centred[i][lane] * factors[lane];
        }
    }
    Some(signals)
}

/// The sums of eight groups, in the order of [`sum`].
#[inline(always)]
fn sums<const N: usize>(rows: &[Lanes; N]) -> Lanes {
    let (chunks, rest) = rows.as_chunks::<LANES>();
    let (mut partial, mut end) = ([[0.0; LANES]; LANES], [-0.0; LANES]);
    for chunk in chunks {
        for (partial, row) in partial.iter_mut().zip(chunk) {
            for lane in 0..LANES {
                partial[lane] += row[lane];
            }
        }
    }
    for row in rest {
        for lane in 0..LANES {
            end[lane] += row[lane];
        }
    }
    let [a, b, c, d, e, f, g, h] = partial;
    let mut all = [0.0; LANES];
    for i in 0..LANES {
        all[i] = ((a[i] + e[i]) + (c[i] + g[i])) + ((b[i] + f[i]) + (d[i] + h[i])) + end[i];
    }
    all
}

/// Independent partial sums: groups are short, so one register of them.
const LANES: usize = 8;

#[inline(always)]
fn sum(group: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut partial = [0.0; LANES];
    let (chunks, rest) = group.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            partial[lane] += term(chunk[lane]);
        }
    }
    let [a, b, c, d, e, f, g, h] = partial;
    ((a + e) + (c + g)) + ((b + f) + (d + h)) + rest.iter().map(|&reward| term(reward)).sum::<f32>()
}

#[inline(always)]
fn extremes(group: &[f32]) -> (f32, f32) {
    let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    let (chunks, rest) = group.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            (low[lane], high[lane]) = (smaller(low[lane], chunk[lane]), larger(high[lane], chunk[lane]));
        }
    }
    let low = low.iter().chain(rest).copied().fold(f32::INFINITY, smaller);
    let high = high.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger);
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups side by side are each as alone, to the last bit.
    #[test]
    fn eight_groups_are_each_as_alone() {
        fn check<const N: usize>() {
            let count = 8 * 3 + 5;
            let rewards: Vec<f32> =
                (0..count * N).map(|i| ((i * 7919 % 101) as f32 - 40.0) * 0.37 * ((i / N) % 4) as f32).collect();
            for scale in [Scale::Constant(1.0), Scale::LeaveOneOut, Scale::Deviation(1e-4)] {
                let mut together = vec![f32::NAN; rewards.len()];
                let counts = dense(&rewards, N, scale, &mut together).unwrap();
                let (mut alone, mut signals) = (vec![f32::NAN; rewards.len()], 0);
                for (group, out) in rewards.chunks_exact(N).zip(alone.chunks_exact_mut(N)) {
                    signals += usize::from(one(group, scale, out).unwrap());
                }
                assert_eq!(counts.groups_with_signal, signals);
                assert!(signals < count, "{signals} of {count}");
                assert_eq!(
                    together.iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
                    alone.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
                );
            }
        }
        check::<4>();
        check::<8>();
        check::<16>();
    }

    #[test]
    fn a_reward_that_is_not_finite_is_found_wherever_it_stands() {
        for at in [0, 77, 8 * 16 + 3] {
            for bad in [f32::NAN, f32::INFINITY] {
                let mut rewards = vec![0.5; 9 * 16];
                rewards[at] = bad;
                assert!(
                    dense(&rewards, 16, Scale::Constant(1.0), &mut vec![0.0; rewards.len()]).is_none(),
                    "{at} {bad}"
                );
            }
        }
    }
}
