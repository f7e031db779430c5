//! How far a step's scoring is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::{RewardError, Score};

/// What a [`Scorer`](crate::Scorer) has seen so far.
///
/// ```
/// use posttrain_reward::ScoringProgress;
///
/// let progress = ScoringProgress { pushed: 10, scored: 4, failed: [("timed_out", 1), ("http_429", 3)].into() };
/// assert_eq!((progress.failures(), progress.waiting()), (4, 2));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScoringProgress {
    /// Completions that were pushed.
    pub pushed: usize,
    /// Completions that have a score.
    pub scored: usize,
    /// Completions whose reward failed, by the error's [`cause`](RewardError::cause).
    pub failed: BTreeMap<&'static str, usize>,
}

impl ScoringProgress {
    /// Completions whose reward failed, whatever the cause.
    ///
    /// ```
    /// assert_eq!(posttrain_reward::ScoringProgress::default().failures(), 0);
    /// ```
    #[must_use]
    pub fn failures(&self) -> usize {
        self.failed.values().sum()
    }

    /// Completions that were pushed and have neither a score nor an error yet.
    ///
    /// ```
    /// assert_eq!(posttrain_reward::ScoringProgress::default().waiting(), 0);
    /// ```
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pushed.saturating_sub(self.scored + self.failures())
    }
}

/// The counts that a scorer shares with its tasks.
#[derive(Clone, Default)]
pub(crate) struct Tally(Arc<Mutex<ScoringProgress>>);

impl Tally {
    pub(crate) fn push(&self) {
        self.change(|progress| progress.pushed += 1);
    }

    pub(crate) fn count(&self, result: &Result<Score, RewardError>) {
        self.change(|progress| match result {
            Ok(_) => progress.scored += 1,
            Err(error) => *progress.failed.entry(error.cause()).or_default() += 1,
        });
    }

    pub(crate) fn get(&self) -> ScoringProgress {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut ScoringProgress)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
