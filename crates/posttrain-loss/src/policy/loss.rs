//! The losses to choose from, with their bounds.

use crate::error::{LossError, check_field};
use serde::{Deserialize, Serialize};

/// The loss of one token, with `ratio = exp(logprob − old)` and its advantage `A`.
///
/// `old` is the token's log-probability under the policy that sampled, or `old_logprobs` where the
/// [batch](crate::LossBatch) has them. Bounds and masks hold back what the advantage already pushed
/// far enough.
///
/// | kind | loss of a token | gradient by its log-probability | after |
/// | --- | --- | --- | --- |
/// | `importance_sampling` | `−min(r, cap) · A` | the same | Tinker |
/// | `ppo_clip` | `−min(r·A, clamp(r, 1 − low, 1 + high)·A)` | `−r·A`, 0 where clipped | PPO |
/// | `ppo_ratio` | the same, by the ratio's own bounds | the same | Tinker's `ppo` |
/// | `dual_clip` | that of `ppo_clip`, at most `−c·A` where `A < 0` | the same, 0 beyond `c` | verl's `vanilla` |
/// | `cispo` | `−clamp(r, low, high) · A · logprob` | `−clamp(r, low, high) · A` | MiniMax-M1, Tinker |
/// | `dro` | `−(logprob · A − β/2 · (logprob − old)²)` | `−(A − β · (logprob − old))` | Tinker, verl |
/// | `gspo` | that of `ppo_clip` with its sequence's ratio `s = exp(mean (logprob − old))` | `−s·A`, 0 where clipped | GSPO |
/// | `gmpo` | `−g·A`, `g = exp(mean of the bounded log-ratios)` of its sequence | `−g·A`, 0 where bounded | GMPO |
/// | `dppo` | `−kept · min(r, cap) · A + τ · (logprob − old)²` | `−kept · min(r, cap) · A + 2τ · (logprob − old)` | DPPO, prime-rl |
///
/// GRPO, Dr. GRPO and DAPO are `ppo_clip` under an [`Aggregation`](crate::Aggregation) each.
///
/// In a configuration file: `{ kind = "ppo_clip", clip_low = 0.2, clip_high = 0.28 }`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum PolicyLoss {
    /// `−ratio · A`, gradient `−ratio · A` (Tinker's `importance_sampling`).
    ImportanceSampling {
        /// Truncates the ratio, as a weight: loss and gradient are both `−min(ratio, cap) · A`, so
        /// that a token beyond the cap still learns, at the cap's weight (truncated importance
        /// sampling; TRL caps at 3, verl at 2). At least 1; none by default, as in Tinker.
        #[serde(default)]
        ratio_cap: Option<f32>,
    },
    /// `−min(ratio · A, clamp(ratio, 1 − clip_low, 1 + clip_high) · A)` (PPO, arXiv 1707.06347):
    /// beyond a bound, in the direction in which the advantage already pushed it, a token has no
    /// gradient.
    PpoClip {
        /// Distance from 1 down to which the ratio is followed, in [0, 1]. 0.2 in TRL, verl and
        /// SkyRL.
        #[serde(default = "default_clip")]
        clip_low: f32,
        /// Distance from 1 up to which the ratio is followed, at least 0. 0.2 in the same; 0.28 in
        /// DAPO (arXiv 2503.14476).
        #[serde(default = "default_clip")]
        clip_high: f32,
    },
    /// PPO's clipped loss with its bounds on the ratio itself, as Tinker's `ppo` has them.
    PpoRatio {
        /// The smallest ratio followed, in [0, 1]. 0.8 in Tinker.
        #[serde(default = "default_low_threshold")]
        clip_low_threshold: f32,
        /// The largest ratio followed, at least 1. 1.2 in Tinker.
        #[serde(default = "default_high_threshold")]
        clip_high_threshold: f32,
    },
    /// PPO's clipped loss with a bound on what a token of negative advantage may cost (dual clip,
    /// arXiv 1912.09729): where `A < 0`, the loss is at most `−clip_ratio_c · A`, and has no
    /// gradient beyond.
    DualClip {
        /// As in `ppo_clip`.
        #[serde(default = "default_clip")]
        clip_low: f32,
        /// As in `ppo_clip`.
        #[serde(default = "default_clip")]
        clip_high: f32,
        /// The largest ratio that a token of negative advantage is pushed away at, above 1. 3 in
        /// verl and SkyRL.
        #[serde(default = "default_clip_ratio_c")]
        clip_ratio_c: f32,
    },
    /// `−clamp(ratio, low, high) · A · logprob`, the clamped ratio a constant (CISPO, MiniMax-M1,
    /// arXiv 2506.13585): every token keeps a gradient, at a bounded weight.
    Cispo {
        /// The smallest weight, in [0, 1]. 0 in Tinker and SkyRL: no bound.
        #[serde(default)]
        clip_low_threshold: f32,
        /// The largest weight, at least 1. 4 in Tinker; 5 in TRL, 6 in SkyRL.
        #[serde(default = "default_cispo_high")]
        clip_high_threshold: f32,
    },
    /// `−(logprob · A − β/2 · (logprob − old)²)` (direct reward optimization, arXiv 2405.19107, as
    /// Tinker and verl have it).
    Dro {
        /// β, the weight of the squared distance from the old policy, nats⁻², above 0. 0.05 by
        /// default, from Tinker's example; none is published.
        #[serde(default = "default_dro_beta")]
        beta: f32,
    },
    /// PPO's clipped loss with one ratio per sequence, `exp(mean (logprob − old))`, and a gradient
    /// at each token (GSPO, arXiv 2507.18071, its token form). `sequence_mean` is the paper's
    /// aggregation.
    Gspo {
        /// Distance from 1 down to which the sequence's ratio is followed, in [0, 1]. 3e-4 in the
        /// paper.
        #[serde(default = "default_gspo_low")]
        clip_low: f32,
        /// Distance from 1 up to which the sequence's ratio is followed, at least 0. 4e-4 in the
        /// paper.
        #[serde(default = "default_gspo_high")]
        clip_high: f32,
    },
    /// The geometric mean of a sequence's ratios, each bounded in the direction in which the
    /// advantage pushes it (GMPO, arXiv 2507.20673). `sequence_mean` is the paper's aggregation.
    Gmpo {
        /// How far below 0 a log-ratio counts where `A < 0`, nats, at least 0. 0.4 in the paper and
        /// TRL.
        #[serde(default = "default_gmpo_bound")]
        clip_low: f32,
        /// How far above 0 a log-ratio counts where `A > 0`, nats, at least 0. 0.4 in the same.
        #[serde(default = "default_gmpo_bound")]
        clip_high: f32,
    },
    /// Importance sampling that leaves out tokens whose *probability*, not ratio, has moved too far
    /// in the direction in which the advantage pushes it (DPPO, arXiv 2602.04879), with a squared
    /// log-ratio at every token (prime-rl's default loss).
    Dppo {
        /// How the move is measured. Total variation by default, as in prime-rl.
        #[serde(default)]
        divergence: DppoDivergence,
        /// The largest move down followed where `A ≤ 0`, at least 0. 0.2 in prime-rl.
        #[serde(default = "default_dppo_mask")]
        mask_low: f32,
        /// The largest move up followed where `A > 0`, at least 0. 0.2 in the same.
        #[serde(default = "default_dppo_mask")]
        mask_high: f32,
        /// τ, the weight of `(logprob − old)²`, nats⁻², at least 0. 1e-3 in prime-rl; 0 in verl.
        #[serde(default = "default_dppo_penalty")]
        squared_log_ratio: f32,
        /// Truncates the ratio, as in `importance_sampling`. None by default, as in prime-rl; 20 in
        /// verl.
        #[serde(default)]
        ratio_cap: Option<f32>,
    },
}

/// How far a token's probability `p` has moved from the old policy's `μ`, the rest of the
/// vocabulary taken as one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DppoDivergence {
    /// `|p − μ|`.
    #[default]
    TotalVariation,
    /// `μ · ln(μ / p) + (1 − μ) · ln((1 − μ) / (1 − p))`, nats.
    Kl,
}

fn default_clip() -> f32 {
    0.2
}

fn default_low_threshold() -> f32 {
    0.8
}

fn default_high_threshold() -> f32 {
    1.2
}

fn default_clip_ratio_c() -> f32 {
    3.0
}

fn default_cispo_high() -> f32 {
    4.0
}

fn default_dro_beta() -> f32 {
    0.05
}

fn default_gspo_low() -> f32 {
    3e-4
}

fn default_gspo_high() -> f32 {
    4e-4
}

fn default_gmpo_bound() -> f32 {
    0.4
}

fn default_dppo_mask() -> f32 {
    0.2
}

fn default_dppo_penalty() -> f32 {
    1e-3
}

impl Default for PolicyLoss {
    /// Importance sampling without a cap, Tinker's default.
    fn default() -> Self {
        Self::ImportanceSampling { ratio_cap: None }
    }
}

impl PolicyLoss {
    /// Checks caps and bounds.
    ///
    /// # Errors
    /// [`LossError::Config`] names the field.
    pub fn validate(&self) -> Result<(), LossError> {
        match *self {
            Self::ImportanceSampling { ratio_cap } => cap(ratio_cap),
            Self::PpoClip { clip_low, clip_high } | Self::Gspo { clip_low, clip_high } => {
                distances(clip_low, clip_high)
            }
            Self::PpoRatio { clip_low_threshold, clip_high_threshold }
            | Self::Cispo { clip_low_threshold, clip_high_threshold } => {
                within("clip_low_threshold", clip_low_threshold, 0.0..=1.0, "in [0, 1]")?;
                within(
                    "clip_high_threshold",
                    clip_high_threshold,
                    1.0..=f32::MAX,
                    "a finite number, at least 1",
                )
            }
            Self::DualClip { clip_low, clip_high, clip_ratio_c } => {
                distances(clip_low, clip_high)?;
                let fits = clip_ratio_c.is_finite() && clip_ratio_c > 1.0;
                check_field("clip_ratio_c", clip_ratio_c.into(), fits, "a finite number above 1")
            }
            Self::Dro { beta } => check_field(
                "beta",
                beta.into(),
                beta.is_finite() && beta > 0.0,
                "a finite number above 0",
            ),
            Self::Gmpo { clip_low, clip_high } => {
                at_least_zero("clip_low", clip_low)?;
                at_least_zero("clip_high", clip_high)
            }
            Self::Dppo { mask_low, mask_high, squared_log_ratio, ratio_cap, .. } => {
                at_least_zero("mask_low", mask_low)?;
                at_least_zero("mask_high", mask_high)?;
                at_least_zero("squared_log_ratio", squared_log_ratio)?;
                cap(ratio_cap)
            }
        }
    }

    /// Whether a token's loss needs the other tokens of its sequence.
    pub(super) fn is_of_sequences(&self) -> bool {
        matches!(self, Self::Gspo { .. } | Self::Gmpo { .. })
    }

    /// Whether a token whose advantage is 0 has no gradient.
    pub(super) fn ignores_zero_advantages(&self) -> bool {
        match *self {
            Self::Dro { .. } => false,
            Self::Dppo { squared_log_ratio, .. } => squared_log_ratio == 0.0,
            _ => true,
        }
    }
}

fn cap(ratio_cap: Option<f32>) -> Result<(), LossError> {
    within("ratio_cap", ratio_cap.unwrap_or(1.0), 1.0..=f32::MAX, "a finite number, at least 1")
}

fn distances(clip_low: f32, clip_high: f32) -> Result<(), LossError> {
    within("clip_low", clip_low, 0.0..=1.0, "in [0, 1]")?;
    at_least_zero("clip_high", clip_high)
}

fn at_least_zero(field: &'static str, value: f32) -> Result<(), LossError> {
    within(field, value, 0.0..=f32::MAX, "a finite number, at least 0")
}

fn within(
    field: &'static str,
    value: f32,
    range: std::ops::RangeInclusive<f32>,
    expected: &'static str,
) -> Result<(), LossError> {
    check_field(field, value.into(), range.contains(&value), expected)
}
