//! Right where the response is the same number as the reference.

use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;
use crate::{RewardError, Sample, Score, Separators, Verifier};

/// Which fractions a response may answer with.
///
/// ```
/// use posttrain_reward::{Fractions, NumericConfig};
///
/// let config = NumericConfig { fractions: Fractions::AsReference, ..NumericConfig::default() };
/// assert!(config.matches("3/4", "6/8") && !config.matches("3/4", "0.75"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fractions {
    /// Those in lowest terms, and the reference's own form: `3/4` for `0.75`, but not `12/4` for `3`. Else repeating
    /// the question `12/4` would answer it.
    #[default]
    LowestTerms,
    /// Only where the reference is a fraction, too: for questions that ask to convert one.
    AsReference,
    /// Any.
    Any,
}

/// What a percent sign means.
///
/// ```
/// use posttrain_reward::{NumericConfig, Percent};
///
/// let config = NumericConfig { percent: Percent::Hundredth, ..NumericConfig::default() };
/// assert!(config.matches("75%", "0.75") && !config.matches("75%", "75"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Percent {
    /// `75%` is 0.75, and also 75 where the other side has no percent sign: "what percentage?" is answered both ways.
    #[default]
    EitherReading,
    /// `75%` is 0.75 and nothing else.
    Hundredth,
    /// `75%` is `75%` and nothing else: for questions that ask to convert one.
    AsReference,
}

/// What the words after a number are worth.
///
/// ```
/// use posttrain_reward::{NumericConfig, Units};
///
/// let config = NumericConfig { units: Units::Required, ..NumericConfig::default() };
/// assert!(config.matches("12 kg", "12 kg") && !config.matches("12", "12 kg"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Units {
    /// A unit may be missing on either side; where both have one it must be the same (a plural `s` aside). Currency
    /// marks likewise. Nothing is converted.
    #[default]
    Optional,
    /// The response must have the reference's unit, and none where that has none.
    Required,
}

/// When two numbers are the same. By default: exactly, as rational numbers.
///
/// ```
/// use posttrain_reward::NumericConfig;
///
/// let exact = NumericConfig::default();
/// assert!(exact.matches("1,000", "1000") && exact.matches("3/4", "0.75") && exact.matches("−5", "-5"));
/// assert!(exact.matches("12 apples", "12") && exact.matches("x = 5", "5") && exact.matches("1 1/2", "1.5"));
/// assert!(!exact.matches("3.14", "3.14159") && !exact.matches("12 g", "12 kg") && !exact.matches("12/4", "3"));
/// let close = NumericConfig { relative_tolerance: 0.001, ..exact };
/// assert!(close.matches("3.14", "3.14159"));
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NumericConfig {
    /// Largest accepted `|response - reference|`; at least 0. Default 0: exact.
    pub absolute_tolerance: f64,
    /// Largest accepted `|response - reference| / |reference|`; at least 0. The wider of the two tolerances holds.
    /// Default 0: exact.
    pub relative_tolerance: f64,
    /// What `,` and `.` mean. Default: `1,234.5`.
    pub separators: Separators,
    /// Which fractions answer. Default: those in lowest terms.
    pub fractions: Fractions,
    /// What `%` means. Default: either reading.
    pub percent: Percent,
    /// What words after the number are worth. Default: optional, not contradicted.
    pub units: Units,
}

impl NumericConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the first tolerance that is negative or not finite.
    ///
    /// ```
    /// use posttrain_reward::NumericConfig;
    ///
    /// let config = NumericConfig { absolute_tolerance: -1.0, ..NumericConfig::default() };
    /// assert!(config.validate().unwrap_err().to_string().starts_with("`absolute_tolerance` is -1"));
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        let tolerances =
            [("absolute_tolerance", self.absolute_tolerance), ("relative_tolerance", self.relative_tolerance)];
        match tolerances.into_iter().find(|(_, value)| !value.is_finite() || *value < 0.0) {
            None => Ok(()),
            Some((field, value)) => {
                let expected = "a finite number, at least 0";
                Err(RewardError::InvalidConfig { field, got: value.to_string(), expected })
            }
        }
    }

    /// A verifier of whole responses.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    ///
    /// ```
    /// use posttrain_reward::{NumericConfig, Sample, Verifier};
    ///
    /// let verifier = NumericConfig::default().build()?;
    /// assert_eq!(verifier.verify(&Sample::new("3 + 9?", "12", "12.0"))?.value(), 1.0);
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn build(self) -> Result<NumericMatch, RewardError> {
        self.validate()?;
        Ok(NumericMatch { config: self })
    }

    /// Whether both texts are as a whole numbers, and the same.
    ///
    /// ```
    /// use posttrain_reward::NumericConfig;
    ///
    /// assert!(NumericConfig::default().matches("1.50", "3/2"));
    /// assert!(!NumericConfig::default().matches("It is 1.5", "3/2"));
    /// ```
    pub fn matches(&self, text: &str, reference: &str) -> bool {
        let (text, reference) = (self.read(text), self.read(reference));
        text.zip(reference).is_some_and(|(text, reference)| self.same(&text, &reference))
    }

    pub(crate) fn read(&self, text: &str) -> Option<Quantity> {
        Quantity::parse(text, self.separators)
    }

    /// Whether `answer` is the number that `reference` is.
    pub(crate) fn same(&self, answer: &Quantity, reference: &Quantity) -> bool {
        self.notation_allowed(answer, reference)
            && self.units_agree(answer, reference)
            && self
                .values(answer, reference)
                .iter()
                .any(|(answer, reference)| answer.is_close(reference, self.absolute_tolerance, self.relative_tolerance))
    }

    fn notation_allowed(&self, answer: &Quantity, reference: &Quantity) -> bool {
        let literal = answer.fraction == reference.fraction;
        let fraction = match self.fractions {
            Fractions::LowestTerms => literal || !answer.is_unreduced(),
            Fractions::AsReference => {
                literal || answer.fraction.is_none() || (reference.fraction.is_some() && !answer.is_unreduced())
            }
            Fractions::Any => true,
        };
        fraction && (self.percent != Percent::AsReference || answer.percent == reference.percent)
    }

    /// The pairs of values, one of which must be the same.
    fn values(&self, answer: &Quantity, reference: &Quantity) -> Vec<(crate::Number, crate::Number)> {
        let mut pairs = vec![(answer.value(), reference.value())];
        if self.percent == Percent::EitherReading && answer.percent != reference.percent {
            pairs.push((answer.number.clone(), reference.number.clone()));
        }
        pairs
    }

    fn units_agree(&self, answer: &Quantity, reference: &Quantity) -> bool {
        let same_currency = answer.currency == reference.currency;
        let same_unit = answer.has_unit_of(reference);
        match self.units {
            Units::Required => same_unit && same_currency,
            Units::Optional => {
                let free = !answer.may_scale() && (answer.unit.is_empty() || reference.unit.is_empty());
                let no_clash = same_currency || answer.currency.is_none() || reference.currency.is_none();
                (same_unit || free) && no_clash
            }
        }
    }
}

/// The whole response is a number, the reference's; see [`NumericConfig`], which builds it.
///
/// A response that is not a number is wrong; a reference that is not one is an error.
///
/// ```
/// use posttrain_reward::{NumericConfig, Sample, Verifier};
///
/// let verifier = NumericConfig::default().build()?;
/// assert_eq!(verifier.verify(&Sample::new("3 + 9?", "12", "twelve"))?.value(), 0.0);
/// assert_eq!(verifier.verify(&Sample::new("3 + 9?", "twelve", "12")).unwrap_err().cause(), "bad_reference");
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct NumericMatch {
    config: NumericConfig,
}

impl Verifier for NumericMatch {
    fn name(&self) -> &str {
        "numeric"
    }

    fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
        let reference = self.config.read(sample.checked_reference()?);
        let reference = reference.ok_or_else(|| sample.bad_reference("a number of at most 400 digits"))?;
        let answer = self.config.read(&sample.response);
        Ok(Score::binary(answer.is_some_and(|answer| self.config.same(&answer, &reference))))
    }
}
