//! What a completion's reward counts for, by how long it is and how it ended.

use crate::RecipeError;
use crate::config::RlConfig;
use crate::rollout::{ScoredCompletion, ScoredGroup};
use posttrain_rollout::FinishReason;
use serde::{Deserialize, Serialize};

/// What becomes of a completion that was cut at the token limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TruncatedCompletions {
    /// It is scored as it stands (TRL's default).
    #[default]
    Score,
    /// It leaves its group's baseline and is not trained on (DAPO's overlong filtering).
    Exclude,
}

/// A penalty that grows over the last tokens before the limit (DAPO's soft overlong punishment,
/// arXiv 2503.14476): `−factor · max(0, length − (max_tokens − tokens)) / tokens`, added to the
/// reward.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlongPenalty {
    /// Tokens before the limit at which it begins, 1 and up, at most the limit. verl:
    /// `overlong_buffer.len`.
    pub tokens: usize,
    /// The penalty at the limit, in units of reward, above 0. verl: `penalty_factor`, 1.
    #[serde(default = "one")]
    pub factor: f64,
}

fn one() -> f64 {
    1.0
}

/// What completions' rewards count for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RewardShaping {
    /// What becomes of completions that were cut.
    pub truncated: TruncatedCompletions,
    /// What a completion near the limit loses, and the limit in tokens.
    pub overlong: Option<(OverlongPenalty, usize)>,
    /// A group with fewer rewards than this is not trained on.
    pub smallest_group: usize,
}

impl Default for RewardShaping {
    /// Rewards count as they are.
    fn default() -> Self {
        Self { truncated: TruncatedCompletions::Score, overlong: None, smallest_group: 1 }
    }
}

impl OverlongPenalty {
    /// Checks the ranges beside a limit of `max_tokens`.
    pub(crate) fn validate(&self, max_tokens: usize) -> Result<(), RecipeError> {
        let tokens = (1..=max_tokens).contains(&self.tokens);
        let expected = "from 1 to `sampling.max_tokens`";
        RecipeError::check("overlong_penalty.tokens", tokens, expected, &self.tokens)?;
        let factor = self.factor.is_finite() && self.factor > 0.0;
        RecipeError::check("overlong_penalty.factor", factor, "finite and above 0", &self.factor)
    }

    fn of(&self, length: usize, max_tokens: usize) -> f64 {
        let over = length.saturating_sub(max_tokens.saturating_sub(self.tokens));
        self.factor * over as f64 / self.tokens as f64
    }
}

impl RewardShaping {
    /// That of a run.
    #[must_use]
    pub fn of(config: &RlConfig) -> Self {
        Self {
            truncated: config.truncated,
            overlong: config.overlong_penalty.map(|p| (p, config.sampling.max_tokens)),
            smallest_group: config.smallest_group,
        }
    }

    /// The reward of each of a group's completions that counts: `None` where it failed, where the
    /// completion was cut and those are left out, or where the group has too few.
    #[must_use]
    pub fn rewards(&self, group: &ScoredGroup) -> Vec<Option<f32>> {
        let rewards: Vec<_> = group.completions.iter().map(|scored| self.reward(scored)).collect();
        if rewards.iter().flatten().count() < self.smallest_group {
            return vec![None; rewards.len()];
        }
        rewards
    }

    fn reward(&self, scored: &ScoredCompletion) -> Option<f32> {
        let completion = &scored.completion;
        let cut = completion.finish_reason == FinishReason::Length;
        if cut && self.truncated == TruncatedCompletions::Exclude {
            return None;
        }
        let reward = scored.score.as_ref().ok()?.value();
        let length = completion.tokens.len();
        let penalty = self.overlong.map_or(0.0, |(penalty, limit)| penalty.of(length, limit));
        Some((reward - penalty) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_penalty_grows_from_its_first_token_to_the_limit() {
        let penalty = OverlongPenalty { tokens: 4, factor: 2.0 };
        let of = |length| penalty.of(length, 10);
        assert_eq!([of(0), of(6), of(7), of(8), of(10)], [0.0, 0.0, 0.5, 1.0, 2.0]);
        assert!(penalty.validate(10).is_ok() && penalty.validate(3).is_err());
        assert!(OverlongPenalty { factor: f64::NAN, ..penalty }.validate(10).is_err());
        assert!(OverlongPenalty { tokens: 0, ..penalty }.validate(10).is_err());
    }
}
