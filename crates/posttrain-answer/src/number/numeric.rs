//! When two numbers are the same.

use serde::{Deserialize, Serialize};

use crate::number::quantity::Quantity;
use crate::number::{Number, Separators};
use crate::reference::checked_reference;
use crate::{AnswerError, Comparison, Extraction, Found, Verdict};

/// Which fractions a response may answer with.
///
/// ```
/// use posttrain_answer::number::{Fractions, Numeric};
///
/// let config = Numeric { fractions: Fractions::AsReference, ..Numeric::default() };
/// assert!(config.matches("3/4", "6/8") && !config.matches("3/4", "0.75"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fractions {
    /// Those in lowest terms, and the reference's own form: `3/4` for `0.75`, but not `12/4` for
    /// `3`. Else repeating the question `12/4` would answer it.
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
/// use posttrain_answer::number::{Numeric, Percent};
///
/// let config = Numeric { percent: Percent::Hundredth, ..Numeric::default() };
/// assert!(config.matches("75%", "0.75") && !config.matches("75%", "75"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Percent {
    /// `75%` is 0.75, and also 75 where the other side has no percent sign: "what percentage?" is
    /// answered both ways.
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
/// use posttrain_answer::number::{Numeric, Units};
///
/// let config = Numeric { units: Units::Required, ..Numeric::default() };
/// assert!(config.matches("12 kg", "12 kg") && !config.matches("12", "12 kg"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Units {
    /// A unit may be missing on either side; where both have one it must be the same (a plural `s`
    /// aside). Currency marks likewise. Nothing is converted.
    #[default]
    Optional,
    /// The response must have the reference's unit, and none where that has none.
    Required,
}

/// When two numbers are the same. By default: exactly, as rational numbers.
///
/// ```
/// use posttrain_answer::number::Numeric;
///
/// let exact = Numeric::default();
/// assert!(exact.matches("1,000", "1000") && exact.matches("3/4", "0.75") && exact.matches("−5", "-5"));
/// assert!(exact.matches("12 apples", "12") && exact.matches("x = 5", "5") && exact.matches("1 1/2", "1.5"));
/// assert!(!exact.matches("3.14", "3.14159") && !exact.matches("12 g", "12 kg") && !exact.matches("12/4", "3"));
/// let close = Numeric { relative_tolerance: 0.001, ..exact };
/// assert!(close.matches("3.14", "3.14159"));
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Numeric {
    /// Largest accepted `|response - reference|`; at least 0. Default 0: exact.
    pub absolute_tolerance: f64,
    /// Largest accepted `|response - reference| / |reference|`; at least 0. The wider of the two
    /// tolerances holds. Default 0: exact.
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

impl Numeric {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`AnswerError::InvalidConfig`] naming the first tolerance that is negative or not finite.
    ///
    /// ```
    /// use posttrain_answer::number::Numeric;
    ///
    /// let rule = Numeric { absolute_tolerance: -1.0, ..Numeric::default() };
    /// assert!(rule.validate().unwrap_err().to_string().starts_with("`absolute_tolerance` is -1"));
    /// ```
    pub fn validate(&self) -> Result<(), AnswerError> {
        check_tolerance("absolute_tolerance", self.absolute_tolerance)?;
        check_tolerance("relative_tolerance", self.relative_tolerance)
    }

    /// Whether the whole of `response` is the number that the whole of `reference` is.
    ///
    /// # Errors
    /// [`AnswerError::EmptyReference`], or [`AnswerError::BadReference`] where the reference is not
    /// a number.
    ///
    /// ```
    /// use posttrain_answer::number::Numeric;
    ///
    /// let rule = Numeric::default();
    /// assert!(rule.compare("12", "12.0")?.verdict.is_same());
    /// assert!(!rule.compare("12", "It is 12")?.verdict.is_same());
    /// # Ok::<(), posttrain_answer::AnswerError>(())
    /// ```
    pub fn compare(&self, reference: &str, response: &str) -> Result<Comparison, AnswerError> {
        let reference = checked_reference(reference)?;
        let Some(wanted) = self.read(reference) else {
            return Err(AnswerError::bad_reference(reference, "a number of at most 400 digits"));
        };

        let Some(number) = self.read(response) else {
            return Ok(Comparison::missing());
        };

        let found = Found { text: response.trim().to_owned(), by: Extraction::Plain };
        Ok(Comparison { verdict: Verdict::of(self.same(&number, &wanted)), found: Some(found) })
    }

    /// Whether both texts are as a whole numbers, and the same.
    ///
    /// ```
    /// use posttrain_answer::number::Numeric;
    ///
    /// assert!(Numeric::default().matches("1.50", "3/2"));
    /// assert!(!Numeric::default().matches("It is 1.5", "3/2"));
    /// ```
    #[must_use]
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
            && self.values(answer, reference).iter().any(|(answer, reference)| {
                answer.is_close(reference, self.absolute_tolerance, self.relative_tolerance)
            })
    }

    fn notation_allowed(&self, answer: &Quantity, reference: &Quantity) -> bool {
        let literal = answer.fraction == reference.fraction;
        let fraction = match self.fractions {
            Fractions::LowestTerms => literal || !answer.is_unreduced(),
            Fractions::AsReference => {
                literal
                    || answer.fraction.is_none()
                    || (reference.fraction.is_some() && !answer.is_unreduced())
            }
            Fractions::Any => true,
        };
        fraction && (self.percent != Percent::AsReference || answer.percent == reference.percent)
    }

    /// The pairs of values, one of which must be the same.
    fn values(&self, answer: &Quantity, reference: &Quantity) -> Vec<(Number, Number)> {
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
                let free =
                    !answer.may_scale() && (answer.unit.is_empty() || reference.unit.is_empty());
                let no_clash =
                    same_currency || answer.currency.is_none() || reference.currency.is_none();
                (same_unit || free) && no_clash
            }
        }
    }
}

/// Refuses a tolerance below 0, or one that is no number.
pub(crate) fn check_tolerance(field: &'static str, value: f64) -> Result<(), AnswerError> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }

    Err(AnswerError::invalid(field, value, "a finite number, at least 0"))
}
