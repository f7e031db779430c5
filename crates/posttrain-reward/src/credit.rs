//! What a task with several tests is worth when some of them fail.

use serde::{Deserialize, Serialize};

/// How the outcomes of several tests become one value.
///
/// SpreadsheetBench (<https://arxiv.org/abs/2406.14991>) calls the two the soft and the hard
/// restriction, after the scoring of the International Olympiad in Informatics and of the ICPC.
///
/// ```
/// use posttrain_reward::Credit;
///
/// assert_eq!([Credit::Hard.value(2, 3), Credit::Hard.value(3, 3)], [0.0, 1.0]);
/// assert_eq!(Credit::Soft.value(3, 4), 0.75);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credit {
    /// 1 where all tests pass, else 0.
    #[default]
    Hard,
    /// The share of tests that pass. A policy can live on the easy ones.
    Soft,
}

impl Credit {
    /// The value of `passed` tests of `total`; 0 where there are none.
    ///
    /// ```
    /// assert_eq!(posttrain_reward::Credit::Soft.value(0, 0), 0.0);
    /// ```
    #[must_use]
    pub fn value(self, passed: usize, total: usize) -> f64 {
        match self {
            _ if total == 0 => 0.0,
            Self::Hard => f64::from(u8::from(passed >= total)),
            Self::Soft => passed.min(total) as f64 / total as f64,
        }
    }
}
