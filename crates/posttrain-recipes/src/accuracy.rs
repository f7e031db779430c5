//! A share of right answers with its interval.

use posttrain_reward::audit::Share;
use serde::{Deserialize, Serialize};

/// A share of right answers with its 95% Wilson interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Right answers over `n`; 0 of none.
    pub accuracy: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
    /// Answers that have a verdict.
    pub n: usize,
}

impl Accuracy {
    /// `right` of `n`, with the interval `(p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n)`, z = 1.96 (Wilson, 1927).
    ///
    /// ```
    /// use posttrain_recipes::Accuracy;
    ///
    /// let half = Accuracy::new(50, 100);
    /// assert_eq!(half.accuracy, 0.5);
    /// assert!((half.low - 0.4038).abs() < 1e-4 && (half.high - 0.5962).abs() < 1e-4);
    /// assert_eq!(Accuracy::new(0, 0), Accuracy { accuracy: 0.0, low: 0.0, high: 1.0, n: 0 });
    /// ```
    pub fn new(right: usize, n: usize) -> Self {
        let Share { share, low, high, .. } = Share::of(right as u64, n as u64);
        Self { accuracy: share.unwrap_or(0.0), low, high, n }
    }

    /// The share of right verdicts; those that failed are left out.
    ///
    /// ```
    /// use posttrain_recipes::Accuracy;
    ///
    /// assert_eq!(Accuracy::of(&[Some(true), None, Some(false)]), Accuracy::new(1, 2));
    /// ```
    pub fn of(verdicts: &[Option<bool>]) -> Self {
        let judged = verdicts.iter().flatten();
        Self::new(judged.clone().filter(|right| **right).count(), judged.count())
    }

    /// How many answers were right.
    ///
    /// ```
    /// assert_eq!(posttrain_recipes::Accuracy::new(7, 9).right(), 7);
    /// ```
    pub fn right(&self) -> usize {
        (self.accuracy * self.n as f64).round() as usize
    }

    /// The share over several sets of questions together; none of no questions.
    ///
    /// ```
    /// use posttrain_recipes::Accuracy;
    ///
    /// let sets = [Accuracy::new(1, 2), Accuracy::new(5, 6)];
    /// assert_eq!(Accuracy::pooled(&sets), Some(Accuracy::new(6, 8)));
    /// assert_eq!(Accuracy::pooled([]), None);
    /// ```
    pub fn pooled<'a>(sets: impl IntoIterator<Item = &'a Accuracy>) -> Option<Self> {
        let (right, n) = sets.into_iter().fold((0, 0), |(right, n), set| (right + set.right(), n + set.n));
        (n > 0).then(|| Self::new(right, n))
    }
}
