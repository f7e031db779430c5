//! How a reward curve moves.

use serde::{Deserialize, Serialize};

/// Steps on either side that the running mean takes in.
const HALF_WINDOW: usize = 4;
/// How far from its final level a curve on its plateau may be.
const TOLERANCE: f64 = 0.05;
/// The fewest steps that define a final level.
const SHORTEST_TAIL: usize = 5;

/// How steadily a model learnt, from its reward at each step. All in units of reward (0 to 1) but
/// the last.
///
/// A step's reward is a mean over a batch of its own, so it moves by chance as well: curves compare
/// only under the same batch size. Steps whose reward is not finite are left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Dynamics {
    /// Mean |r_t − r_{t−1}|; absent for fewer than two steps.
    #[serde(default)]
    pub mean_abs_step_change: Option<f64>,
    /// Spikiness: the standard deviation of r_t − r_{t−1}, `√(Σ(d_t − d̄)² / (T−1))` over the T−1
    /// changes; absent for fewer than two steps.
    #[serde(default)]
    pub step_change_std: Option<f64>,
    /// How far the curve strays from its running mean: `√(Σ(r_t − m_t)² / T)`, where m_t is the
    /// mean of the rewards of steps t−4 to t+4, as many of them as there are. Absent for fewer than
    /// two steps.
    #[serde(default)]
    pub reward_std: Option<f64>,
    /// The first step from which m_t stays within 0.05 of the final level, the mean reward of the
    /// last fifth of the steps (five at least). Absent where m_t arrives only within that fifth:
    /// the curve still moved when it ended.
    #[serde(default)]
    pub steps_to_plateau: Option<u64>,
}

impl Dynamics {
    /// Of a curve's steps and rewards, in the order of steps.
    ///
    /// ```
    /// use posttrain_experiment::Dynamics;
    ///
    /// // The changes are 1, −1, 1, with mean 1/3; every running mean is 1/2.
    /// let jumpy = Dynamics::of(&[(1, 0.0), (2, 1.0), (3, 0.0), (4, 1.0)]);
    /// assert_eq!(jumpy.mean_abs_step_change, Some(1.0));
    /// assert!((jumpy.step_change_std.unwrap() - (8.0_f64 / 9.0).sqrt()).abs() < 1e-12);
    /// assert_eq!(jumpy.reward_std, Some(0.5));
    /// assert_eq!(jumpy.steps_to_plateau, None);
    ///
    /// // Up by 0.05 a step to 1 at step 20, and flat from there. At step 20 the running mean is 8.5/9, 0.056 below; at step
    /// // 21 it is 8.7/9, within 0.05.
    /// let ramp: Vec<(u64, f64)> = (1..=40).map(|t| (t, (t as f64 / 20.0).min(1.0))).collect();
    /// assert_eq!(Dynamics::of(&ramp).steps_to_plateau, Some(21));
    /// // The same without the flat part has not arrived.
    /// assert_eq!(Dynamics::of(&ramp[..20]).steps_to_plateau, None);
    /// ```
    #[must_use]
    pub fn of(curve: &[(u64, f64)]) -> Self {
        let (steps, rewards): (Vec<u64>, Vec<f64>) =
            curve.iter().copied().filter(|(_, r)| r.is_finite()).unzip();
        if rewards.len() < 2 {
            return Self::default();
        }

        let changes: Vec<f64> = rewards.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let smooth = running_mean(&rewards);
        let strays: Vec<f64> =
            rewards.iter().zip(&smooth).map(|(reward, mean)| (reward - mean).powi(2)).collect();
        let centre = mean(&changes);
        let spread: Vec<f64> = changes.iter().map(|change| (change - centre).powi(2)).collect();

        Self {
            mean_abs_step_change: Some(
                changes.iter().map(|c| c.abs()).sum::<f64>() / changes.len() as f64,
            ),
            step_change_std: Some(mean(&spread).sqrt()),
            reward_std: Some(mean(&strays).sqrt()),
            steps_to_plateau: plateau(&rewards, &smooth).map(|index| steps[index]),
        }
    }
}

/// The mean over each value and up to four on either side.
pub(crate) fn running_mean(values: &[f64]) -> Vec<f64> {
    let around =
        |t: usize| &values[t.saturating_sub(HALF_WINDOW)..(t + HALF_WINDOW + 1).min(values.len())];
    (0..values.len()).map(|t| mean(around(t))).collect()
}

fn plateau(rewards: &[f64], smooth: &[f64]) -> Option<usize> {
    let tail = rewards.len().div_ceil(5).max(SHORTEST_TAIL);
    let before_tail = rewards.len().checked_sub(tail)?;
    let level = mean(&rewards[before_tail..]);

    let first = smooth
        .iter()
        .rposition(|m| (m - level).abs() > TOLERANCE)
        .map_or(0, |last_away| last_away + 1);
    (first < before_tail).then_some(first)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_curve_that_leaves_its_plateau_has_not_arrived_before_it_is_back() {
        let mut curve: Vec<(u64, f64)> = (1..=60).map(|t| (t, 0.5)).collect();
        assert_eq!(Dynamics::of(&curve).steps_to_plateau, Some(1));
        curve[29].1 = 1.0; // the running mean is 0.056 above at steps 26 to 34
        assert_eq!(Dynamics::of(&curve).steps_to_plateau, Some(35));
    }

    #[test]
    fn too_few_steps_and_rewards_that_are_none_say_nothing() {
        assert_eq!(Dynamics::of(&[]), Dynamics::default());
        assert_eq!(Dynamics::of(&[(1, 0.5), (2, f64::NAN)]), Dynamics::default());
        assert_eq!(Dynamics::of(&[(1, 0.5), (2, 0.5)]).reward_std, Some(0.0));
    }

    proptest! {
        #[test]
        fn a_shift_changes_nothing_and_a_scale_scales(rewards in prop::collection::vec(0.0..1.0f64, 2..80)) {
            let of = |form: fn(f64) -> f64| {
                Dynamics::of(&rewards.iter().enumerate().map(|(t, r)| (t as u64, form(*r))).collect::<Vec<_>>())
            };
            let (plain, shifted, halved) = (of(|r| r), of(|r| r + 1.0), of(|r| r / 2.0));
            let parts = |d: Dynamics| [d.mean_abs_step_change, d.step_change_std, d.reward_std].map(Option::unwrap);
            for ((p, s), h) in parts(plain).into_iter().zip(parts(shifted)).zip(parts(halved)) {
                prop_assert!((p - s).abs() < 1e-9 && (p - 2.0 * h).abs() < 1e-9);
            }
        }
    }
}
