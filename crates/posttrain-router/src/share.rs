//! A share with its interval.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The 97.5% quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// A share of a number of questions, with its 95% Wilson interval.
///
/// ```
/// use posttrain_router::Share;
///
/// let share = Share::of(50, 100);
/// assert_eq!(share.to_string(), "0.500 [0.404, 0.596]");
/// assert_eq!(Share::of(0, 0).to_string(), "-");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// The share; none of nothing.
    pub share: Option<f64>,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
    /// Of how many questions.
    pub n: usize,
}

impl Share {
    /// `k` of `n`, with the interval `(p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n)`, z = 1.96 (Wilson, 1927).
    ///
    /// ```
    /// use posttrain_router::Share;
    ///
    /// assert_eq!((Share::of(0, 0).low, Share::of(0, 0).high), (0.0, 1.0));
    /// ```
    pub fn of(k: usize, n: usize) -> Self {
        if n == 0 {
            return Self { share: None, low: 0.0, high: 1.0, n };
        }
        let (size, p) = (n as f64, k as f64 / n as f64);
        let square = Z * Z / size;
        let half = Z * (p * (1.0 - p) / size + square / (4.0 * size)).sqrt();
        let end = |side: f64| ((p + square / 2.0 + side * half) / (1.0 + square)).clamp(0.0, 1.0);
        // Rounding must not leave the share itself outside.
        Self { share: Some(p), low: end(-1.0).min(p), high: end(1.0).max(p), n }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.share {
            Some(share) => write!(out, "{share:.3} [{:.3}, {:.3}]", self.low, self.high),
            None => out.write_str("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_interval_holds_its_share_and_narrows(k in 0usize..1000, more in 0usize..1000) {
            let n = k + more;
            let small = Share::of(k, n);
            prop_assert!(0.0 <= small.low && small.low <= small.high && small.high <= 1.0);
            if let Some(p) = small.share {
                prop_assert!(small.low <= p && p <= small.high);
                let large = Share::of(100 * k, 100 * n);
                prop_assert!(large.high - large.low < small.high - small.low);
            }
        }
    }
}
