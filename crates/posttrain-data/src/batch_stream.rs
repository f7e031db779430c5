//! Endless batches of one domain or of a proportional mix, resumable anywhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand_chacha::rand_core::RngCore;
use serde::{Deserialize, Serialize};

use crate::shuffle::{shuffle, stream};
use crate::{DataError, Example};

/// How batches are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Prompts of a batch, at least 1; at most the rows of an epoch, except under
    /// [`LastBatch::Short`].
    pub prompts: u64,
    /// The same seed gives the same batches of the same examples, on every platform.
    pub seed: u64,
    /// What becomes of the rows at the end of an epoch that do not fill a batch.
    pub last: LastBatch,
}

impl Default for BatchConfig {
    /// 8 prompts: on two CPU cores a step of 8 groups of 8 completions takes seconds.
    fn default() -> Self {
        Self { prompts: 8, seed: 0, last: LastBatch::Carry }
    }
}

/// What becomes of the rows at the end of an epoch that do not fill a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LastBatch {
    /// The batch is filled from the next epoch's beginning: all batches are full, each example
    /// comes once an epoch.
    #[default]
    Carry,
    /// The batch is shorter: each example comes once an epoch.
    Short,
    /// The rows are left out, others in each epoch.
    Drop,
}

/// Where a stream stands: all that it takes to go on from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamState {
    /// Epochs completed.
    pub epoch: u64,
    /// Rows of the current epoch that have been given out.
    pub position: u64,
}

/// An endless stream of batches in which each example comes once an epoch, and domains come in
/// proportion throughout.
///
/// Each epoch shuffles each domain anew and interleaves them by their places: with `n_d` of `N`
/// rows in domain `d`, any first `p` rows of an epoch hold `p · n_d / N` of it, give or take the
/// number of domains. Of one domain alone this is a plain shuffle.
///
/// ```
/// use posttrain_data::{BatchConfig, BatchStream, Example};
///
/// let sums: Vec<_> = (0..4).map(|n| Example::new(n.to_string(), "math", format!("{n} + 1?"), "?")).collect();
/// let config = BatchConfig { prompts: 2, ..BatchConfig::default() };
/// let mut stream = BatchStream::new(sums.clone(), config).unwrap();
/// stream.next_batch();
/// let state = stream.state();
/// let second = stream.next_batch();
///
/// let mut resumed = BatchStream::new(sums, config).unwrap().resume(state).unwrap();
/// assert_eq!(resumed.next_batch(), second);
/// ```
#[derive(Clone, Debug)]
pub struct BatchStream {
    examples: Arc<[Example]>,
    config: BatchConfig,
    /// The rows of each domain; domains in the order of their names.
    domains: Vec<Vec<usize>>,
    /// The rows of the current epoch in their order.
    order: Vec<usize>,
    state: StreamState,
}

impl BatchStream {
    /// A stream at the beginning of its first epoch.
    ///
    /// # Errors
    /// [`DataError::NoRows`] without examples; [`DataError::Config`] where `prompts` is 0, or more
    /// than there are examples and batches may not be short.
    pub fn new(
        examples: impl Into<Arc<[Example]>>,
        config: BatchConfig,
    ) -> Result<Self, DataError> {
        let examples = examples.into();
        check(&config, examples.len() as u64)?;

        let mut domains: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (row, example) in examples.iter().enumerate() {
            domains.entry(&example.domain).or_default().push(row);
        }
        let domains = domains.into_values().collect();

        let mut stream =
            Self { config, domains, order: Vec::new(), state: StreamState::default(), examples };
        stream.order = stream.shuffled();
        Ok(stream)
    }

    /// The stream as it was when `state` was taken.
    ///
    /// # Errors
    /// [`DataError::StreamState`] where the state lies beyond the epoch's end: it is of other
    /// examples.
    pub fn resume(mut self, state: StreamState) -> Result<Self, DataError> {
        if state.position > self.rows() {
            let StreamState { epoch, position } = state;
            return Err(DataError::StreamState { epoch, position, rows: self.rows() });
        }

        self.state = state;
        self.order = self.shuffled();
        Ok(self)
    }

    /// The next batch: `prompts` examples, fewer only at the end of an epoch under
    /// [`LastBatch::Short`].
    pub fn next_batch(&mut self) -> Vec<Example> {
        let wanted = self.config.prompts;
        let left = self.rows() - self.state.position;
        if left == 0 || (left < wanted && self.config.last == LastBatch::Drop) {
            self.begin_epoch();
        }

        let mut batch = Vec::new();
        self.take(wanted, &mut batch);

        let lacking = wanted - batch.len() as u64;
        if lacking > 0 && self.config.last == LastBatch::Carry {
            self.begin_epoch();
            self.take(lacking, &mut batch);
        }
        batch
    }

    /// Where the stream stands; [`resume`](Self::resume) goes on with the batch that comes next.
    #[must_use]
    pub fn state(&self) -> StreamState {
        self.state
    }

    /// Rows of an epoch.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.examples.len() as u64
    }

    fn begin_epoch(&mut self) {
        self.state = StreamState { epoch: self.state.epoch.wrapping_add(1), position: 0 };
        self.order = self.shuffled();
    }

    /// At most so many of the epoch's remaining rows.
    fn take(&mut self, wanted: u64, batch: &mut Vec<Example>) {
        let end = self.rows().min(self.state.position.saturating_add(wanted));
        let rows = &self.order[self.state.position as usize..end as usize];
        batch.extend(rows.iter().map(|&row| self.examples[row].clone()));
        self.state.position = end;
    }

    /// The current epoch's order. The j-th of a domain's n rows is placed at (j + u) / n, with u
    /// drawn from [0, 1).
    fn shuffled(&self) -> Vec<usize> {
        let mut places: Vec<(u128, usize)> = Vec::with_capacity(self.examples.len());
        for (domain, rows) in self.domains.iter().enumerate() {
            let mut rng =
                stream(self.config.seed, &format!("epoch of domain {domain}"), self.state.epoch);
            let mut rows = rows.clone();
            shuffle(&mut rows, &mut rng);
            let count = rows.len() as u128;
            let place = |j: u128, u: u64| ((j << 64) | u128::from(u)) / count;
            places.extend((0..).zip(rows).map(|(j, row)| (place(j, rng.next_u64()), row)));
        }

        places.sort_unstable();
        places.into_iter().map(|(_, row)| row).collect()
    }
}

fn check(config: &BatchConfig, rows: u64) -> Result<(), DataError> {
    let got = config.prompts.to_string();
    if config.prompts == 0 {
        return Err(DataError::Config { field: "prompts", expected: "at least 1", got });
    }
    if rows == 0 {
        return Err(DataError::NoRows { what: "the stream of batches".to_owned() });
    }
    if config.last != LastBatch::Short && config.prompts > rows {
        return Err(DataError::Config {
            field: "prompts",
            expected: "at most the rows of an epoch",
            got,
        });
    }
    Ok(())
}
