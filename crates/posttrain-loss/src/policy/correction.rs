//! What is done about a sampler whose log-probabilities are not the trainer's.

use crate::error::{LossError, check_field};
use serde::{Deserialize, Serialize};

/// A weight on each token's loss for what the trainer's policy and the sampler's differ in.
///
/// Sampler and trainer compute the same weights' log-probabilities by other kernels, in other
/// kinds, or of other versions. With `ρ = exp(Σ or mean or one token's (old − sampling))` the ratio
/// of the trainer's policy before the step to the sampler's, each token's loss is multiplied with a
/// weight of `ρ`, which is a constant: no gradient flows through it.
///
/// | known as | level | rule | bounds |
/// | --- | --- | --- | --- |
/// | TIS (verl's `rollout_is`, TRL's `token_truncate`) | `token` | `truncate` | `low = 0`, `high = 2` |
/// | sequence TIS (verl's `sequence`, TRL's `sequence_truncate`) | `sequence` | `truncate` | `low = 0`, `high = 3` |
/// | MIS (TRL's default, `sequence_mask`) | `sequence` | `mask` | `low = 0`, `high = 3` |
/// | MIS by the geometric mean | `geometric` | `mask` | close to 1 |
/// | IcePop | `token` | `mask` | `low = 0.5`, `high = 5` |
///
/// `old` is the batch's `old_logprobs`: the trainer's log-probabilities of the policy that the step
/// began with. Where a batch has none, the policy in training stands for it, as it is on the first
/// step on a batch: `ρ = exp(logprob − sampling)`, and the ratio in the loss itself is 1. On later
/// steps that is a policy gradient with bounded importance weights, which is sound, and in which
/// PPO's bounds have nothing left to bind.
///
/// The penalty and the entropy bonus of an objective are not weighted (as in TRL), and a token
/// whose weight is 0 still counts in the denominator.
///
/// In a configuration file:
/// `correction = { level = "token", rule = "mask", low = 0.5, high = 5.0 }`.
///
/// ```
/// use posttrain_loss::{LossBatch, Objective, PolicyObjective, TokenAdvantages, policy::Correction};
///
/// // The trainer finds the token three times as likely as the sampler said; it is weighted by 2 at most.
/// let (sampling, old) = ([-2.0], [-2.0 + 3f32.ln()]);
/// let batch = LossBatch {
///     sampling_logprobs: Some(&sampling),
///     old_logprobs: Some(&old),
///     advantages: Some(TokenAdvantages::PerToken(&[1.0])),
///     ..LossBatch::of(&[1])
/// };
/// let objective = PolicyObjective { correction: Some(Correction::default()), ..PolicyObjective::default() };
/// let outcome = objective.evaluate(&batch, &old, None, &batch.totals()?)?;
/// assert_eq!(outcome.gradient, [-2.0]);
/// # Ok::<(), posttrain_loss::LossError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Correction {
    /// What has a ratio of its own.
    pub level: CorrectionLevel,
    /// What happens to a ratio beyond the bounds.
    pub rule: CorrectionRule,
    /// The lower bound, in [0, 1]; 0 for none.
    pub low: f32,
    /// The upper bound, at least 1.
    pub high: f32,
}

/// What has a ratio of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CorrectionLevel {
    /// Each token.
    #[default]
    Token,
    /// Each sequence: the product of its tokens' ratios.
    Sequence,
    /// Each sequence: the geometric mean of its tokens' ratios.
    Geometric,
}

/// What happens to a ratio beyond the bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CorrectionRule {
    /// The bound takes its place.
    #[default]
    Truncate,
    /// Its tokens have no loss. Within the bounds the ratio stays the weight.
    Mask,
}

impl Default for Correction {
    /// Truncated importance sampling by token, at most 2: verl's `rollout_is_threshold`.
    fn default() -> Self {
        Self { level: CorrectionLevel::Token, rule: CorrectionRule::Truncate, low: 0.0, high: 2.0 }
    }
}

impl Correction {
    /// Checks the bounds, which hold 1 between them.
    ///
    /// # Errors
    /// [`LossError::Config`] names the bound.
    pub fn validate(&self) -> Result<(), LossError> {
        check_field(
            "correction.low",
            self.low.into(),
            (0.0..=1.0).contains(&self.low),
            "in [0, 1]",
        )?;

        let fits = self.high.is_finite() && self.high >= 1.0;
        check_field("correction.high", self.high.into(), fits, "a finite number, at least 1")
    }

    /// The weight of a ratio, and whether a bound changed it.
    #[inline(always)]
    pub(super) fn weigh(&self, ratio: f32) -> (f32, bool) {
        let above = ratio > self.high;
        let below = ratio < self.low;
        let bound = match self.rule {
            CorrectionRule::Truncate if above => self.high,
            CorrectionRule::Truncate => self.low,
            CorrectionRule::Mask => 0.0,
        };
        (if above | below { bound } else { ratio }, above | below)
    }
}
