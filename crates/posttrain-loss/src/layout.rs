//! A batch laid out for aggregation: where each sequence ends, and what its entries weigh.

use crate::aggregate::Aggregation;
use crate::batch::LossBatch;

/// The sequences' places and weights.
pub(crate) struct Layout<'a> {
    pub(crate) batch: LossBatch<'a>,
    /// The end of each sequence.
    ends: Vec<usize>,
    /// The weight of each sequence's entries, before their own.
    weights: Vec<f32>,
}

impl<'a> Layout<'a> {
    /// The layout of a checked batch.
    pub(crate) fn new(batch: &LossBatch<'a>, aggregation: Aggregation) -> Self {
        Layout {
            batch: *batch,
            ends: batch.spans().map(|span| span.end).collect(),
            weights: aggregation.weights(batch.sequence_lengths, batch.weights),
        }
    }

    pub(crate) fn entries(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Writes each entry's weight but for its own, from entry `first` on.
    pub(crate) fn fill_sequence_weights(&self, first: usize, out: &mut [f32]) {
        self.fill(first, out, |sequence| self.weights[sequence]);
    }

    /// Writes each entry's whole weight, 0 where it is not trained on, from entry `first` on.
    pub(crate) fn fill_weights(&self, first: usize, out: &mut [f32]) {
        self.fill_sequence_weights(first, out);
        let Some(own) = self.batch.weights else { return };
        for (weight, own) in out.iter_mut().zip(&own[first..]) {
            *weight = if *own != 0.0 { *weight * own } else { 0.0 };
        }
    }

    /// Writes a sequence's value to each of its entries, from entry `first` on.
    pub(crate) fn fill(&self, first: usize, mut out: &mut [f32], value: impl Fn(usize) -> f32) {
        let mut sequence = self.ends.partition_point(|end| *end <= first);
        let mut at = first;

        while !out.is_empty() {
            let length = (self.ends[sequence] - at).min(out.len());
            let (now, later) = out.split_at_mut(length);
            now.fill(value(sequence));
            out = later;
            at += length;
            sequence += 1;
        }
    }
}
