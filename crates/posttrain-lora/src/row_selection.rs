//! The adapters of some of a batch's rows.

use crate::{RowAdapters, Segment};

impl<'a> RowAdapters<'a> {
    /// The adapters of `rows`, rising indices into a batch of `total` rows, in their order: for a
    /// layer that only some rows reach. A run none of whose rows is among them stays as an empty
    /// one. `None` if the runs do not add up to `total`, an index lies outside, or they do not rise.
    ///
    /// ```
    /// use posttrain_lora::{RowAdapters, Segment};
    ///
    /// let run = |rows| Segment { rows, adapter: None };
    /// let batch = RowAdapters::segments(vec![run(2), run(3)]);
    /// assert!(batch.selected(&[0, 3, 4], 5).is_some());
    /// assert!(batch.selected(&[0, 5], 5).is_none());
    /// assert!(batch.selected(&[-1, 3], 5).is_none() && batch.selected(&[3, 0], 5).is_none());
    /// ```
    #[must_use]
    pub fn selected(&self, rows: &[i64], total: i64) -> Option<Self> {
        let runs = self.runs(total)?;
        if !rows.is_sorted() || rows.first().is_some_and(|first| *first < 0) {
            return None;
        }

        if let [only] = runs.as_slice() {
            return rows
                .iter()
                .all(|row| (0..total).contains(row))
                .then(|| RowAdapters::all(only.adapter));
        }

        let mut selected = Vec::with_capacity(runs.len());
        let mut at = 0;
        for run in runs {
            let end = run.start + run.rows;
            let count = rows[at..].iter().take_while(|row| **row < end).count();
            at += count;
            selected.push(Segment { rows: count as i64, adapter: run.adapter });
        }

        (at == rows.len()).then(|| RowAdapters::segments(selected))
    }
}
