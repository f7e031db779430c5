//! Cross-entropy: supervised fine-tuning, and any loss that is linear in the log-probabilities.

use crate::aggregate::{Aggregation, StepTotals};
use crate::batch::LossBatch;
use crate::error::LossError;
use crate::layout::Layout;
use crate::objective::{
    EntryRule, Entrywise, LossOutcome, Objective, Scope, TokenEvaluator, evaluate_by_token,
};
use serde::{Deserialize, Serialize};

/// `−Σ_t w_t · logprob_t`, aggregated: supervised fine-tuning, with `w` the batch's weights.
///
/// Weights may have either sign: unlikelihood, and the linear surrogate `w_t = −∂C/∂logprob_t` of
/// any loss `C` of one's own (Tinker's `forward_backward_custom`). With `K` targets per position
/// and `w` a teacher's probabilities it is the forward KL divergence but for a constant.
/// [`Aggregation::TokenSum`] is Tinker's `cross_entropy`, the mean over tokens TRL's `SFTTrainer`.
///
/// Reports `nll`, nats: `−Σ w·logprob / Σ w` over the entries of positive weight.
///
/// ```
/// use posttrain_loss::{CrossEntropy, LossBatch, Objective};
///
/// let weights = [0.0, 1.0, 1.0]; // the prompt's token is not trained on
/// let batch = LossBatch { weights: Some(&weights), ..LossBatch::of(&[3]) };
/// let outcome = CrossEntropy::default().evaluate(&batch, &[-9.0, -1.0, -2.0], None, &batch.totals()?)?;
/// assert_eq!(outcome.loss(), 1.5);
/// assert_eq!(outcome.gradient, [0.0, -1.0, -1.0]);
/// assert_eq!(outcome.metrics.named.get("nll"), Some(1.5));
/// # Ok::<(), posttrain_loss::LossError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CrossEntropy {
    /// How token losses become one number. The mean over the step's tokens by default.
    pub aggregation: Aggregation,
}

struct NegativeLogLikelihood;

impl EntryRule for NegativeLogLikelihood {
    fn term(&self, _entry: usize, logprob: f32) -> (f32, f32) {
        (-logprob, -1.0)
    }

    fn reported(&self, weight: f32, logprob: f32, _loss: f32) -> (f64, f64) {
        let weight = f64::from(weight.max(0.0));
        (-weight * f64::from(logprob), weight)
    }

    fn metric(&self) -> &'static str {
        "nll"
    }
}

impl CrossEntropy {
    fn lay<'a>(
        &self,
        batch: &LossBatch<'a>,
    ) -> Result<Entrywise<'a, NegativeLogLikelihood>, LossError> {
        self.validate()?;
        batch.check()?;
        Ok(Entrywise { layout: Layout::new(batch, self.aggregation), rule: NegativeLogLikelihood })
    }
}

impl Objective for CrossEntropy {
    fn validate(&self) -> Result<(), LossError> {
        self.aggregation.validate()
    }

    fn scope(&self) -> Scope {
        Scope::Token
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
