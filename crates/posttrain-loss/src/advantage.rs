//! Advantages: how much better a completion was than the others of its group.

mod group;

use crate::error::{LossError, check_field, check_len};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How rewards become advantages, one scalar for every token of a completion.
///
/// With `r_i` the rewards of a group that are present, `n` their number and `mean` their mean:
///
/// | kind | advantage of completion i | after |
/// | --- | --- | --- |
/// | `group_mean` | `r_i − mean` | Tinker, Dr. GRPO (arXiv 2503.20783) |
/// | `group_normalized` | `(r_i − mean) / (std_group + epsilon)` | GRPO (arXiv 2402.03300) |
/// | `leave_one_out` | `r_i − mean of the others = n/(n−1) · (r_i − mean)` | RLOO (arXiv 2402.14740) |
/// | `batch_normalized` | `(r_i − mean) / (std_batch + epsilon)` | TRL's `scale_rewards="batch"` |
///
/// Standard deviations divide by `n − 1` (Bessel), as `torch.std`, TRL and verl do; `std_batch` is
/// taken over every reward of the batch.
///
/// One rule each for what has no baseline, whatever the kind:
/// * a **missing reward** (`None`) is left out of mean and deviation, its advantage is 0, and it is
///   counted;
/// * a group of **one** reward has advantage 0 (there is nothing to compare it with);
/// * a group whose rewards are **all equal**, within 1e-6 of the largest magnitude (at least 1),
///   has advantages of exactly 0: a judge's float noise is not divided by a deviation of nearly
///   nothing.
///
/// In a configuration file: `{ kind = "group_normalized", epsilon = 1e-4 }`.
// Every variant has braces: serde refuses unknown fields only of variants that can have some.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum AdvantageConfig {
    /// Reward minus the mean of its group.
    GroupMean {},
    /// Reward minus the mean of its group, over the deviation of its group.
    #[serde(alias = "group_normalised")]
    GroupNormalized {
        /// Added to the deviation, in units of reward, at least 0. 1e-4 in TRL (`grpo_trainer.py`),
        /// 1e-6 in verl.
        #[serde(default = "default_epsilon")]
        epsilon: f64,
    },
    /// Reward minus the mean of the other rewards of its group.
    LeaveOneOut {},
    /// Reward minus the mean of its group, over the deviation of the whole batch.
    #[serde(alias = "batch_normalised")]
    BatchNormalized {
        /// Added to the deviation, in units of reward, at least 0. 1e-4 in TRL (`grpo_trainer.py`).
        #[serde(default = "default_epsilon")]
        epsilon: f64,
    },
}

fn default_epsilon() -> f64 {
    1e-4
}

impl Default for AdvantageConfig {
    /// `GroupNormalized` with TRL's epsilon of 1e-4.
    fn default() -> Self {
        Self::GroupNormalized { epsilon: default_epsilon() }
    }
}

/// Advantages of a batch and what its groups were like.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Advantages {
    /// One a completion, in the order of the rewards; 0 where the reward is missing.
    pub values: Vec<f32>,
    /// The groups by kind.
    pub counts: AdvantageCounts,
}

/// Groups by what they can teach; every group is of exactly one of the four kinds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AdvantageCounts {
    /// Groups in all.
    pub groups: usize,
    /// Groups with unequal rewards: only these have a gradient.
    pub groups_with_signal: usize,
    /// Groups of at least two rewards, all equal.
    pub constant_groups: usize,
    /// Groups with exactly one reward.
    pub single: usize,
    /// Groups with no reward at all.
    pub empty: usize,
    /// Completions without a reward.
    pub missing: usize,
}

impl AdvantageCounts {
    /// Adds the counts of another batch.
    pub fn merge(&mut self, other: &Self) {
        self.groups += other.groups;
        self.groups_with_signal += other.groups_with_signal;
        self.constant_groups += other.constant_groups;
        self.single += other.single;
        self.empty += other.empty;
        self.missing += other.missing;
    }
}

/// Completions that one rayon task takes at least: below this, starting a thread costs more than
/// the work.
const TASK: usize = 1 << 14;

/// Rewards that [`AdvantageConfig::dense`] works on at a time: whole groups of every power of two
/// up to it, and a quarter of the nearest cache.
const BLOCK: usize = 1024;

impl AdvantageConfig {
    /// Checks that the epsilon is finite and at least 0.
    pub fn validate(&self) -> Result<(), LossError> {
        let epsilon = self.epsilon();
        check_field(
            "epsilon",
            epsilon,
            epsilon.is_finite() && epsilon >= 0.0,
            "a finite number, at least 0",
        )
    }

    /// Advantages of groups of any sizes.
    ///
    /// `rewards: [B]`, group after group, `None` where a reward is missing; `group_lengths: [P]`,
    /// which add up to `B`.
    ///
    /// # Errors
    /// [`LossError::Length`] when the lengths do not add up, [`LossError::NonFinite`] naming a
    /// reward that is NaN or infinite, [`LossError::Config`] from [`validate`](Self::validate).
    ///
    /// ```
    /// use posttrain_loss::AdvantageConfig;
    ///
    /// let rewards = [Some(1.0), Some(0.0), None, Some(1.0), Some(1.0)];
    /// let advantages = AdvantageConfig::GroupMean {}.advantages(&rewards, &[3, 2])?;
    /// assert_eq!(advantages.values, [0.5, -0.5, 0.0, 0.0, 0.0]);
    /// assert_eq!((advantages.counts.missing, advantages.counts.constant_groups), (1, 1));
    /// # Ok::<(), posttrain_loss::LossError>(())
    /// ```
    pub fn advantages(
        &self,
        rewards: &[Option<f32>],
        group_lengths: &[usize],
    ) -> Result<Advantages, LossError> {
        let present: Vec<f32> = rewards.iter().map(|reward| reward.unwrap_or(f32::NAN)).collect();
        check_len("rewards", rewards.len(), group_lengths.iter().sum())?;
        check_finite(rewards.iter().map(|reward| reward.unwrap_or(0.0)))?;
        let mut values = vec![0.0; rewards.len()];
        let scale = self.checked_scale(&present)?;

        let mut counts = AdvantageCounts::default();
        let mut rewards = present.as_slice();
        let mut rest = values.as_mut_slice();
        for &length in group_lengths {
            let (group, others) = rewards.split_at(length);
            let (out, after) = rest.split_at_mut(length);
            counts.merge(
                &group::ragged(group, scale, out)
                    .ok_or(LossError::Overflow { argument: "rewards" })?,
            );
            rewards = others;
            rest = after;
        }

        Ok(Advantages { values, counts })
    }

    /// Advantages of groups of one size with every reward present: the same numbers, vectorized and
    /// in parallel.
    ///
    /// `rewards: [P · group_length]`, group after group.
    ///
    /// # Errors
    /// As [`advantages`](Self::advantages); [`LossError::Config`] when `group_length` is 0.
    ///
    /// ```
    /// use posttrain_loss::AdvantageConfig;
    ///
    /// let advantages = AdvantageConfig::LeaveOneOut {}.dense(&[3.0, 0.0, 0.0, 1.0, 1.0, 1.0], 3)?;
    /// assert_eq!(advantages.values, [3.0, -1.5, -1.5, 0.0, 0.0, 0.0]);
    /// # Ok::<(), posttrain_loss::LossError>(())
    /// ```
    pub fn dense(&self, rewards: &[f32], group_length: usize) -> Result<Advantages, LossError> {
        if group_length > 0 && BLOCK.is_multiple_of(group_length) {
            return self.by_blocks(rewards, group_length);
        }

        let mut values = vec![0.0; rewards.len()];
        let counts = self.dense_into(rewards, group_length, &mut values)?;
        Ok(Advantages { values, counts })
    }

    /// [`dense`](Self::dense) a block at a time: blocks are collected into memory that nobody had
    /// to clear before, which would take as long as a thread's arithmetic.
    fn by_blocks(&self, rewards: &[f32], group_length: usize) -> Result<Advantages, LossError> {
        check_len("rewards", rewards.len(), rewards.len().next_multiple_of(group_length))?;
        let scale = self.checked_scale(rewards)?;

        let (blocks, tail) = rewards.as_chunks::<BLOCK>();
        let mut values = Vec::with_capacity(blocks.len() + 1);
        let mut parts = Vec::new();

        blocks
            .par_iter()
            .with_min_len(TASK / BLOCK)
            .map(|block| {
                let mut values = [0.0; BLOCK];
                let counts = group::dense(block, group_length, scale, &mut values);
                (values, counts)
            })
            .unzip_into_vecs(&mut values, &mut parts);

        let mut values = values.into_flattened();
        let behind = blocks.len() * BLOCK;
        values.resize(behind + tail.len(), 0.0);
        parts.push(group::dense(tail, group_length, scale, &mut values[behind..]));

        let mut counts = AdvantageCounts::default();
        for part in parts {
            counts.merge(&part.ok_or_else(|| unusable(rewards))?);
        }

        Ok(Advantages { values, counts })
    }

    /// As [`dense`](Self::dense), into memory of the caller's.
    ///
    /// # Errors
    /// As [`dense`](Self::dense); [`LossError::Length`] when `values` is not as long as `rewards`.
    pub fn dense_into(
        &self,
        rewards: &[f32],
        group_length: usize,
        values: &mut [f32],
    ) -> Result<AdvantageCounts, LossError> {
        check_field("group_length", group_length as f64, group_length > 0, "at least 1")?;
        check_len("rewards", rewards.len(), rewards.len().next_multiple_of(group_length))?;
        check_len("values", values.len(), rewards.len())?;

        let scale = self.checked_scale(rewards)?;
        let task = TASK.next_multiple_of(group_length);
        let parts = rewards.par_chunks(task).zip(values.par_chunks_mut(task));
        let parts: Vec<_> = parts
            .map(|(rewards, values)| group::dense(rewards, group_length, scale, values))
            .collect();

        let mut counts = AdvantageCounts::default();
        for part in parts {
            counts.merge(&part.ok_or_else(|| unusable(rewards))?);
        }
        Ok(counts)
    }

    fn epsilon(&self) -> f64 {
        match *self {
            Self::GroupNormalized { epsilon } | Self::BatchNormalized { epsilon } => epsilon,
            Self::GroupMean {} | Self::LeaveOneOut {} => 0.0,
        }
    }

    fn checked_scale(&self, rewards: &[f32]) -> Result<group::Scale, LossError> {
        self.validate()?;
        Ok(match *self {
            Self::GroupMean {} => group::Scale::Constant(1.0),
            Self::LeaveOneOut {} => group::Scale::LeaveOneOut,
            Self::GroupNormalized { epsilon } => group::Scale::Deviation(epsilon as f32),
            Self::BatchNormalized { epsilon } => {
                group::Scale::Constant(batch_scale(rewards, epsilon))
            }
        })
    }
}

/// `1 / (std + epsilon)` over every reward that is present; 1 where fewer than two are.
fn batch_scale(rewards: &[f32], epsilon: f64) -> f32 {
    let present =
        || rewards.iter().map(|&reward| f64::from(reward)).filter(|reward| !reward.is_nan());
    let n = present().count() as f64;
    if n < 2.0 {
        return 1.0;
    }

    let mean = present().sum::<f64>() / n;
    let variance = present().map(|reward| (reward - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (1.0 / (variance.sqrt() + epsilon)) as f32
}

fn check_finite(rewards: impl Iterator<Item = f32>) -> Result<(), LossError> {
    let bad = rewards.enumerate().find(|(_, reward)| !reward.is_finite());
    bad.map_or(Ok(()), |(index, value)| {
        Err(LossError::NonFinite { argument: "rewards", index, value })
    })
}

/// Why a group's sum was not finite; looked for only then.
fn unusable(rewards: &[f32]) -> LossError {
    check_finite(rewards.iter().copied())
        .err()
        .unwrap_or(LossError::Overflow { argument: "rewards" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;
    use proptest::prelude::*;

    const KINDS: [AdvantageConfig; 4] = [
        AdvantageConfig::GroupMean {},
        AdvantageConfig::GroupNormalized { epsilon: 1e-4 },
        AdvantageConfig::LeaveOneOut {},
        AdvantageConfig::BatchNormalized { epsilon: 1e-4 },
    ];

    #[test]
    fn the_deviation_divides_by_n_minus_one() {
        let config = AdvantageConfig::GroupNormalized { epsilon: 0.0 };
        let advantages = config.dense(&[1.0, 0.0, 0.0, 0.0], 4).unwrap();
        // mean 1/4, variance (9 + 1 + 1 + 1)/16/3 = 1/4.
        assert_relative_eq!(advantages.values.as_slice(), [1.5, -0.5, -0.5, -0.5].as_slice());
    }

    #[test]
    fn blocks_give_what_one_walk_gives() {
        for (length, groups) in [
            (1, 0),
            (1, 3),
            (2, 2000),
            (8, 128),
            (8, 129),
            (16, 300),
            (512, 5),
            (1024, 3),
            (2048, 2),
        ] {
            let rewards: Vec<f32> =
                (0..length * groups).map(|i| (i * i % 7) as f32 / 3.0).collect();
            for config in KINDS {
                let mut values = vec![9.0; rewards.len()];
                let counts = config.dense_into(&rewards, length, &mut values).unwrap();
                assert_eq!(
                    config.dense(&rewards, length).unwrap(),
                    Advantages { values, counts },
                    "{length} {groups}"
                );
            }
        }
        let mut rewards = vec![1.0; 5000];
        rewards[4321] = f32::INFINITY;
        let error = AdvantageConfig::default().dense(&rewards, 4).unwrap_err();
        assert!(matches!(error, LossError::NonFinite { index: 4321, .. }), "{error}");
    }

    #[test]
    fn the_batch_deviation_is_over_every_present_reward() {
        let config = AdvantageConfig::BatchNormalized { epsilon: 0.0 };
        let advantages = config
            .advantages(&[Some(0.0), Some(2.0), None, Some(4.0), Some(6.0)], &[3, 2])
            .unwrap();
        let scale = 1.0 / (20f32 / 3.0).sqrt();
        assert_relative_eq!(
            advantages.values.as_slice(),
            [-scale, scale, 0.0, -scale, scale].as_slice()
        );
    }

    #[test]
    fn groups_without_a_baseline_have_no_advantage_and_are_counted() {
        let rewards = [
            Some(7.0),
            Some(0.3),
            Some(0.3 + 1e-7),
            None,
            None,
            None,
            Some(5.0),
            Some(1.0),
            Some(0.0),
        ];
        for config in KINDS {
            let advantages = config.advantages(&rewards, &[1, 2, 2, 2, 2, 0]).unwrap();
            assert_eq!(advantages.values[..7], [0.0; 7], "{config:?}");
            let counts = advantages.counts;
            assert_eq!(
                (counts.groups, counts.groups_with_signal, counts.constant_groups),
                (6, 1, 1)
            );
            assert_eq!((counts.single, counts.empty, counts.missing), (2, 2, 3));
        }
    }

    #[test]
    fn a_reward_that_is_not_finite_is_named() {
        let error =
            AdvantageConfig::default().advantages(&[Some(1.0), Some(f32::NAN)], &[2]).unwrap_err();
        assert!(matches!(error, LossError::NonFinite { argument: "rewards", index: 1, .. }));
        let error =
            AdvantageConfig::default().dense(&[1.0, 0.0, f32::INFINITY, 1.0], 2).unwrap_err();
        assert!(matches!(error, LossError::NonFinite { argument: "rewards", index: 2, .. }));
        let error = AdvantageConfig::default().dense(&[3e38, -3e38], 2).unwrap_err();
        assert!(matches!(error, LossError::Overflow { argument: "rewards" }));
    }

    #[test]
    fn lengths_that_do_not_add_up_are_refused() {
        let config = AdvantageConfig::default();
        let error = config.advantages(&[Some(1.0)], &[2]).unwrap_err();
        assert!(matches!(error, LossError::Length { argument: "rewards", expected: 2, got: 1 }));
        assert!(matches!(
            config.dense(&[1.0; 5], 2),
            Err(LossError::Length { expected: 6, got: 5, .. })
        ));
        assert!(matches!(
            config.dense(&[1.0; 5], 0),
            Err(LossError::Config { field: "group_length", .. })
        ));
        assert!(matches!(
            AdvantageConfig::GroupNormalized { epsilon: -1.0 }.dense(&[], 1),
            Err(LossError::Config { field: "epsilon", .. })
        ));
    }

    #[test]
    fn a_configuration_reads_from_toml_and_refuses_what_it_does_not_know() {
        let read = |text: &str| toml::from_str::<AdvantageConfig>(text);
        assert_eq!(read("kind = 'group_normalized'").unwrap(), AdvantageConfig::default());
        assert_eq!(read("kind = 'group_normalised'").unwrap(), AdvantageConfig::default());
        assert_eq!(read("kind = 'leave_one_out'").unwrap(), AdvantageConfig::LeaveOneOut {});
        assert!(read("kind = 'group_mean'\nepsilon = 1.0").is_err());
        assert!(read("kind = 'whitened'").is_err());
    }

    proptest! {
        #[test]
        fn advantages_of_a_group_sum_to_zero(rewards in prop::collection::vec(prop::option::weighted(0.9, -5f32..5.0), 0..40)) {
            for config in KINDS {
                let advantages = config.advantages(&rewards, &[rewards.len()]).unwrap();
                let size: f32 = advantages.values.iter().map(|value| value.abs()).sum();
                prop_assert!(advantages.values.iter().sum::<f32>().abs() <= 2e-6 * size.max(1.0));
            }
        }

        #[test]
        fn the_dense_path_gives_the_same_numbers(length in 1usize..20, groups in 0usize..2000, seed in 0u32..1000) {
            let rewards: Vec<f32> = (0..length * groups)
                .map(|i| ((i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 28) as f32)
                .collect();
            let optional: Vec<_> = rewards.iter().copied().map(Some).collect();
            for config in KINDS {
                let ragged = config.advantages(&optional, &vec![length; groups]).unwrap();
                prop_assert_eq!(&config.dense(&rewards, length).unwrap(), &ragged);
            }
        }
    }
}
