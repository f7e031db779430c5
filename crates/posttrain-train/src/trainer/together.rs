//! Batches of several trainers, side by side in the same passes.

use super::{ForwardBackward, Trainer};
use crate::panics::caught;
use crate::pass::{Passed, Passes};
use crate::{Datum, TrainError, step_totals};
use posttrain_loss::{Objective, Scope, StepTotals};
use std::sync::Arc;

/// One of several calls of [`Trainer::forward_backward`] that are made together.
pub struct TrainerCall<'a> {
    /// Whose adapter is trained.
    pub trainer: &'a mut Trainer,
    /// A whole step.
    pub datums: &'a [Datum],
    /// What it is trained on.
    pub objective: &'a dyn Objective,
}

/// [`Trainer::forward_backward`] of several trainers on one base, whose datums go through it side by
/// side: the base's products are those of one batch, each adapter's those of its own rows. What each
/// gets is what it would get alone, up to rounding (which can turn the choice of an expert).
///
/// Calls share passes where their trainers stand on one base and are configured alike
/// (`micro_batch_tokens`, `checkpointing`), without ranks, under objectives that do not need pairs or
/// the whole batch, on datums without recordings. Others are made one after another. Where the
/// shared passes fail, a panic included, those calls are as well: an error is that of the call it
/// comes from, and of no other.
///
/// ```
/// use posttrain_lora::LoraConfig;
/// use posttrain_loss::CrossEntropy;
/// use posttrain_model::{Decoder, ModelConfig};
/// use posttrain_train::{Datum, Trainer, TrainerCall, TrainerConfig, forward_backward_together};
/// use std::sync::Arc;
///
/// let model = Arc::new(Decoder::random(&ModelConfig::tiny(), 7, tch::Kind::Float, tch::Device::Cpu)?);
/// let of_rank = |rank| {
///     let lora = LoraConfig { rank, ..LoraConfig::default() };
///     Trainer::new(model.clone(), &lora, TrainerConfig::default(), 7)
/// };
/// let (mut one, mut other) = (of_rank(4)?, of_rank(8)?);
/// let objective = CrossEntropy::default();
/// let (short, long) = ([Datum::completion(&[1], &[2])], [Datum::completion(&[3, 4], &[5, 6])]);
/// let outcomes = forward_backward_together(&mut [
///     TrainerCall { trainer: &mut one, datums: &short, objective: &objective },
///     TrainerCall { trainer: &mut other, datums: &long, objective: &objective },
/// ]);
/// assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_ok_and(|passes| passes.loss() > 0.0)));
/// assert!(one.optim_step(&one.adam_params(1e-3))?.grad_norm > 0.0);
/// # Ok::<(), posttrain_train::TrainError>(())
/// ```
pub fn forward_backward_together(
    calls: &mut [TrainerCall],
) -> Vec<Result<ForwardBackward, TrainError>> {
    together(calls).into_iter().map(|made| made.outcome).collect()
}

/// What came of a call, and whether it shared its passes.
pub(crate) struct Made {
    pub outcome: Result<ForwardBackward, TrainError>,
    pub shared: bool,
}

pub(crate) fn together(calls: &mut [TrainerCall]) -> Vec<Made> {
    let totals = sharing(calls);
    let passed = caught(|| passes(calls, &totals)).unwrap_or_else(|error| {
        tracing::warn!("passes that several trainers shared are made one by one: {error}");
        Vec::new()
    });

    let mut passed = passed.into_iter();
    let mut made = Vec::with_capacity(calls.len());
    for (call, totals) in calls.iter_mut().zip(totals) {
        let own = totals.and_then(|_| passed.next());
        made.push(match own {
            Some(passed) => Made { outcome: caught(|| call.take(passed)), shared: true },
            None => Made { outcome: caught(|| call.alone()), shared: false },
        });
    }
    made
}

/// Of each call that shares passes with others its step's totals.
fn sharing(calls: &[TrainerCall]) -> Vec<Option<StepTotals>> {
    let Some((first, [_, ..])) = calls.split_first() else {
        return calls.iter().map(|_| None).collect();
    };
    let own = |call: &TrainerCall| {
        // What is wrong with a call is found out where it is made alone.
        caught(|| if call.shares_with(first.trainer) { call.checked().map(Some) } else { Ok(None) })
            .ok()
            .flatten()
    };
    let totals: Vec<_> = calls.iter().map(own).collect();
    if totals.iter().flatten().count() < 2 { calls.iter().map(|_| None).collect() } else { totals }
}

/// The passes over the datums of the calls that share them. Nothing stays in any adapter.
fn passes(calls: &[TrainerCall], totals: &[Option<StepTotals>]) -> Result<Vec<Passed>, TrainError> {
    let Some(first) = calls.first() else { return Ok(Vec::new()) };
    let mut own = Vec::new();
    for (call, totals) in calls.iter().zip(totals) {
        if let Some(totals) = totals {
            own.push(call.trainer.call_of(call.datums, call.objective, totals)?);
        }
    }

    let Trainer { model, config, .. } = &*first.trainer;
    let workers = first.trainer.workers(own.iter().map(|call| call.tokens()).sum());
    let passes = Passes { model, checkpointing: config.checkpointing, calls: own };
    passes.run(config.micro_batch_tokens, workers)
}

impl TrainerCall<'_> {
    /// Whether the call could go through the base beside one of another trainer.
    pub(crate) fn shares_with(&self, other: &Trainer) -> bool {
        let trainer = &*self.trainer;
        Arc::ptr_eq(&trainer.model, &other.model)
            && trainer.config.micro_batch_tokens == other.config.micro_batch_tokens
            && trainer.config.checkpointing == other.config.checkpointing
            && trainer.ranks.size() == 1
            && other.ranks.size() == 1
            && !matches!(self.objective.scope(), Scope::Batch | Scope::Pair)
            && self.datums.iter().all(|datum| datum.recording.is_none())
    }

    /// The step's totals, if the call is in order.
    fn checked(&self) -> Result<StepTotals, TrainError> {
        self.objective.validate()?;
        self.trainer.check(self.datums)?;
        step_totals(self.datums)
    }

    fn take(&mut self, passed: Passed) -> Result<ForwardBackward, TrainError> {
        for gradients in &passed.gradients {
            self.trainer.adapter.add_gradients(gradients)?;
        }
        self.trainer.collected(self.datums, self.objective, &passed.outcome)?;
        Ok(passed.outcome)
    }

    fn alone(&mut self) -> Result<ForwardBackward, TrainError> {
        self.trainer.forward_backward(self.datums, self.objective)
    }
}
