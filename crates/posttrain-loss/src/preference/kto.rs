//! Kahneman-Tversky optimization.

use super::pairs::finite;
use super::score::{Baseline, Length, Score, scores};
use super::sigmoid;
use crate::aggregate::StepTotals;
use crate::batch::{LossBatch, TokenAdvantages, needed};
use crate::error::{LossError, check_field};
use crate::metrics::LossMetrics;
use crate::objective::{LossOutcome, Objective, Scope};
use serde::{Deserialize, Serialize};

/// What an error says needs the missing field.
const NAME: &str = "KTO";

/// `λ_D · (1 − σ(β (h − z)))` of a desirable sequence and `λ_U · (1 − σ(β (z − h)))` of an
/// undesirable one, with `h` its score (KTO, arXiv 2402.01306). The mean over the step's sequences.
///
/// A sequence is desirable if its advantage is above 0, undesirable if below; of advantages per
/// token, that of its first token trained on counts. An advantage of 0 is no label, and an error.
///
/// `z`, the reference point, is the policy's divergence from the reference, which a loss on single
/// sequences cannot know: estimate it with [`reference_point`](Self::reference_point) from prompts
/// with completions of *other* prompts (TRL does, once per batch), or leave it at 0, which is
/// APO-zero (arXiv 2408.06266, TRL's `apo_zero_unpaired`).
///
/// Reports `preference/chosen` and `preference/rejected`, the mean rewards `β h` of desirable and
/// undesirable sequences.
///
/// ```
/// use posttrain_loss::{LossBatch, Objective, TokenAdvantages, preference::Kto};
///
/// let batch = LossBatch {
///     advantages: Some(TokenAdvantages::PerSequence(&[1.0, -1.0])),
///     reference_logprobs: Some(&[-2.0, -1.0]),
///     ..LossBatch::of(&[1, 1])
/// };
/// let outcome = Kto::default().evaluate(&batch, &[-2.0, -1.0], None, &batch.totals()?)?;
/// assert_eq!(outcome.loss(), 0.5); // 1 − σ(0), of both
/// assert_eq!(outcome.gradient, [-0.025, 0.025]); // ∓β · σ'(0)
/// # Ok::<(), posttrain_loss::LossError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kto {
    /// β, how fast a score saturates, nats⁻¹, above 0. 0.1 in the paper and TRL.
    pub beta: f64,
    /// λ_D, the weight of desirable sequences, at least 0. 1 in TRL; the paper balances the two by
    /// their numbers.
    pub desirable_weight: f64,
    /// λ_U, the weight of undesirable sequences, at least 0. 1 in TRL.
    pub undesirable_weight: f64,
    /// `z`, nats, at least 0. 0 by default.
    pub reference_point: f64,
}

impl Default for Kto {
    /// β of 0.1 and equal weights, as in TRL, with a reference point of 0.
    fn default() -> Self {
        Self { beta: 0.1, desirable_weight: 1.0, undesirable_weight: 1.0, reference_point: 0.0 }
    }
}

impl Kto {
    /// An estimate of the reference point: the mean score of a batch of mismatched sequences, at
    /// least 0, nats.
    ///
    /// `batch` holds completions under prompts that they do not answer, with the reference's
    /// log-probabilities, and `logprobs: [N]` the policy's. 0 of a batch without an entry to train
    /// on.
    ///
    /// # Errors
    /// [`LossError::Length`], [`LossError::Missing`], [`LossError::NonFinite`].
    pub fn reference_point(batch: &LossBatch, logprobs: &[f32]) -> Result<f64, LossError> {
        let scores =
            scores(batch, logprobs, Baseline::Reference { needed_by: NAME }, Length::Summed)?;
        let values: Vec<f64> = scores.into_iter().flatten().map(|score| score.value).collect();
        Ok((values.iter().sum::<f64>() / values.len().max(1) as f64).max(0.0))
    }

    /// The loss of a sequence and its derivative by the score; `sign` is 1 where it is desirable,
    /// else −1.
    fn term(&self, score: f64, sign: f64) -> (f64, f64) {
        let weight = if sign > 0.0 { self.desirable_weight } else { self.undesirable_weight };
        let belief = sigmoid(sign * self.beta * (score - self.reference_point));
        (weight * (1.0 - belief), -weight * sign * self.beta * belief * (1.0 - belief))
    }
}

/// 1 for a desirable sequence, −1 for an undesirable one.
fn label(
    batch: &LossBatch,
    advantages: TokenAdvantages,
    sequence: usize,
    score: &Score,
) -> Result<f64, LossError> {
    let advantage = match advantages {
        TokenAdvantages::PerSequence(values) => values[sequence],
        TokenAdvantages::PerToken(values) => {
            let first = score.span.clone().find(|entry| batch.weight(*entry) != 0.0);
            first.map_or(0.0, |entry| values[entry])
        }
    };

    if advantage > 0.0 {
        Ok(1.0)
    } else if advantage < 0.0 {
        Ok(-1.0)
    } else {
        Err(LossError::Unlabelled { sequence, advantage })
    }
}

impl Objective for Kto {
    fn validate(&self) -> Result<(), LossError> {
        let fits = self.beta.is_finite() && self.beta > 0.0;
        check_field("beta", self.beta, fits, "a finite number above 0")?;

        let others = [
            ("desirable_weight", self.desirable_weight),
            ("undesirable_weight", self.undesirable_weight),
            ("reference_point", self.reference_point),
        ];
        for (field, value) in others {
            check_field(
                field,
                value,
                value.is_finite() && value >= 0.0,
                "a finite number, at least 0",
            )?;
        }
        Ok(())
    }

    fn scope(&self) -> Scope {
        Scope::Sequence
    }

    fn needs_reference(&self) -> bool {
        true
    }

    fn denominator(&self, totals: &StepTotals) -> f64 {
        totals.trained_sequences.max(1) as f64
    }

    fn evaluate(
        &self,
        batch: &LossBatch,
        logprobs: &[f32],
        _entropy: Option<&[f32]>,
        totals: &StepTotals,
    ) -> Result<LossOutcome, LossError> {
        self.validate()?;
        let scores =
            scores(batch, logprobs, Baseline::Reference { needed_by: NAME }, Length::Summed)?;
        let advantages = needed(batch.advantages, "advantages", NAME)?;

        let mut gradient = vec![0.0; logprobs.len()];
        let mut loss_sum = 0.0;
        let mut metrics = LossMetrics::default();
        for (sequence, score) in scores.iter().enumerate() {
            let Some(score) = score else { continue };
            let sign = label(batch, advantages, sequence, score)?;
            let (loss, slope) = self.term(score.value, sign);
            loss_sum += loss;
            score.write(batch, slope, &mut gradient);

            let name = if sign > 0.0 { "preference/chosen" } else { "preference/rejected" };
            metrics.named.add(name, self.beta * score.value, 1.0);
        }

        finite(loss_sum, self.denominator(totals), gradient, metrics)
    }
}
