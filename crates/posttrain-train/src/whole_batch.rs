//! Objectives that need a whole batch's log-probabilities before they give a gradient.

use crate::scores::DatumScores;
use crate::{Datum, TrainError};
use posttrain_loss::{
    Aggregation, CrossEntropy, LossBatch, LossError, LossMetrics, Objective, StepTotals,
    TokenAdvantages,
};

/// A loss that is linear in the log-probabilities, with the gradient of another one.
pub(crate) struct Linear {
    /// The batch's datums, weighed by that gradient.
    pub datums: Vec<Datum>,
    /// What the other one came to.
    pub loss_sum: f64,
    pub denominator: f64,
    pub metrics: LossMetrics,
}

impl Linear {
    /// `−Σ w·logprob`, whose derivative by a log-probability is `−w`.
    pub fn objective() -> CrossEntropy {
        CrossEntropy { aggregation: Aggregation::TokenSum {} }
    }
}

/// Evaluates an objective on a whole batch, and turns its gradient into weights of the batch's
/// targets.
///
/// # Errors
/// [`TrainError::Loss`] for what the objective refuses, or for a gradient that is not one of each
/// target; [`TrainError::Config`] for one by the entropies, which is not to be had for a batch.
pub(crate) fn linear_datums(
    datums: &[Datum],
    objective: &dyn Objective,
    scores: &DatumScores,
    reference: Option<&DatumScores>,
    totals: &StepTotals,
) -> Result<Linear, TrainError> {
    let lengths: Vec<usize> = datums.iter().map(|datum| datum.targets.len()).collect();
    let weights = field(datums, |datum| {
        Some(datum.weights.clone().unwrap_or_else(|| vec![1.0; datum.targets.len()]))
    });
    let sampling = field(datums, |datum| datum.sampling_logprobs.clone());
    let old = field(datums, |datum| datum.old_logprobs.clone());
    let advantages = field(datums, |datum| datum.advantages.clone());
    let given = field(datums, |datum| datum.reference_logprobs.clone());
    let reference = given.or_else(|| reference.map(|scores| scores.logprobs.concat()));

    let batch = LossBatch {
        weights: weights.as_deref(),
        sampling_logprobs: sampling.as_deref(),
        old_logprobs: old.as_deref(),
        advantages: advantages.as_deref().map(TokenAdvantages::PerToken),
        reference_logprobs: reference.as_deref(),
        sequence_lengths: &lengths,
    };
    let outcome = objective.evaluate(&batch, &scores.logprobs.concat(), None, totals)?;

    let entries = lengths.iter().sum();
    if outcome.gradient.len() != entries {
        let got = outcome.gradient.len();
        return Err(LossError::Length { argument: "gradient", expected: entries, got }.into());
    }
    let by_entropy = outcome.entropy_gradient.map_or("none", |_| "one");
    TrainError::check(
        "objective's gradient by the entropies",
        by_entropy == "none",
        "none",
        by_entropy,
    )?;

    let mut gradient = outcome.gradient.as_slice();
    let mut linear = Vec::with_capacity(datums.len());
    for datum in datums {
        let (own, later) = gradient.split_at(datum.targets.len());
        gradient = later;
        let weights =
            own.iter().map(|slope| (-f64::from(*slope) / outcome.denominator) as f32).collect();
        linear.push(datum.clone().with_weights(weights));
    }
    Ok(Linear {
        datums: linear,
        loss_sum: outcome.loss_sum,
        denominator: outcome.denominator,
        metrics: outcome.metrics,
    })
}

/// A field of all datums, end to end; `None` where one of them lacks it.
fn field(datums: &[Datum], of: impl Fn(&Datum) -> Option<Vec<f32>>) -> Option<Vec<f32>> {
    let parts: Option<Vec<Vec<f32>>> = datums.iter().map(of).collect();
    parts.map(|parts| parts.concat())
}
