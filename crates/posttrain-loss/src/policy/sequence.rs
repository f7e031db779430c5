//! What the entries of a sequence share: its ratio, and its correction.

use super::correction::{Correction, CorrectionLevel};
use super::gmpo::Gmpo;
use super::plan::Plan;
use super::{PolicyLoss, PolicyObjective};
use crate::error::LossError;
use rayon::prelude::*;
use std::ops::Range;

/// One value per sequence.
pub(super) struct Sequences {
    /// The log-ratio that stands for each entry's own, nats, where the loss is one of sequences.
    pub(super) levels: Option<Vec<f32>>,
    /// The weight that corrects for the sampler, and whether a bound changed it, where the
    /// correction is one of sequences.
    pub(super) corrections: Option<Vec<(f32, bool)>>,
}

/// What is known of one sequence.
struct Sequence {
    /// The mean of its entries' log-ratios to the old policy, bounded where the loss bounds them; 0
    /// of none.
    level: f64,
    /// The sum of its entries' log-ratios of the trainer's policy before the step to the sampler's.
    to_sampler: f64,
    /// Entries trained on.
    entries: usize,
}

impl Sequences {
    /// Whether an objective needs any.
    pub(super) fn are_needed(objective: &PolicyObjective) -> bool {
        objective.loss.is_of_sequences() || sequence_correction(objective).is_some()
    }

    /// Measures each sequence; `logprobs: [N]` of the policy in training.
    ///
    /// # Errors
    /// The first value that keeps a sequence's ratio from being finite.
    pub(super) fn of(plan: &Plan, logprobs: &[f32]) -> Result<Self, LossError> {
        let advantages = plan.entry_advantages();
        let spans: Vec<_> = plan.layout.batch.spans().collect();
        let measured: Vec<Sequence> = spans
            .clone()
            .into_par_iter()
            .with_min_len(16)
            .map(|span| measure(plan, logprobs, &advantages, span))
            .collect();

        for (sequence, span) in measured.iter().zip(spans) {
            if !(sequence.level + sequence.to_sampler).is_finite() {
                return Err(plan.culprit(span.start, &logprobs[span], None));
            }
        }

        let objective = plan.objective;
        let levels = objective.loss.is_of_sequences();
        let correction = sequence_correction(objective);
        Ok(Self {
            levels: levels.then(|| measured.iter().map(|sequence| sequence.level as f32).collect()),
            corrections: correction
                .map(|correction| measured.iter().map(|s| s.correction(correction)).collect()),
        })
    }
}

fn sequence_correction(objective: &PolicyObjective) -> Option<Correction> {
    objective.correction.filter(|correction| correction.level != CorrectionLevel::Token)
}

impl Sequence {
    fn correction(&self, correction: Correction) -> (f32, bool) {
        let log_ratio = match correction.level {
            CorrectionLevel::Geometric => self.to_sampler / self.entries.max(1) as f64,
            CorrectionLevel::Token | CorrectionLevel::Sequence => self.to_sampler,
        };
        correction.weigh(log_ratio.exp() as f32)
    }
}

fn measure(plan: &Plan, logprobs: &[f32], advantages: &[f32], span: Range<usize>) -> Sequence {
    let batch = &plan.layout.batch;
    let bound = match plan.objective.loss {
        PolicyLoss::Gmpo { clip_low, clip_high } => Some(Gmpo { low: clip_low, high: clip_high }),
        _ => None,
    };

    let mut level = 0.0;
    let mut to_sampler = 0.0;
    let mut entries = 0;
    for entry in span.filter(|entry| batch.weight(*entry) != 0.0) {
        let logprob = logprobs[entry];
        let sampling = plan.sampling[entry];
        let old = batch.old_logprobs.map(|old| old[entry]);
        let log_ratio = match old {
            Some(old) => logprob - old,
            None if plan.objective.correction.is_some() => 0.0,
            None => logprob - sampling,
        };

        level +=
            f64::from(bound.map_or(log_ratio, |bound| bound.bounded(log_ratio, advantages[entry])));
        to_sampler += f64::from(old.unwrap_or(logprob) - sampling);
        entries += 1;
    }

    Sequence { level: level / entries.max(1) as f64, to_sampler, entries }
}
