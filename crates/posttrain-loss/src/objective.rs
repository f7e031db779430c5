//! What an objective is: log-probabilities to a loss and its gradient, by whatever rule.

mod config;
mod entries;
mod outcome;
mod token;

pub use config::ObjectiveConfig;
pub(crate) use entries::{EntryRule, Entrywise};
pub use outcome::LossOutcome;
pub(crate) use outcome::evaluate_on_host;
pub(crate) use token::evaluate_by_token;
pub use token::{LossSums, Stretch, TokenEvaluator};

use crate::aggregate::StepTotals;
use crate::batch::LossBatch;
use crate::error::LossError;
use crate::head::TokenScores;
use tch::Tensor;

/// What has to be known at once to evaluate an objective, and so what a micro-batch must not cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One entry: the loss is a sum over entries, each of which needs no other one's
    /// log-probability.
    Token,
    /// All entries of a sequence.
    Sequence,
    /// Two neighboring sequences: of the first two, the first is the chosen one and the second the
    /// rejected one; so of the third and the fourth, and so on.
    Pair,
    /// Everything: the whole step in one micro-batch.
    Batch,
}

/// A rule that turns log-probabilities into a loss and its gradient.
///
/// An objective knows no model and no vocabulary. [`Head::step`](crate::Head::step) evaluates one
/// on hidden states; who has log-probabilities of their own calls [`evaluate`](Self::evaluate).
/// Policy gradients, supervised fine-tuning, preferences and distillation are objectives of this
/// crate; a closure becomes one by [`CustomObjective`](crate::CustomObjective), and any type may be
/// one:
///
/// ```
/// use posttrain_loss::{LossBatch, LossError, LossOutcome, Objective, Scope, StepTotals};
///
/// /// Half of the squared distance of each sequence's mean log-probability from −1.
/// struct Tempered;
///
/// impl Objective for Tempered {
///     fn validate(&self) -> Result<(), LossError> {
///         Ok(())
///     }
///
///     fn scope(&self) -> Scope {
///         Scope::Sequence
///     }
///
///     fn denominator(&self, totals: &StepTotals) -> f64 {
///         totals.sequences.max(1) as f64
///     }
///
///     fn evaluate(
///         &self,
///         batch: &LossBatch,
///         logprobs: &[f32],
///         _entropy: Option<&[f32]>,
///         totals: &StepTotals,
///     ) -> Result<LossOutcome, LossError> {
///         let mut outcome = LossOutcome::new(0.0, self.denominator(totals), vec![0.0; batch.entries()]);
///         for span in batch.spans().filter(|span| !span.is_empty()) {
///             let entries = span.len() as f32;
///             let distance = logprobs[span.clone()].iter().sum::<f32>() / entries + 1.0;
///             outcome.loss_sum += f64::from(distance * distance / 2.0);
///             outcome.gradient[span].fill(distance / entries);
///         }
///         Ok(outcome)
///     }
/// }
///
/// let batch = LossBatch::of(&[2]);
/// let outcome = Tempered.evaluate(&batch, &[-1.0, -3.0], None, &batch.totals()?)?;
/// assert_eq!((outcome.loss(), outcome.gradient), (0.5, vec![-0.5, -0.5]));
/// # Ok::<(), LossError>(())
/// ```
pub trait Objective: Send + Sync {
    /// Checks every setting against its range.
    ///
    /// # Errors
    /// [`LossError::Config`] names the field.
    fn validate(&self) -> Result<(), LossError>;

    /// What has to be known at once.
    fn scope(&self) -> Scope;

    /// Whether [`LossBatch::reference_logprobs`] are needed.
    fn needs_reference(&self) -> bool {
        false
    }

    /// Whether an entry whose advantage is 0 has no gradient, so that sequences of such entries may
    /// be left out of a micro-batch (not out of the totals). False where anything but the advantage
    /// moves the policy, such as a KL penalty or an entropy bonus.
    fn ignores_zero_advantages(&self) -> bool {
        false
    }

    /// What the loss's sum over the whole step is divided by; at least 1.
    fn denominator(&self, totals: &StepTotals) -> f64;

    /// Loss, gradient and metrics of a micro-batch that holds whole units of
    /// [`scope`](Self::scope).
    ///
    /// `logprobs: [N]`, nats, and `entropy: [N]`, nats, of the policy in training; the entropy is
    /// needed for an entropy bonus alone (where a position has several targets, its entropy stands
    /// at each). `totals` are those of the whole step. The result does not depend on the number of
    /// threads.
    ///
    /// # Errors
    /// [`LossError::Length`], [`LossError::Config`], [`LossError::Missing`] for arguments that do
    /// not fit; [`LossError::NonFinite`] naming a value that is not finite at an entry trained on.
    fn evaluate(
        &self,
        batch: &LossBatch,
        logprobs: &[f32],
        entropy: Option<&[f32]>,
        totals: &StepTotals,
    ) -> Result<LossOutcome, LossError>;

    /// The objective laid over a batch, to be evaluated stretch by stretch: what the fused head
    /// walks with.
    ///
    /// `None` for every other scope than [`Scope::Token`], and for an objective of that scope that
    /// has no such form: the head then scores, evaluates and goes back in turn, with the same
    /// results.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate), as far as they do not depend on the log-probabilities.
    fn by_token<'a>(
        &'a self,
        batch: &LossBatch<'a>,
    ) -> Result<Option<Box<dyn TokenEvaluator + 'a>>, LossError> {
        let _ = batch;
        Ok(None)
    }

    /// As [`evaluate`](Self::evaluate), from the head's scores wherever they lie: `scores.logprobs`
    /// and `scores.entropy: [N]` f32, both by entry. The gradients come back on their device.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate), and [`LossError::Tensor`] for scores that do not fit.
    fn evaluate_scores(
        &self,
        batch: &LossBatch,
        scores: &TokenScores,
        totals: &StepTotals,
    ) -> Result<LossOutcome<Tensor>, LossError> {
        scores.check(batch.entries())?;
        evaluate_on_host(scores, |logprobs, entropy| {
            self.evaluate(batch, logprobs, Some(entropy), totals)
        })
    }
}
