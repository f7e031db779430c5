//! Neighboring sequences as pairs.

use super::score::{Baseline, Length, scores};
use crate::aggregate::StepTotals;
use crate::batch::LossBatch;
use crate::error::{LossError, check_len};
use crate::metrics::LossMetrics;
use crate::objective::LossOutcome;

/// How a pair of sequences is scored and what its loss is.
pub(super) struct PairRule<L> {
    pub(super) baseline: Baseline,
    pub(super) length: Length,
    /// What a score is multiplied with to become a reward, in the metrics.
    pub(super) reward_scale: f64,
    /// The loss and its derivative by the chosen sequence's score less the rejected one's.
    pub(super) loss: L,
}

/// Pairs of a step.
pub(super) fn denominator(totals: &StepTotals) -> f64 {
    totals.trained_pairs.max(1) as f64
}

/// An outcome whose loss and gradient f32 can hold.
pub(super) fn finite(
    loss_sum: f64,
    denominator: f64,
    gradient: Vec<f32>,
    metrics: LossMetrics,
) -> Result<LossOutcome, LossError> {
    if !loss_sum.is_finite() || !gradient.iter().all(|gradient| gradient.is_finite()) {
        return Err(LossError::Overflow { argument: "loss" });
    }

    let mut outcome = LossOutcome::new(loss_sum, denominator, gradient);
    outcome.metrics = metrics;
    Ok(outcome)
}

/// Loss, gradient and metrics of a batch of pairs.
pub(super) fn evaluate(
    batch: &LossBatch,
    logprobs: &[f32],
    totals: &StepTotals,
    rule: &PairRule<impl Fn(f64) -> (f64, f64)>,
) -> Result<LossOutcome, LossError> {
    let sequences = batch.sequence_lengths.len();
    check_len("sequence_lengths", sequences, sequences.next_multiple_of(2))?;

    let scores = scores(batch, logprobs, rule.baseline, rule.length)?;
    let mut gradient = vec![0.0; logprobs.len()];
    let mut loss_sum = 0.0;
    let mut metrics = LossMetrics::default();
    for pair in scores.chunks_exact(2) {
        let [Some(chosen), Some(rejected)] = pair else { continue };
        let (loss, slope) = (rule.loss)(chosen.value - rejected.value);
        loss_sum += loss;
        chosen.write(batch, slope, &mut gradient);
        rejected.write(batch, -slope, &mut gradient);

        let [better, worse] = [chosen, rejected].map(|score| rule.reward_scale * score.value);
        metrics.named.add("preference/accuracy", if better > worse { 1.0 } else { 0.0 }, 1.0);
        metrics.named.add("preference/margin", better - worse, 1.0);
        metrics.named.add("preference/chosen", better, 1.0);
        metrics.named.add("preference/rejected", worse, 1.0);
    }

    finite(loss_sum, denominator(totals), gradient, metrics)
}
