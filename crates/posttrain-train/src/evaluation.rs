//! Accuracy on held-out examples.

use crate::evaluator::Answer;
use crate::wilson::wilson_interval;
use serde::{Deserialize, Serialize};

/// A share of right answers with its 95% Wilson interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Right answers over `n`; 0 for none.
    pub accuracy: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
    /// Answers that were judged; those whose reward failed are left out.
    pub n: usize,
}

impl Accuracy {
    /// The share of `right` in `n`.
    ///
    /// ```
    /// let accuracy = posttrain_train::Accuracy::new(50, 100);
    /// assert_eq!((accuracy.accuracy, accuracy.n), (0.5, 100));
    /// assert!(accuracy.low < 0.41 && accuracy.high > 0.59);
    /// ```
    pub fn new(right: usize, n: usize) -> Self {
        let (low, high) = wilson_interval(right, n);
        Self { accuracy: if n == 0 { 0.0 } else { right as f64 / n as f64 }, low, high, n }
    }

    /// The share of right answers; those without a verdict are left out.
    pub fn of<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> Self {
        let verdicts = answers.into_iter().filter_map(Answer::is_right);
        let (right, n) = verdicts.fold((0, 0), |(right, n), is_right| (right + usize::from(is_right), n + 1));
        Self::new(right, n)
    }
}

/// A policy's accuracy on a set of examples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// One answer an example, sampled at temperature 1.
    pub sampled: Accuracy,
    /// One answer an example, the most probable token each time; absent where it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub greedy: Option<Accuracy>,
}

/// Which answers are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvaluationMode {
    /// Sampled at temperature 1 alone.
    Sampled,
    /// Sampled and greedy.
    SampledAndGreedy,
}
