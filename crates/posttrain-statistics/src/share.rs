//! A share with its interval.

use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// The 97.5% quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// A share of a number of questions, such as that of right answers, with its 95% Wilson interval.
///
/// In a file: `{"accuracy": 0.5, "low": 0.404, "high": 0.596, "n": 100}`; see [`share_form`] for
/// the other form.
///
/// ```
/// use posttrain_statistics::Share;
///
/// let half = Share::of(50, 100);
/// assert_eq!(half.to_string(), "0.500 [0.404, 0.596]");
/// assert_eq!(Share::of(0, 0), Share { share: 0.0, low: 0.0, high: 1.0, n: 0 });
/// assert_eq!(Share::of(0, 0).to_string(), "-");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// The share; 0 of nothing.
    #[serde(rename = "accuracy", alias = "share", deserialize_with = "null_is_zero")]
    pub share: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
    /// Of how many questions.
    pub n: usize,
}

impl Share {
    /// `k` of `n`, with the interval `(p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n)`, z = 1.96
    /// (Wilson, 1927). Of nothing nothing is known: the interval is from 0 to 1.
    #[must_use]
    pub fn of(k: usize, n: usize) -> Self {
        if n == 0 {
            return Self { share: 0.0, low: 0.0, high: 1.0, n };
        }
        Self::of_mean(k as f64 / n as f64, n)
    }

    /// The mean of `n` values from 0 to 1. Wilson's interval is that of values which are 0 or 1;
    /// others of the same mean vary less, so that it is wide enough for any.
    ///
    /// ```
    /// use posttrain_statistics::Share;
    ///
    /// assert_eq!(Share::of_mean(0.75, 8), Share::of(6, 8));
    /// ```
    #[must_use]
    pub fn of_mean(mean: f64, n: usize) -> Self {
        if n == 0 {
            return Self { share: 0.0, low: 0.0, high: 1.0, n };
        }
        let size = n as f64;
        let p = mean;
        let square = Z * Z / size;
        let half = Z * (p * (1.0 - p) / size + square / (4.0 * size)).sqrt();
        let end = |side: f64| ((p + square / 2.0 + side * half) / (1.0 + square)).clamp(0.0, 1.0);

        // Rounding must not leave the share itself outside.
        Self { share: p, low: end(-1.0).min(p), high: end(1.0).max(p), n }
    }

    /// The share of verdicts that say right; those that failed are left out.
    ///
    /// ```
    /// use posttrain_statistics::Share;
    ///
    /// assert_eq!(Share::of_verdicts(&[Some(true), None, Some(false)]), Share::of(1, 2));
    /// ```
    #[must_use]
    pub fn of_verdicts(verdicts: &[Option<bool>]) -> Self {
        let judged = verdicts.iter().flatten();
        let right = judged.clone().filter(|right| **right).count();
        Self::of(right, judged.count())
    }

    /// How many of the questions it is.
    ///
    /// ```
    /// assert_eq!(posttrain_statistics::Share::of(7, 9).count(), 7);
    /// ```
    #[must_use]
    pub fn count(&self) -> usize {
        (self.share * self.n as f64).round() as usize
    }

    /// The share, or none of nothing.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        (self.n > 0).then_some(self.share)
    }

    /// The share over several sets of questions together; none of no questions.
    ///
    /// ```
    /// use posttrain_statistics::Share;
    ///
    /// assert_eq!(Share::pooled(&[Share::of(1, 2), Share::of(5, 6)]), Some(Share::of(6, 8)));
    /// assert_eq!(Share::pooled([]), None);
    /// ```
    #[must_use]
    pub fn pooled<'a>(sets: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let (k, n) = sets.into_iter().fold((0, 0), |(k, n), set| (k + set.count(), n + set.n));
        (n > 0).then(|| Self::of(k, n))
    }

    /// The 95% interval of the difference of two shares from their Wilson intervals (Newcombe,
    /// 1998, method 10), for questions of each share's own. Where both are of the same questions,
    /// [`PairedBootstrap`](crate::PairedBootstrap) is narrower.
    ///
    /// ```
    /// use posttrain_statistics::Share;
    ///
    /// // Newcombe's example: 56/70 − 48/80.
    /// let (low, high) = Share::of(56, 70).difference(&Share::of(48, 80));
    /// assert!((low - 0.0524).abs() < 1e-4 && (high - 0.3339).abs() < 1e-4);
    /// ```
    #[must_use]
    pub fn difference(&self, other: &Self) -> (f64, f64) {
        let difference = self.share - other.share;
        let below = (self.share - self.low).hypot(other.high - other.share);
        let above = (self.high - self.share).hypot(other.share - other.low);
        (difference - below, difference + above)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value() {
            Some(share) => write!(out, "{share:.3} [{:.3}, {:.3}]", self.low, self.high),
            None => out.write_str("-"),
        }
    }
}

fn null_is_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(0.0))
}

/// The form that routers' and judges' reports have, `{"share": 0.5, …}` with `null` for a share of
/// nothing: for `#[serde(with = "posttrain_statistics::share_form")]`. Either form is read.
///
/// ```
/// use posttrain_statistics::{Share, share_form};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Report {
///     #[serde(with = "share_form")]
///     misrouted: Share,
/// }
///
/// let json = serde_json::to_string(&Report { misrouted: Share::of(0, 0) }).unwrap();
/// assert_eq!(json, r#"{"misrouted":{"share":null,"low":0.0,"high":1.0,"n":0}}"#);
/// assert_eq!(serde_json::from_str::<Report>(&json).unwrap().misrouted, Share::of(0, 0));
/// ```
pub mod share_form {
    use super::Share;
    use serde::ser::SerializeStruct;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes a share under its own name.
    ///
    /// # Errors
    /// The writer's.
    pub fn serialize<S: Serializer>(share: &Share, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Share", 4)?;
        fields.serialize_field("share", &share.value())?;
        fields.serialize_field("low", &share.low)?;
        fields.serialize_field("high", &share.high)?;
        fields.serialize_field("n", &share.n)?;
        fields.end()
    }

    /// Reads a share in either form.
    ///
    /// # Errors
    /// The reader's.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
        Share::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_share_is_written_as_the_files_of_a_run_have_it_and_read_in_either_form() {
        let json = serde_json::to_string(&Share::of(0, 0)).unwrap();
        assert_eq!(json, r#"{"accuracy":0.0,"low":0.0,"high":1.0,"n":0}"#);
        let third = Share::of(1, 3);
        let json = serde_json::to_string(&third).unwrap();
        assert_eq!(serde_json::from_str::<Share>(&json).unwrap(), third);
        assert_eq!(
            serde_json::from_str::<Share>(&json.replace("accuracy", "share")).unwrap(),
            third
        );
    }

    proptest! {
        #[test]
        fn an_interval_holds_its_share_and_narrows(k in 0usize..1000, more in 0usize..1000) {
            let n = k + more;
            let small = Share::of(k, n);
            prop_assert!(0.0 <= small.low && small.low <= small.high && small.high <= 1.0);
            prop_assert_eq!(small.count(), k);
            if let Some(p) = small.value() {
                prop_assert!(small.low <= p && p <= small.high);
                let large = Share::of(100 * k, 100 * n);
                prop_assert!(large.high - large.low < small.high - small.low);
            }
        }
    }
}
