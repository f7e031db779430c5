//! What a sequence counts by.

use crate::batch::{LossBatch, needed};
use crate::error::{LossError, check_len, named_non_finite};
use std::ops::Range;

/// Whose distance from the policy a sequence counts by.
#[derive(Clone, Copy)]
pub(super) enum Baseline {
    /// The reference's.
    Reference {
        /// The objective that needs it.
        needed_by: &'static str,
    },
    /// None: its log-probability itself.
    Zero,
}

/// How entries add up to a sequence's score.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Length {
    /// Their sum.
    Summed,
    /// Their sum over the number of those trained on.
    Averaged,
}

/// A sequence's score, and how it depends on its entries.
#[derive(Clone)]
pub(super) struct Score {
    /// `Σ_t w_t · (logprob_t − baseline_t)`, or that over the number of entries; 0 of none.
    pub(super) value: f64,
    /// Where its entries stand.
    pub(super) span: Range<usize>,
    /// What an entry's weight is multiplied with.
    share: f64,
}

impl Score {
    /// Adds the score's part of a gradient to its entries'; `slope` is the loss's derivative by the
    /// score.
    pub(super) fn write(&self, batch: &LossBatch, slope: f64, gradient: &mut [f32]) {
        for entry in self.span.clone() {
            gradient[entry] = (slope * self.share * f64::from(batch.weight(entry))) as f32;
        }
    }
}

/// The score of each sequence, `None` where it has no entry to train on.
///
/// # Errors
/// [`LossError::Length`], [`LossError::Missing`] for arguments that do not fit;
/// [`LossError::NonFinite`] naming a value.
pub(super) fn scores(
    batch: &LossBatch,
    logprobs: &[f32],
    baseline: Baseline,
    length: Length,
) -> Result<Vec<Option<Score>>, LossError> {
    batch.check()?;
    check_len("logprobs", logprobs.len(), batch.entries())?;
    let reference = match baseline {
        Baseline::Reference { needed_by } => {
            Some(needed(batch.reference_logprobs, "reference_logprobs", needed_by)?)
        }
        Baseline::Zero => None,
    };

    let mut scores = Vec::with_capacity(batch.sequence_lengths.len());
    for span in batch.spans() {
        let mut value = 0.0;
        let mut entries = 0;
        for entry in span.clone().filter(|entry| batch.weight(*entry) != 0.0) {
            let behind = reference.map_or(0.0, |reference| reference[entry]);
            let named = [
                ("logprobs", logprobs[entry]),
                ("reference_logprobs", behind),
                ("weights", batch.weight(entry)),
            ];
            if let Some(error) = named_non_finite(entry, &named) {
                return Err(error);
            }

            value +=
                f64::from(batch.weight(entry)) * (f64::from(logprobs[entry]) - f64::from(behind));
            entries += 1;
        }

        let share = match length {
            Length::Summed => 1.0,
            Length::Averaged => 1.0 / f64::from(entries.max(1)),
        };
        scores.push((entries > 0).then_some(Score { value: value * share, span, share }));
    }
    Ok(scores)
}
