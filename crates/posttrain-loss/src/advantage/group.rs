//! The arithmetic of one group, and the vectorized walk over many.

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

/// Advantages of one group in which NaN stands for a missing reward. `None` when a sum is not
/// finite.
pub(super) fn ragged(group: &[f32], scale: Scale, values: &mut [f32]) -> Option<AdvantageCounts> {
    if !group.is_empty() && group.iter().all(|reward| !reward.is_nan()) {
        return dense(group, group.len(), scale, values);
    }

    let present: Vec<f32> = group.iter().copied().filter(|reward| !reward.is_nan()).collect();
    let missing = group.len() - present.len();
    if present.is_empty() {
        return Some(AdvantageCounts {
            groups: 1,
            empty: 1,
            missing,
            ..AdvantageCounts::default()
        });
    }

    let mut advantages = vec![0.0; present.len()];
    let counts = dense(&present, present.len(), scale, &mut advantages)?;
    let slots = group.iter().zip(values).filter(|(reward, _)| !reward.is_nan());
    slots.zip(advantages).for_each(|((_, value), advantage)| *value = advantage);
    Some(AdvantageCounts { missing, ..counts })
}

/// Advantages of groups of one length, every reward present. `None` when a sum is not finite.
pub(super) fn dense(
    rewards: &[f32],
    length: usize,
    scale: Scale,
    values: &mut [f32],
) -> Option<AdvantageCounts> {
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
        let mut signals = 0;
        for (group, out) in groups.iter().zip(outs) {
            signals += usize::from(one(group, self.scale, out)?);
        }
        Some(counts(groups.len(), N, signals))
    }

    #[inline(always)]
    fn any(self) -> Option<AdvantageCounts> {
        let groups = self.rewards.chunks_exact(self.length);
        let number = groups.len();
        let mut signals = 0;
        for (group, out) in groups.zip(self.values.chunks_exact_mut(self.length)) {
            signals += usize::from(one(group, self.scale, out)?);
        }
        Some(counts(number, self.length, signals))
    }
}

fn counts(groups: usize, length: usize, signals: usize) -> AdvantageCounts {
    let still = groups - signals;
    let (single, constant_groups) = if length == 1 { (still, 0) } else { (0, still) };
    AdvantageCounts {
        groups,
        groups_with_signal: signals,
        constant_groups,
        single,
        ..AdvantageCounts::default()
    }
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

    folded(partial, |one, other| one + other) + rest.iter().map(|&reward| term(reward)).sum::<f32>()
}

/// The lanes of a register taken together, halves with halves.
#[inline(always)]
fn folded([a, b, c, d, e, f, g, h]: [f32; LANES], two: impl Fn(f32, f32) -> f32) -> f32 {
    two(two(two(a, e), two(c, g)), two(two(b, f), two(d, h)))
}

#[inline(always)]
fn extremes(group: &[f32]) -> (f32, f32) {
    let mut low = [f32::INFINITY; LANES];
    let mut high = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = group.as_chunks::<LANES>();

    for chunk in chunks {
        for lane in 0..LANES {
            low[lane] = smaller(low[lane], chunk[lane]);
            high[lane] = larger(high[lane], chunk[lane]);
        }
    }

    let low = folded(low, smaller);
    let high = folded(high, larger);
    (rest.iter().copied().fold(low, smaller), rest.iter().copied().fold(high, larger))
}
