//! Which adapter each row of a batch goes through.

use crate::{AdapterView, LoraError};
use tch::Tensor;

/// A run of consecutive rows that share an adapter.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// Rows in the run.
    pub rows: i64,
    /// Their adapter; `None` is the base alone.
    pub adapter: Option<&'a AdapterView>,
}

/// The adapters of a batch's rows, as runs in row order.
///
/// One base serves a batch of several adapters: the base's product is computed once for all rows,
/// the thin products a run at a time.
#[derive(Debug, Clone)]
pub struct RowAdapters<'a> {
    runs: Runs<'a>,
}

#[derive(Debug, Clone)]
enum Runs<'a> {
    One(Option<&'a AdapterView>),
    Many(Vec<Segment<'a>>),
}

impl<'a> RowAdapters<'a> {
    /// The base alone, for any number of rows.
    #[must_use]
    pub fn none() -> Self {
        Self { runs: Runs::One(None) }
    }

    /// One adapter (or none) for any number of rows.
    #[must_use]
    pub fn all(adapter: Option<&'a AdapterView>) -> Self {
        Self { runs: Runs::One(adapter) }
    }

    /// Runs of rows with an adapter each; their rows must add up to the batch's.
    #[must_use]
    pub fn segments(segments: Vec<Segment<'a>>) -> Self {
        Self { runs: Runs::Many(segments) }
    }

    /// The runs of a batch of `rows` rows, or `None` if they do not add up to it.
    pub(crate) fn runs(&self, rows: i64) -> Option<Vec<Run<'a>>> {
        let segments = match &self.runs {
            Runs::One(adapter) => &[Segment { rows, adapter: *adapter }][..],
            Runs::Many(segments) => segments,
        };

        let mut start = 0;
        let mut runs = Vec::with_capacity(segments.len());
        for segment in segments {
            runs.push(Run { start, rows: segment.rows, adapter: segment.adapter });
            start += segment.rows;
        }
        (start == rows).then_some(runs)
    }
}

/// A segment at its place in a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<'a> {
    pub start: i64,
    pub rows: i64,
    pub adapter: Option<&'a AdapterView>,
}

impl Run<'_> {
    /// Its rows of a batch's.
    pub fn of(&self, x: &Tensor) -> Result<Tensor, LoraError> {
        Ok(x.f_narrow(0, self.start, self.rows)?)
    }
}
