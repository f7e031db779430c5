//! Policy losses: value, gradient by the log-probabilities in closed form, and metrics, in one pass
//! over the tokens.
//!
//! [`PolicyObjective`] is the whole of a policy gradient, [`PolicyLoss`] the loss of one token in
//! it, [`Correction`] what is done about a sampler whose log-probabilities are not the trainer's.

mod cispo;
mod clip;
mod correction;
mod dppo;
mod dro;
mod gmpo;
mod importance_sampling;
mod kernel;
mod loss;
mod plan;
mod sequence;
mod tensor;
#[cfg(test)]
mod tests;

pub use correction::{Correction, CorrectionLevel, CorrectionRule};
pub use loss::{DppoDivergence, PolicyLoss};

use crate::aggregate::{Aggregation, StepTotals};
use crate::batch::LossBatch;
use crate::error::{LossError, check_field, check_len};
use crate::head::TokenScores;
use crate::kl::KlPenalty;
use crate::objective::{
    LossOutcome, Objective, Scope, TokenEvaluator, evaluate_by_token, evaluate_on_host,
};
use plan::Plan;
use sequence::Sequences;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// What a policy is trained on:
/// `Σ_t weight_t · (ρ_t · loss_t + β · KL_t − η · entropy_t) / denominator`.
///
/// The weights are those of the [`Aggregation`] times the entries' own, the denominator is the
/// aggregation's; `ρ` is what corrects for the sampler, 1 without a [`Correction`]; β and η are the
/// coefficients of the KL penalty and the entropy bonus.
///
/// ```
/// use posttrain_loss::{LossBatch, Objective, PolicyObjective, TokenAdvantages};
///
/// let batch = LossBatch {
///     sampling_logprobs: Some(&[-1.0, -2.0, -3.0]),
///     advantages: Some(TokenAdvantages::PerSequence(&[1.0, -1.0])),
///     ..LossBatch::of(&[2, 1])
/// };
/// // The first token has become twice as likely as when it was sampled.
/// let logprobs = [-1.0 + 2f32.ln(), -2.0, -3.0];
/// let outcome = PolicyObjective::default().evaluate(&batch, &logprobs, None, &batch.totals()?)?;
/// assert!((outcome.loss() - -2.0 / 3.0).abs() < 1e-6); // −(2 + 1 − 1) / 3
/// assert!((outcome.gradient[0] - -2.0).abs() < 1e-6);
/// assert_eq!(outcome.gradient[1..], [-1.0, 1.0]);
/// # Ok::<(), posttrain_loss::LossError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyObjective {
    /// The loss of a token. Importance sampling by default.
    pub loss: PolicyLoss,
    /// How token losses become one number. The mean over the step's tokens by default.
    pub aggregation: Aggregation,
    /// A penalty on the distance from the reference. None by default, as in TRL and Tinker.
    pub kl: Option<KlPenalty>,
    /// η, the weight of the entropy bonus, nats⁻¹, at least 0. 0 by default, as in TRL, verl and
    /// Tinker.
    pub entropy_coefficient: f64,
    /// What is done about a sampler that differs from the trainer. Nothing by default, as in Tinker
    /// and verl.
    pub correction: Option<Correction>,
}

impl Objective for PolicyObjective {
    fn validate(&self) -> Result<(), LossError> {
        self.loss.validate()?;
        self.aggregation.validate()?;
        self.kl.map_or(Ok(()), |kl| kl.validate())?;
        self.correction.map_or(Ok(()), |correction| correction.validate())?;
        let eta = self.entropy_coefficient;
        check_field(
            "entropy_coefficient",
            eta,
            eta.is_finite() && eta >= 0.0,
            "a finite number, at least 0",
        )
    }

    fn scope(&self) -> Scope {
        if Sequences::are_needed(self) { Scope::Sequence } else { Scope::Token }
    }

    fn needs_reference(&self) -> bool {
        self.kl.is_some()
    }

    fn ignores_zero_advantages(&self) -> bool {
        self.loss.ignores_zero_advantages() && self.kl.is_none() && self.entropy_coefficient == 0.0
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
        let plan = Plan::new(self, batch)?;
        check_len("logprobs", logprobs.len(), batch.entries())?;
        let plan = plan.with_sequences(logprobs)?;
        evaluate_by_token(&plan, batch.entries(), logprobs, entropy, self.denominator(totals))
    }

    fn by_token<'a>(
        &'a self,
        batch: &LossBatch<'a>,
    ) -> Result<Option<Box<dyn TokenEvaluator + 'a>>, LossError> {
        if self.scope() != Scope::Token {
            return Ok(None);
        }
        Ok(Some(Box::new(Plan::new(self, batch)?)))
    }

    fn evaluate_scores(
        &self,
        batch: &LossBatch,
        scores: &TokenScores,
        totals: &StepTotals,
    ) -> Result<LossOutcome<Tensor>, LossError> {
        scores.check(batch.entries())?;
        if scores.logprobs.device() != Device::Cpu
            && let Some(outcome) = tensor::evaluate(self, batch, scores, totals)?
        {
            return Ok(outcome);
        }
        evaluate_on_host(scores, |logprobs, entropy| {
            self.evaluate(batch, logprobs, Some(entropy), totals)
        })
    }
}
