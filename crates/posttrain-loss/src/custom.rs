//! A closure of the user's as an objective.

use crate::aggregate::{Aggregation, StepTotals};
use crate::batch::LossBatch;
use crate::error::{CustomProblem, LossError, check_len};
use crate::metrics::{LossMetrics, NamedMeans};
use crate::objective::{LossOutcome, LossSums, Objective, Scope, Stretch, TokenEvaluator};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a closure of the user's gives.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CustomLoss {
    /// The loss of what the closure was given, summed, before the denominator.
    pub loss_sum: f64,
    /// `[N]`, the derivative of `loss_sum` by each log-probability. Whatever stands at an entry of
    /// weight 0 counts as 0.
    pub gradient: Vec<f32>,
    /// What else is to be reported.
    pub named: NamedMeans,
}

type Evaluate = dyn Fn(&LossBatch, &[f32]) -> CustomLoss + Send + Sync;

/// An objective made of a closure from a batch and the policy's log-probabilities to a loss and its
/// gradient.
///
/// The closure is called with whole units of the scope that it states. Of [`Scope::Token`], that is
/// any stretch of a batch, with sequences cut where it ends (their lengths are those of the parts;
/// a sequence's advantage stands for each part), since the fused head evaluates a loss while a
/// chunk's logits exist. It is called from several threads at once where the trainer has several
/// workers.
///
/// A closure that panics, or returns a gradient of the wrong length, or NaN or an infinity, makes
/// the call an error that names the objective ([`LossError::Custom`]). Nothing else is disturbed,
/// and the next call is as good as the first; if the closure keeps state across calls, it is the
/// closure's own to keep sound.
///
/// ```
/// use posttrain_loss::{CustomLoss, CustomObjective, LossBatch, Objective, Scope};
///
/// // Half of the squared distance from −1, at every entry.
/// let objective = CustomObjective::new("tempered", Scope::Token, |_batch, logprobs| {
///     let gradient: Vec<f32> = logprobs.iter().map(|logprob| logprob + 1.0).collect();
///     let loss_sum = gradient.iter().map(|distance| f64::from(distance * distance / 2.0)).sum();
///     CustomLoss { loss_sum, gradient, ..CustomLoss::default() }
/// });
/// let batch = LossBatch::of(&[2]);
/// let outcome = objective.evaluate(&batch, &[-1.0, -3.0], None, &batch.totals()?)?;
/// assert_eq!((outcome.loss(), outcome.gradient), (2.0, vec![0.0, -2.0]));
/// # Ok::<(), posttrain_loss::LossError>(())
/// ```
pub struct CustomObjective {
    name: String,
    scope: Scope,
    aggregation: Aggregation,
    needs_reference: bool,
    evaluate: Box<Evaluate>,
}

impl CustomObjective {
    /// An objective with a name for errors, whose loss is summed over the step.
    pub fn new(
        name: impl Into<String>,
        scope: Scope,
        evaluate: impl Fn(&LossBatch, &[f32]) -> CustomLoss + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            scope,
            aggregation: Aggregation::TokenSum {},
            needs_reference: false,
            evaluate: Box::new(evaluate),
        }
    }

    /// The same with the denominator of an aggregation. The closure weighs its tokens itself, as
    /// the aggregation would.
    #[must_use]
    pub fn with_aggregation(mut self, aggregation: Aggregation) -> Self {
        self.aggregation = aggregation;
        self
    }

    /// The same with the reference's log-probabilities in every batch.
    #[must_use]
    pub fn with_reference(mut self) -> Self {
        self.needs_reference = true;
        self
    }

    /// Calls the closure and checks what it gives.
    fn call(&self, batch: &LossBatch, logprobs: &[f32]) -> Result<CustomLoss, LossError> {
        let refuse = |problem| LossError::Custom { objective: self.name.clone(), problem };

        // What the closure leaves half-done when it panics is its own; nothing of ours crosses the
        // boundary but the result.
        let called = catch_unwind(AssertUnwindSafe(|| (self.evaluate)(batch, logprobs)));
        let mut loss = called
            .map_err(|payload| refuse(CustomProblem::Panicked { message: message(&*payload) }))?;

        let expected = logprobs.len();
        let got = loss.gradient.len();
        if got != expected {
            return Err(refuse(CustomProblem::GradientLength { expected, got }));
        }
        if !loss.loss_sum.is_finite() {
            return Err(refuse(CustomProblem::Loss { value: loss.loss_sum }));
        }
        for (index, gradient) in loss.gradient.iter_mut().enumerate() {
            if batch.weight(index) == 0.0 {
                *gradient = 0.0;
            }
            if !gradient.is_finite() {
                return Err(refuse(CustomProblem::Gradient { index, value: *gradient }));
            }
        }
        Ok(loss)
    }
}

/// What a panic said.
fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

impl fmt::Debug for CustomObjective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, scope, aggregation, needs_reference, .. } = self;
        f.debug_struct("CustomObjective")
            .field("name", name)
            .field("scope", scope)
            .field("aggregation", aggregation)
            .field("needs_reference", needs_reference)
            .finish_non_exhaustive()
    }
}

impl Objective for CustomObjective {
    fn validate(&self) -> Result<(), LossError> {
        self.aggregation.validate()
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn needs_reference(&self) -> bool {
        self.needs_reference
    }

    fn denominator(&self, totals: &StepTotals) -> f64 {
        self.aggregation.denominator(totals)
    }

    fn evaluate(
        &self,
        batch: &LossBatch,
        logprobs: &[f32],
        _entropy: Option<&[f32]>,
        totals: &StepTotals,
    ) -> Result<LossOutcome, LossError> {
        self.validate()?;
        batch.check()?;
        check_len("logprobs", logprobs.len(), batch.entries())?;

        let CustomLoss { loss_sum, gradient, named } = self.call(batch, logprobs)?;
        let mut outcome = LossOutcome::new(loss_sum, self.denominator(totals), gradient);
        outcome.metrics.named = named;
        Ok(outcome)
    }

    fn by_token<'a>(
        &'a self,
        batch: &LossBatch<'a>,
    ) -> Result<Option<Box<dyn TokenEvaluator + 'a>>, LossError> {
        self.validate()?;
        batch.check()?;
        if self.scope != Scope::Token {
            return Ok(None);
        }
        Ok(Some(Box::new(ByStretch { objective: self, batch: *batch })))
    }
}

/// The closure over any stretch of a batch.
struct ByStretch<'a> {
    objective: &'a CustomObjective,
    batch: LossBatch<'a>,
}

impl TokenEvaluator for ByStretch<'_> {
    fn evaluate(&self, stretch: Stretch) -> Result<LossSums, LossError> {
        let entries = stretch.start..stretch.start + stretch.logprobs.len();
        let loss =
            self.batch.with_entries(entries, |part| self.objective.call(part, stretch.logprobs))?;

        stretch.gradient.copy_from_slice(&loss.gradient);
        if let Some(entropy_gradient) = stretch.entropy_gradient {
            entropy_gradient.fill(0.0);
        }

        let metrics = LossMetrics { named: loss.named, ..LossMetrics::default() };
        Ok(LossSums { loss: loss.loss_sum, metrics })
    }
}
