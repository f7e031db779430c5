//! Objectives of token scope, stretch by stretch.

use super::LossOutcome;
use crate::error::{LossError, check_len};
use crate::metrics::LossMetrics;
use rayon::prelude::*;

/// Entries that one rayon task takes.
const TASK: usize = 1 << 14;

/// Some entries of a batch in a row, and where their gradients go.
#[derive(Debug)]
pub struct Stretch<'a> {
    /// The place of the first of them in the batch.
    pub start: usize,
    /// `[L]`, their log-probabilities, nats.
    pub logprobs: &'a [f32],
    /// `[L]`, their entropies, nats, where known.
    pub entropy: Option<&'a [f32]>,
    /// `[L]`, receives the derivative of the loss's sum by each log-probability; what stands there
    /// is overwritten.
    pub gradient: &'a mut [f32],
    /// `[L]`, receives the derivative by each entropy; given where
    /// [`TokenEvaluator::has_entropy_gradient`].
    pub entropy_gradient: Option<&'a mut [f32]>,
}

/// The sums over some entries.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LossSums {
    /// The sum of the weighted losses, before the denominator.
    pub loss: f64,
    /// What they say of the policy.
    pub metrics: LossMetrics,
}

impl LossSums {
    /// Adds the sums over other entries.
    pub fn merge(&mut self, other: &Self) {
        self.loss += other.loss;
        self.metrics.merge(&other.metrics);
    }
}

/// An objective of token scope, laid over a batch
/// ([`Objective::by_token`](crate::Objective::by_token)).
pub trait TokenEvaluator: Send + Sync {
    /// Whether the loss depends on the entropies.
    fn has_entropy_gradient(&self) -> bool {
        false
    }

    /// Evaluates a stretch: writes its gradients and returns its sums.
    ///
    /// # Errors
    /// As [`Objective::evaluate`](crate::Objective::evaluate).
    fn evaluate(&self, stretch: Stretch) -> Result<LossSums, LossError>;
}

/// Evaluates a whole batch in parallel, in stretches that do not depend on the number of threads.
pub(crate) fn evaluate_by_token(
    evaluator: &dyn TokenEvaluator,
    entries: usize,
    logprobs: &[f32],
    entropy: Option<&[f32]>,
    denominator: f64,
) -> Result<LossOutcome, LossError> {
    check_len("logprobs", logprobs.len(), entries)?;
    check_len("entropy", entropy.map_or(entries, <[f32]>::len), entries)?;

    let mut gradient = vec![0.0; entries];
    let mut entropy_gradient = evaluator.has_entropy_gradient().then(|| vec![0.0; entries]);
    let mut by_entropy = entropy_gradient.as_mut().map(|gradient| gradient.chunks_mut(TASK));

    let mut stretches = Vec::with_capacity(entries.div_ceil(TASK));
    for (task, (gradient, logprobs)) in
        gradient.chunks_mut(TASK).zip(logprobs.chunks(TASK)).enumerate()
    {
        let start = task * TASK;
        stretches.push(Stretch {
            start,
            entropy: entropy.map(|entropy| &entropy[start..start + logprobs.len()]),
            entropy_gradient: by_entropy.as_mut().and_then(Iterator::next),
            logprobs,
            gradient,
        });
    }

    let parts: Vec<_> =
        stretches.into_par_iter().map(|stretch| evaluator.evaluate(stretch)).collect();
    let mut sums = LossSums::default();
    for part in parts {
        sums.merge(&part?);
    }
    Ok(LossOutcome::of(sums, denominator, gradient, entropy_gradient))
}
