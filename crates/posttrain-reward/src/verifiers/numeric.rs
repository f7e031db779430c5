//! Right where the response is the same number as the reference.

use posttrain_answer::number::Numeric;

use crate::{RewardError, Sample, Score, Verifier};

/// The whole response is a number, the reference's, by [`Numeric`].
///
/// A response that is not a number is wrong; a reference that is not one is an error.
///
/// ```
/// use posttrain_answer::number::Numeric;
/// use posttrain_reward::verifiers::NumericMatch;
/// use posttrain_reward::{Sample, Verifier};
///
/// let verifier = NumericMatch::new(Numeric::default())?;
/// assert_eq!(verifier.verify(&Sample::new("3 + 9?", "12", "12.0"))?.value(), 1.0);
/// assert_eq!(verifier.verify(&Sample::new("3 + 9?", "12", "twelve"))?.value(), 0.0);
/// assert_eq!(verifier.verify(&Sample::new("3 + 9?", "twelve", "12")).unwrap_err().cause(), "bad_reference");
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct NumericMatch {
    rule: Numeric,
}

impl NumericMatch {
    /// A verifier by this rule.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the first tolerance that is negative or not finite.
    ///
    /// ```
    /// use posttrain_answer::number::Numeric;
    /// use posttrain_reward::verifiers::NumericMatch;
    ///
    /// let rule = Numeric { relative_tolerance: f64::NAN, ..Numeric::default() };
    /// assert!(NumericMatch::new(rule).is_err());
    /// ```
    pub fn new(rule: Numeric) -> Result<Self, RewardError> {
        rule.validate().map_err(RewardError::invalid_rule)?;
        Ok(Self { rule })
    }
}

impl Verifier for NumericMatch {
    fn name(&self) -> &str {
        "numeric"
    }

    fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
        let comparison = self.rule.compare(&sample.reference, &sample.response);
        let comparison = comparison.map_err(|error| sample.refused(error))?;

        Ok(Score::binary(comparison.verdict.is_same()))
    }
}
