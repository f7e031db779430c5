//! Two rewards' verdicts in a table of four cells, and what follows from it.

use std::fmt;

use posttrain_statistics::{Share, share_form};
use serde::ser::{SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};

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
    #[must_use]
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
    #[must_use]
    pub fn agreement(&self) -> Option<f64> {
        let n = self.compared();
        (n > 0).then(|| (self.both_right + self.both_wrong) as f64 / n as f64)
    }

    /// Cohen's κ = (pₒ − pₑ) / (1 − pₑ): agreement beyond what two that know nothing of each other
    /// would have by chance. None where both always say the same one thing, so that chance alone
    /// agrees fully.
    ///
    /// ```
    /// use posttrain_reward::audit::AuditTable;
    ///
    /// assert_eq!(AuditTable { both_right: 9, ..AuditTable::default() }.kappa(), None);
    /// assert_eq!(AuditTable { both_right: 9, both_wrong: 1, ..AuditTable::default() }.kappa(), Some(1.0));
    /// ```
    #[must_use]
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
    /// assert_eq!(table.false_positives().share, 0.25);
    /// ```
    #[must_use]
    pub fn false_positives(&self) -> Share {
        share(self.judge_alone, self.both_wrong)
    }

    /// Of what the verifier finds right, the share that the judge calls wrong.
    ///
    /// ```
    /// use posttrain_reward::audit::AuditTable;
    ///
    /// let table = AuditTable { verifier_alone: 1, both_right: 3, ..AuditTable::default() };
    /// assert_eq!(table.false_negatives().share, 0.25);
    /// ```
    #[must_use]
    pub fn false_negatives(&self) -> Share {
        share(self.verifier_alone, self.both_right)
    }
}

/// The share of `k` in `k + others`.
fn share(k: u64, others: u64) -> Share {
    Share::of(k as usize, (k + others) as usize)
}

/// A share in the form that a report's file has.
#[derive(Serialize)]
struct Reported(#[serde(with = "share_form")] Share);

/// The counts, and what follows from them.
impl Serialize for AuditTable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut table = serializer.serialize_struct("AuditTable", 11)?;
        table.serialize_field("compared", &self.compared())?;
        table.serialize_field("agreement", &self.agreement())?;
        table.serialize_field("kappa", &self.kappa())?;
        table.serialize_field("false_positives", &Reported(self.false_positives()))?;
        table.serialize_field("false_negatives", &Reported(self.false_negatives()))?;
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
        let number =
            |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        let share = |share: Share| format!("{share} of {}", share.n);

        write!(
            out,
            "{:>7} {:>6} {:>6}  {:32}  {:32} {:>6}",
            self.compared(),
            number(self.agreement()),
            number(self.kappa()),
            share(self.false_positives()),
            share(self.false_negatives()),
            self.judge_failed + self.verifier_failed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kappa_is_that_of_scikit_learn() {
        // sklearn.metrics.cohen_kappa_score on the same counts.
        let table = AuditTable {
            both_right: 45,
            judge_alone: 15,
            verifier_alone: 25,
            both_wrong: 15,
            ..AuditTable::default()
        };
        assert!((table.kappa().unwrap() - 0.130_434_782_608_695_65).abs() < 1e-12);
        let opposite = AuditTable { judge_alone: 5, verifier_alone: 5, ..AuditTable::default() };
        assert_eq!(opposite.kappa(), Some(-1.0));
    }

    proptest! {
        #[test]
        fn kappa_is_at_most_one_and_symmetric(a in 0u64..50, b in 0u64..50, c in 0u64..50, d in 0u64..50) {
            let table = AuditTable { both_right: a, judge_alone: b, verifier_alone: c, both_wrong: d, ..AuditTable::default() };
            let swapped = AuditTable { judge_alone: c, verifier_alone: b, ..table };
            prop_assert_eq!(table.agreement(), swapped.agreement());
            if let (Some(kappa), Some(other)) = (table.kappa(), swapped.kappa()) {
                prop_assert!((-1.0 - 1e-12..=1.0 + 1e-12).contains(&kappa));
                prop_assert!((kappa - other).abs() < 1e-12);
            }
        }
    }
}
