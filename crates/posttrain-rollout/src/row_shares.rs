//! How rows are shared out among clients, and whose prompts are worth reading for it.

use crate::batch::Batch;
use crate::waiting::{Turn, Waiting};
use std::collections::BTreeMap;

/// Whether a client that has `rows` rows gives one to a client that has `rank`: it keeps as many as
/// the other gets.
pub(crate) fn gives_way(rows: usize, rank: usize) -> bool {
    rows > rank + 1
}

/// The rows that there will be for the samples whose prompts the next pass reads.
pub(crate) struct RowShares<'a> {
    batch: &'a Batch,
    free: usize,
    /// What those who run will give.
    given: usize,
    /// What samples of this pass will have, by priority and client.
    promised: BTreeMap<(i32, u64), usize>,
    /// Whose turn it is when the next row is free, of those that need but a row.
    next: Option<Turn>,
}

impl<'a> RowShares<'a> {
    /// Those of a batch, beside so many free ones; `next` is whose turn it is when another is free.
    pub fn new(batch: &'a Batch, free: usize, next: Option<Turn>) -> Self {
        Self { batch, free, given: 0, promised: BTreeMap::new(), next }
    }

    /// Whether samples will have a row.
    pub fn has_one_for(&mut self, waiting: &Waiting) -> bool {
        let Waiting { group, rank, .. } = waiting;
        if self.free > 0 {
            return true;
        }
        // The next row that is free, once a pass.
        if self.next.take_if(|next| waiting.turn() < *next).is_some() {
            return true;
        }

        let running = self.batch.of_the_most(group).map_or(0, |(_, rows)| rows);
        let of_others = |&(&(priority, client), _): &(&(i32, u64), &usize)| {
            priority == group.priority && client != group.client
        };
        let promised = self.promised.iter().filter(of_others).map(|(_, rows)| *rows).max();
        let most = running.saturating_sub(self.given).max(promised.unwrap_or(0));
        gives_way(most, *rank)
    }

    /// Counts samples among those that will have rows.
    pub fn promise(&mut self, waiting: &Waiting) {
        let Waiting { group, samples, .. } = waiting;
        self.given += samples.len().saturating_sub(self.free);
        self.free = self.free.saturating_sub(samples.len());
        *self.promised.entry((group.priority, group.client)).or_default() += samples.len();
    }
}
