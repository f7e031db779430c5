//! Two lists of verdicts on the same questions.

use crate::{Share, StatisticsError};
use std::collections::BTreeMap;

/// Verdicts of two sides on the same questions, by strata: a question on which either side has none
/// is left out, and counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairedVerdicts {
    strata: BTreeMap<String, Vec<(bool, bool)>>,
    left_out: usize,
}

/// Questions by what the two sides' verdicts were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PairCounts {
    /// Both are right.
    pub both: usize,
    /// Only the first is right.
    pub first_only: usize,
    /// Only the second is right.
    pub second_only: usize,
    /// Neither is right.
    pub neither: usize,
}

impl PairedVerdicts {
    /// Pairs two sides' verdicts, question by question.
    ///
    /// # Errors
    /// [`StatisticsError::Unpaired`] if the lists differ in length.
    pub fn new(first: &[Option<bool>], second: &[Option<bool>]) -> Result<Self, StatisticsError> {
        Self::by_stratum(first, second, &vec![""; first.len()])
    }

    /// Pairs two sides' verdicts, question by question, each question in its stratum, such as its
    /// domain.
    ///
    /// # Errors
    /// [`StatisticsError::Unpaired`] if the lists differ in length.
    ///
    /// ```
    /// use posttrain_statistics::PairedVerdicts;
    ///
    /// let first = [Some(true), Some(false), None];
    /// let pairs = PairedVerdicts::by_stratum(&first, &[Some(true); 3], &["math", "law", "law"])?;
    /// assert_eq!(pairs.strata().map(|(name, counts)| (name, counts.both)).collect::<Vec<_>>(), [("law", 0), ("math", 1)]);
    /// assert_eq!(pairs.left_out(), 1);
    /// # Ok::<(), posttrain_statistics::StatisticsError>(())
    /// ```
    pub fn by_stratum(
        first: &[Option<bool>],
        second: &[Option<bool>],
        strata: &[&str],
    ) -> Result<Self, StatisticsError> {
        for (argument, got) in [("second", second.len()), ("strata", strata.len())] {
            if got != first.len() {
                return Err(StatisticsError::Unpaired { argument, expected: first.len(), got });
            }
        }

        let mut paired = Self { strata: BTreeMap::new(), left_out: 0 };
        for ((first, second), stratum) in first.iter().zip(second).zip(strata) {
            // A stratum is one even if none of its questions has two verdicts.
            let pairs = paired.strata.entry((*stratum).to_owned()).or_default();
            match first.zip(*second) {
                Some(pair) => pairs.push(pair),
                None => paired.left_out += 1,
            }
        }
        Ok(paired)
    }

    /// Questions that have two verdicts, over all strata.
    #[must_use]
    pub fn counts(&self) -> PairCounts {
        self.strata.values().flatten().copied().collect()
    }

    /// The strata by name, with the questions of each that have two verdicts.
    pub fn strata(&self) -> impl Iterator<Item = (&str, PairCounts)> {
        self.strata.iter().map(|(name, pairs)| (name.as_str(), pairs.iter().copied().collect()))
    }

    /// Each stratum's differences, in the order of the names: 1 where only the first is right, −1
    /// where only the second is, 0 where they agree.
    #[must_use]
    pub fn differences(&self) -> Vec<Vec<i8>> {
        let difference = |pair: &(bool, bool)| i8::from(pair.0) - i8::from(pair.1);
        self.strata.values().map(|pairs| pairs.iter().map(difference).collect()).collect()
    }

    /// Questions on which a side has no verdict.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

impl PairCounts {
    /// Questions.
    #[must_use]
    pub fn n(&self) -> usize {
        self.both + self.first_only + self.second_only + self.neither
    }

    /// The first side's share of right verdicts.
    #[must_use]
    pub fn first(&self) -> Share {
        Share::of(self.both + self.first_only, self.n())
    }

    /// The second side's share of right verdicts.
    #[must_use]
    pub fn second(&self) -> Share {
        Share::of(self.both + self.second_only, self.n())
    }

    /// The first side's share less the second's; 0 of nothing.
    #[must_use]
    pub fn difference(&self) -> f64 {
        (self.first_only as f64 - self.second_only as f64) / self.n().max(1) as f64
    }

    /// Counts one more question.
    pub(crate) fn add(&mut self, first: bool, second: bool) {
        *match (first, second) {
            (true, true) => &mut self.both,
            (true, false) => &mut self.first_only,
            (false, true) => &mut self.second_only,
            (false, false) => &mut self.neither,
        } += 1;
    }
}

impl FromIterator<(bool, bool)> for PairCounts {
    fn from_iter<I: IntoIterator<Item = (bool, bool)>>(pairs: I) -> Self {
        let mut counts = Self::default();
        pairs.into_iter().for_each(|(first, second)| counts.add(first, second));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_different_lengths_are_refused_by_name() {
        let verdicts = [Some(true); 3];
        let error = PairedVerdicts::new(&verdicts, &verdicts[..2]).unwrap_err();
        assert_eq!(error.to_string(), "`second`: expected one for each of 3 questions, got 2");
        let error = PairedVerdicts::by_stratum(&verdicts, &verdicts, &["math"]).unwrap_err();
        assert_eq!(error.to_string(), "`strata`: expected one for each of 3 questions, got 1");
    }

    #[test]
    fn no_verdicts_say_nothing() {
        let pairs = PairedVerdicts::new(&[None, Some(true)], &[Some(true), None]).unwrap();
        assert_eq!((pairs.counts(), pairs.left_out()), (PairCounts::default(), 2));
        assert_eq!((pairs.counts().difference(), pairs.counts().first().n), (0.0, 0));
    }
}
