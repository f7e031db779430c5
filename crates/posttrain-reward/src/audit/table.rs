//! Two rewards' verdicts in a table of four cells, and what follows from it.

use std::fmt;

use serde::ser::{SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};

/// The 97.5% quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// How often what was said by whom.
///
/// ```
/// use posttrain_reward::audit::AuditTable;
///
/// // Of Cohen (1960): po = 0.7, pe = 0.5·0.6 + 0.5·0.4 = 0.5.
/// let table = AuditTable { both_right: 20, judge_alone: 5, verifier_alone: 10, both_wrong: 15, ..AuditTable::default() };
/// assert_eq!(table.agreement(), Some(0.7));
/// assert!((table.kappa().unwrap() - 0.4).abs() < 1e-12);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct AuditTable {
    /// Both say right.
    pub both_right: u64,
    /// The judge says right, the verifier wrong: what a policy would learn to get away with.
    pub judge_alone: u64,
    /// The judge says wrong, the verifier right: what a policy would be punished for.
    pub verifier_alone: u64,
    /// Both say wrong.
    pub both_wrong: u64,
    /// The judge failed.
    pub judge_failed: u64,
    /// The judge had a verdict, and the verifier failed or could not say.
    pub verifier_failed: u64,
}

/// A share with its 95% Wilson interval.
///
/// ```
/// use posttrain_reward::audit::Share;
///
/// let share = Share::of(50, 100);
/// assert_eq!(share.share, Some(0.5));
/// assert!((share.low - 0.4038).abs() < 1e-4 && (share.high - 0.5962).abs() < 1e-4);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// The share; none of nothing.
    pub share: Option<f64>,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
    /// Of how many.
    pub n: u64,
}

impl Share {
    /// `k` of `n`, with the interval `(p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n)`, z = 1.96 (Wilson, 1927).
    ///
    /// ```
    /// use posttrain_reward::audit::Share;
    ///
    /// assert_eq!((Share::of(0, 0).low, Share::of(0, 0).high), (0.0, 1.0));
    /// ```
    pub fn of(k: u64, n: u64) -> Self {
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

impl AuditTable {
    /// Adds a sample's verdicts, judge before verifier; none where it failed.
    pub(crate) fn add(&mut self, verdicts: (Option<bool>, Option<bool>)) {
        *match verdicts {
            (Some(true), Some(true)) => &mut self.both_right,
            (Some(true), Some(false)) => &mut self.judge_alone,
            (Some(false), Some(true)) => &mut self.verifier_alone,
            (Some(false), Some(false)) => &mut self.both_wrong,
            (None, _) => &mut self.judge_failed,
            (Some(_), None) => &mut self.verifier_failed,
        } += 1;
    }

    /// Samples on which both had a verdict.
    ///
    /// ```
    /// assert_eq!(posttrain_reward::audit::AuditTable { both_wrong: 3, judge_failed: 1, ..Default::default() }.compared(), 3);
    /// ```
    pub fn compared(&self) -> u64 {
        self.both_right + self.judge_alone + self.verifier_alone + self.both_wrong
    }

    pub(crate) fn seen(&self) -> u64 {
        self.compared() + self.judge_failed + self.verifier_failed
    }

    /// The share of samples on which they agree; none of nothing.
    ///
    /// ```
    /// assert_eq!(posttrain_reward::audit::AuditTable::default().agreement(), None);
    /// ```
    pub fn agreement(&self) -> Option<f64> {
        let n = self.compared();
        (n > 0).then(|| (self.both_right + self.both_wrong) as f64 / n as f64)
    }

    /// Cohen's κ = (pₒ − pₑ) / (1 − pₑ): agreement beyond what two that know nothing of each other would have by chance.
    /// None where both always say the same one thing, so that chance alone agrees fully.
    ///
    /// ```
    /// use posttrain_reward::audit::AuditTable;
    ///
    /// assert_eq!(AuditTable { both_right: 9, ..AuditTable::default() }.kappa(), None);
    /// assert_eq!(AuditTable { both_right: 9, both_wrong: 1, ..AuditTable::default() }.kappa(), Some(1.0));
    /// ```
    pub fn kappa(&self) -> Option<f64> {
        let (n, observed) = (self.compared() as f64, self.agreement()?);
        let judge = (self.both_right + self.judge_alone) as f64 / n;
        let verifier = (self.both_right + self.verifier_alone) as f64 / n;
        let chance = judge * verifier + (1.0 - judge) * (1.0 - verifier);
        (chance < 1.0).then(|| (observed - chance) / (1.0 - chance))
    }

    /// Of what the verifier finds wrong, the share that the judge calls right.
    ///
    /// ```
    /// use posttrain_reward::audit::AuditTable;
    ///
    /// let table = AuditTable { judge_alone: 1, both_wrong: 3, ..AuditTable::default() };
    /// assert_eq!(table.false_positives().share, Some(0.25));
    /// ```
    pub fn false_positives(&self) -> Share {
        Share::of(self.judge_alone, self.judge_alone + self.both_wrong)
    }

    /// Of what the verifier finds right, the share that the judge calls wrong.
    ///
    /// ```
    /// use posttrain_reward::audit::AuditTable;
    ///
    /// let table = AuditTable { verifier_alone: 1, both_right: 3, ..AuditTable::default() };
    /// assert_eq!(table.false_negatives().share, Some(0.25));
    /// ```
    pub fn false_negatives(&self) -> Share {
        Share::of(self.verifier_alone, self.verifier_alone + self.both_right)
    }
}

/// The counts, and what follows from them.
impl Serialize for AuditTable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut table = serializer.serialize_struct("AuditTable", 11)?;
        table.serialize_field("compared", &self.compared())?;
        table.serialize_field("agreement", &self.agreement())?;
        table.serialize_field("kappa", &self.kappa())?;
        table.serialize_field("false_positives", &self.false_positives())?;
        table.serialize_field("false_negatives", &self.false_negatives())?;
        table.serialize_field("both_right", &self.both_right)?;
        table.serialize_field("judge_alone", &self.judge_alone)?;
        table.serialize_field("verifier_alone", &self.verifier_alone)?;
        table.serialize_field("both_wrong", &self.both_wrong)?;
        table.serialize_field("judge_failed", &self.judge_failed)?;
        table.serialize_field("verifier_failed", &self.verifier_failed)?;
        table.end()
    }
}

/// The cells of a row of the report.
impl fmt::Display for AuditTable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        let share = |share: Share| match share.share {
            Some(p) => format!("{p:.3} [{:.3}, {:.3}] of {}", share.low, share.high, share.n),
            None => "- of 0".to_owned(),
        };
        let (agreement, kappa) = (number(self.agreement()), number(self.kappa()));
        let (positive, negative) = (share(self.false_positives()), share(self.false_negatives()));
        let (n, failed) = (self.compared(), self.judge_failed + self.verifier_failed);
        write!(out, "{n:>7} {agreement:>6} {kappa:>6}  {positive:32}  {negative:32} {failed:>6}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kappa_is_that_of_scikit_learn() {
        // sklearn.metrics.cohen_kappa_score on the same counts.
        let table =
            AuditTable { both_right: 45, judge_alone: 15, verifier_alone: 25, both_wrong: 15, ..AuditTable::default() };
        assert!((table.kappa().unwrap() - 0.130_434_782_608_695_65).abs() < 1e-12);
        let opposite = AuditTable { judge_alone: 5, verifier_alone: 5, ..AuditTable::default() };
        assert_eq!(opposite.kappa(), Some(-1.0));
    }

    proptest! {
        #[test]
        fn an_interval_holds_its_share_and_narrows(k in 0u64..1000, more in 0u64..1000) {
            let n = k + more;
            let small = Share::of(k, n);
            prop_assert!(0.0 <= small.low && small.low <= small.high && small.high <= 1.0);
            if let Some(p) = small.share {
                prop_assert!(small.low <= p && p <= small.high);
                let large = Share::of(100 * k, 100 * n);
                prop_assert!(large.high - large.low < small.high - small.low);
            }
        }

        #[test]
        fn kappa_is_at_most_one_and_symmetric(a in 0u64..50, b in 0u64..50, c in 0u64..50, d in 0u64..50) {
            let table = AuditTable { both_right: a, judge_alone: b, verifier_alone: c, both_wrong: d, ..AuditTable::default() };
            let swapped = AuditTable { judge_alone: c, verifier_alone: b, ..table.clone() };
            prop_assert_eq!(table.agreement(), swapped.agreement());
            if let (Some(kappa), Some(other)) = (table.kappa(), swapped.kappa()) {
                prop_assert!((-1.0 - 1e-12..=1.0 + 1e-12).contains(&kappa));
                prop_assert!((kappa - other).abs() < 1e-12);
            }
        }
    }
}
