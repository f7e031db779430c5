//! Distillation: the policy is brought to a teacher's distribution.

use crate::aggregate::{Aggregation, StepTotals};
use crate::batch::{LossBatch, needed};
use crate::error::LossError;
use crate::layout::Layout;
use crate::objective::{
    EntryRule, Entrywise, LossOutcome, Objective, Scope, TokenEvaluator, evaluate_by_token,
};
use serde::{Deserialize, Serialize};

/// The divergence of the policy `p` from a teacher `q`, entry by entry.
///
/// The teacher's log-probabilities are the batch's `reference_logprobs`. With `K` targets per
/// position (the teacher's `K` likeliest, or the policy's) a position's entries add up to the part
/// of its divergence that these tokens carry; nothing is added for the rest of the vocabulary, and
/// neither distribution is renormalized.
///
/// | divergence | loss of an entry | gradient by its log-probability | entries |
/// | --- | --- | --- | --- |
/// | `forward_kl` | `q · (ln q − ln p)` | `−q` | any tokens, usually the teacher's likeliest |
/// | `reverse_kl` | `p · (ln p − ln q)` | `p · (ln p − ln q + 1)` | any tokens, usually the policy's likeliest |
/// | `sampled_reverse_kl` | `r · (ln p − ln q)`, `r = p / sampler's` | `r · (ln p − ln q)` | the tokens that the policy sampled |
///
/// The first is the batch's cross-entropy with `q` as weights, but for the teacher's entropy. The
/// last is on-policy distillation: an unbiased estimate of the reverse KL divergence, whose
/// difference of logarithms counts as a constant (a reward), corrected by the importance ratio; it
/// needs `sampling_logprobs`.
///
/// `token_mean` divides by entries: with `K` targets per position, weights of `K` make it the mean
/// over positions.
///
/// Reports `distillation/kl`, nats: the mean loss of an entry.
///
/// ```
/// use posttrain_loss::{LossBatch, Objective, distillation::{Distillation, Divergence}};
///
/// // One position, two targets, of which the teacher finds both equally likely and the policy the first three times as.
/// let teacher = [0.5f32.ln(), 0.5f32.ln()];
/// let batch = LossBatch { reference_logprobs: Some(&teacher), ..LossBatch::of(&[2]) };
/// let distillation = Distillation { divergence: Divergence::ForwardKl, ..Distillation::default() };
/// let outcome = distillation.evaluate(&batch, &[0.75f32.ln(), 0.25f32.ln()], None, &batch.totals()?)?;
/// assert!((outcome.loss_sum - (0.5 * (2f64 / 3.0).ln() + 0.5 * 2f64.ln())).abs() < 1e-6);
/// assert_eq!(outcome.gradient, [-0.5, -0.5]);
/// # Ok::<(), posttrain_loss::LossError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Distillation {
    /// Which divergence.
    pub divergence: Divergence,
    /// How entries' losses become one number. The mean over the step's entries by default.
    pub aggregation: Aggregation,
}

/// A divergence between policy and teacher; see [`Distillation`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Divergence {
    /// KL(teacher ‖ policy): the policy covers what the teacher does.
    #[default]
    ForwardKl,
    /// KL(policy ‖ teacher): the policy keeps to what the teacher does.
    ReverseKl,
    /// KL(policy ‖ teacher), estimated from sampled tokens.
    SampledReverseKl,
}

struct Rule<'a> {
    divergence: Divergence,
    teacher: &'a [f32],
    sampling: &'a [f32],
}

impl EntryRule for Rule<'_> {
    fn term(&self, entry: usize, logprob: f32) -> (f32, f32) {
        let teacher = self.teacher[entry];
        let distance = logprob - teacher;
        match self.divergence {
            // What has no probability has no part in the divergence, though its logarithm is
            // infinite.
            Divergence::ForwardKl if teacher == f32::NEG_INFINITY => (0.0, 0.0),
            Divergence::ForwardKl => {
                let q = teacher.exp();
                (-q * distance, -q)
            }
            Divergence::ReverseKl if logprob == f32::NEG_INFINITY => (0.0, 0.0),
            Divergence::ReverseKl => {
                let p = logprob.exp();
                (p * distance, p * (distance + 1.0))
            }
            Divergence::SampledReverseKl => {
                let loss = (logprob - self.sampling[entry]).exp() * distance;
                (loss, loss)
            }
        }
    }

    fn reported(&self, _weight: f32, _logprob: f32, loss: f32) -> (f64, f64) {
        (loss.into(), 1.0)
    }

    fn metric(&self) -> &'static str {
        "distillation/kl"
    }
}

impl Distillation {
    fn lay<'a>(&self, batch: &LossBatch<'a>) -> Result<Entrywise<'a, Rule<'a>>, LossError> {
        self.validate()?;
        batch.check()?;

        let sampling = match self.divergence {
            Divergence::SampledReverseKl => {
                needed(batch.sampling_logprobs, "sampling_logprobs", "`sampled_reverse_kl`")?
            }
            Divergence::ForwardKl | Divergence::ReverseKl => &[],
        };
        let teacher = needed(batch.reference_logprobs, "reference_logprobs", "distillation")?;
        let rule = Rule { divergence: self.divergence, teacher, sampling };
        Ok(Entrywise { layout: Layout::new(batch, self.aggregation), rule })
    }
}

impl Objective for Distillation {
    fn validate(&self) -> Result<(), LossError> {
        self.aggregation.validate()
    }

    fn scope(&self) -> Scope {
        Scope::Token
    }

    fn needs_reference(&self) -> bool {
        true
    }

    fn denominator(&self, totals: &StepTotals) -> f64 {
        self.aggregation.denominator(totals)
    }

    fn evaluate(
        &self,
        batch: &LossBatch,
        logprobs: &[f32],
        entropy: Option<&[f32]>,
        totals: &StepTotals,
    ) -> Result<LossOutcome, LossError> {
        let entries = self.lay(batch)?;
        evaluate_by_token(&entries, batch.entries(), logprobs, entropy, self.denominator(totals))
    }

    fn by_token<'a>(
        &'a self,
        batch: &LossBatch<'a>,
    ) -> Result<Option<Box<dyn TokenEvaluator + 'a>>, LossError> {
        Ok(Some(Box::new(self.lay(batch)?)))
    }
}
