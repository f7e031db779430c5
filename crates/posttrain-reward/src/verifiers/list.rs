//! Right where the response lists what the reference lists.

use posttrain_answer::list::List;
use serde::{Deserialize, Serialize};

use crate::verifiers::Partial;
use crate::{RewardError, Sample, Score, Verifier};

/// Whether the response's list is the reference's, by [`List`], which says what a list is and where
/// it stands.
///
/// With [`Partial::Share`] a set is worth `|common| / |either|` (Jaccard), a sequence the share of
/// places that agree, out of the longer list's: a list of everything is worth little. In a file the
/// fields of `rule` stand beside the others: `order = "kept"`.
///
/// ```
/// use posttrain_reward::verifiers::ListConfig;
/// use posttrain_reward::{Sample, Verifier};
///
/// let verifier = ListConfig::default().build()?;
/// let value = |response: &str| {
///     verifier.verify(&Sample::new("Factors of 6?", "1, 2, 3, 6", response)).map(|score| score.value())
/// };
/// assert_eq!(value("The answer is 6, 3, 2 and 1.")?, 1.0);
/// assert_eq!(value("1, 2, 3, 4, 6")?, 0.0);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListConfig {
    /// When two lists are the same.
    #[serde(flatten)]
    pub rule: List,
    /// What some of the members are worth. Default: nothing.
    pub partial: Partial,
}

impl ListConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the first field that is empty or out of its range.
    ///
    /// ```
    /// use posttrain_reward::verifiers::ListConfig;
    ///
    /// let mut config = ListConfig::default();
    /// config.rule.separators.clear();
    /// assert!(config.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        self.rule.validate().map_err(RewardError::invalid_rule)
    }

    /// The verifier.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    ///
    /// ```
    /// use posttrain_reward::{Verifier, verifiers::ListConfig};
    ///
    /// assert_eq!(ListConfig::default().build()?.name(), "list");
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn build(self) -> Result<ListMatch, RewardError> {
        self.validate()?;
        Ok(ListMatch { config: self })
    }
}

/// The verifier that [`ListConfig`] describes and builds.
///
/// ```
/// use posttrain_reward::verifiers::{ListConfig, ListMatch};
/// use posttrain_reward::{Sample, Verifier};
///
/// let verifier: ListMatch = ListConfig::default().build()?;
/// let score = verifier.verify(&Sample::new("?", "red; blue", "blue"))?;
/// assert_eq!((score.value(), score.parts()[0].1), (0.0, 0.5));
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ListMatch {
    config: ListConfig,
}

impl Verifier for ListMatch {
    fn name(&self) -> &str {
        "list"
    }

    fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
        let overlap = self.config.rule.compare(&sample.reference, &sample.response);
        let overlap = overlap.map_err(|error| sample.refused(error))?;

        self.config.partial.score(overlap.common, overlap.all)
    }
}

#[cfg(test)]
mod tests {
    use super::ListConfig;
    use crate::verifiers::Partial;
    use crate::{Sample, Verifier};

    #[test]
    fn some_of_the_members_are_worth_what_is_configured() {
        let value = |partial, response: &str| {
            let verifier = ListConfig { partial, ..ListConfig::default() }.build().unwrap();
            verifier.verify(&Sample::new("?", "a, b", response)).unwrap().value()
        };
        assert_eq!([value(Partial::Share, "a"), value(Partial::Share, "b, a")], [0.5, 1.0]);
        assert_eq!([value(Partial::Nothing, "a"), value(Partial::Nothing, "b, a")], [0.0, 1.0]);
    }

    #[test]
    fn mistakes_of_the_data_are_errors() {
        let verifier = ListConfig::default().build().unwrap();
        let cause = |reference: &str| {
            verifier.verify(&Sample::new("?", reference, "x")).unwrap_err().cause()
        };
        assert_eq!(
            (cause(""), cause(",,"), cause("[]")),
            ("empty_reference", "bad_reference", "bad_reference")
        );
    }
}
