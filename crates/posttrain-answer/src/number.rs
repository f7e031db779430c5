//! Exact numbers of bounded size, and when two of them are the same.

pub(crate) mod glyph;
pub(crate) mod last;
pub(crate) mod numeral;
mod numeric;
pub(crate) mod quantity;

use std::cmp::Ordering;
use std::fmt;

use num_bigint::BigInt;
use num_rational::BigRational;
use serde::{Deserialize, Serialize};

use glyph::THIN_SPACE;
use numeral::{Form, Numeral};
use quantity::Quantity;

pub(crate) use numeric::check_tolerance;
pub use numeric::{Fractions, Numeric, Percent, Units};

/// The most digits that a number may be written with, and the largest exponent: beyond what a
/// 64-bit float holds, and small enough that exact arithmetic takes microseconds. What is longer is
/// not a number.
pub(crate) const MAX_DIGITS: usize = 400;

/// Which mark begins the decimals and which one groups thousands.
///
/// `1.000` is one in the first and a thousand in the second; nothing in the text can tell, so the
/// config says.
///
/// ```
/// use posttrain_answer::number::{Number, Separators};
///
/// assert_eq!(Number::parse("1.000", Separators::Point), Number::parse("1", Separators::Point));
/// assert_eq!(Number::parse("1.000", Separators::Comma), Number::parse("1000", Separators::Comma));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Separators {
    /// `1,234.5`: English usage, and that of the common mathematics datasets.
    #[default]
    Point,
    /// `1.234,5`: most of continental Europe and of South America.
    Comma,
}

/// An exact rational number of at most 400 digits and an exponent of at most ±400.
///
/// ```
/// use posttrain_answer::number::{Number, Separators::Point};
///
/// let number = |text| Number::parse(text, Point).unwrap();
/// assert_eq!(number("3/4"), number("0.75"));
/// assert_eq!(number("1 1/2"), number("1.5e0"));
/// assert_eq!(number("−1,000").to_string(), "-1000");
/// assert_eq!(number("75%").to_string(), "3/4");
/// assert!(Number::parse("1e999999999", Point).is_none());
/// assert!(Number::parse("12 apples", Point).is_none());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(BigRational);

impl Number {
    /// The number that the whole of `text` is, or `None`. A unit is not part of a number; a percent
    /// sign is.
    ///
    /// ```
    /// use posttrain_answer::number::{Number, Separators::Point};
    ///
    /// assert_eq!(Number::parse("1.5 × 10^3", Point), Number::parse("1,500", Point));
    /// assert_eq!(Number::parse("1,5", Point), None);
    /// ```
    #[must_use]
    pub fn parse(text: &str, separators: Separators) -> Option<Self> {
        let quantity = Quantity::parse(text, separators)?;
        let bare = quantity.unit.is_empty() && quantity.currency.is_none();
        bare.then(|| quantity.value())
    }

    /// Whether `self` lies within `absolute` or within `relative · |reference|` of `reference`,
    /// whichever is wider. Computed exactly; both 0 means equal. A tolerance that is not finite or
    /// is negative counts as 0.
    ///
    /// ```
    /// use posttrain_answer::number::{Number, Separators::Point};
    ///
    /// let number = |text| Number::parse(text, Point).unwrap();
    /// assert!(!number("0.333").is_close(&number("1/3"), 0.0, 0.0));
    /// assert!(number("0.333").is_close(&number("1/3"), 0.0, 0.01));
    /// assert!(number("9.5").is_close(&number("9"), 0.5, 0.0));
    /// ```
    #[must_use]
    pub fn is_close(&self, reference: &Self, absolute: f64, relative: f64) -> bool {
        let distance = magnitude(&self.0 - &reference.0);
        let absolute = tolerance(absolute);
        let relative = tolerance(relative) * magnitude(reference.0.clone());
        distance <= absolute.max(relative)
    }

    /// The value of a numeral, or `None` where its digits are badly grouped or too many, or its
    /// denominator is 0.
    pub(crate) fn of(numeral: &Numeral, separators: Separators) -> Option<Self> {
        let value = match numeral.form {
            Form::Decimal { token, exponent } => decimal(token, exponent, separators)?,
            Form::Fraction { whole, over, under } => fraction(whole, over, under)?,
        };
        Some(Self(value * power_of_ten(i64::from(numeral.scale))))
    }

    pub(crate) fn rational(&self) -> &BigRational {
        &self.0
    }

    pub(crate) fn negated(self) -> Self {
        Self(-self.0)
    }

    pub(crate) fn hundredth(&self) -> Self {
        Self(&self.0 / power_of_ten(2))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Whether `over/under` cannot be reduced and is not a whole number.
pub(crate) fn is_reduced(over: &str, under: &str) -> bool {
    let Some(value) = fraction(None, over, under) else { return false };
    !value.is_integer() && integer(under).as_ref() == Some(value.denom())
}

/// The value of digits with grouping marks and a point, and of an exponent of ten.
pub(crate) fn decimal(
    token: &str,
    exponent: Option<&str>,
    separators: Separators,
) -> Option<BigRational> {
    let (point, comma) = match separators {
        Separators::Point => ('.', ','),
        Separators::Comma => (',', '.'),
    };
    let (whole, decimals) = token.split_once(point).unwrap_or((token, ""));
    let mut digits = ungrouped(whole, comma)?;
    digits.push_str(decimals);
    let exponent =
        exponent.map_or(Some(0), small_exponent)? - i64::try_from(decimals.len()).ok()?;
    Some(BigRational::from_integer(integer(&digits)?) * power_of_ten(exponent))
}

/// The digits of `1,234,567`, `1 234 567`, `1'234'567` or `1_234_567`: one kind of mark, groups of
/// three.
fn ungrouped(whole: &str, comma: char) -> Option<String> {
    let marks = [comma, '\'', '_', THIN_SPACE];
    let Some(mark) = whole.chars().find(|c| marks.contains(c)) else {
        return Some(whole.to_owned());
    };
    let (first, rest) = whole.split_once(mark)?;
    let grouped = (1..=3).contains(&first.len()) && rest.split(mark).all(|group| group.len() == 3);
    grouped.then(|| whole.split(mark).collect())
}

fn fraction(whole: Option<&str>, over: &str, under: &str) -> Option<BigRational> {
    let (over, under) = (integer(over)?, integer(under)?);
    let whole = whole.map_or(Some(BigInt::ZERO), integer)?;
    (under != BigInt::ZERO)
        .then(|| BigRational::from_integer(whole) + BigRational::new(over, under))
}

fn integer(digits: &str) -> Option<BigInt> {
    let valid = digits.len() <= MAX_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    valid.then(|| BigInt::parse_bytes(digits.as_bytes(), 10))?
}

fn small_exponent(text: &str) -> Option<i64> {
    let exponent = text.parse::<i64>().ok()?;
    (exponent.unsigned_abs() <= MAX_DIGITS as u64).then_some(exponent)
}

/// `10^exponent`; the callers keep the exponent below a thousand.
pub(crate) fn power_of_ten(exponent: i64) -> BigRational {
    let power = BigInt::from(10).pow(exponent.unsigned_abs() as u32);
    let power = BigRational::from_integer(power);
    if exponent.cmp(&0) == Ordering::Less { power.recip() } else { power }
}

fn magnitude(value: BigRational) -> BigRational {
    let negated = -&value;
    value.max(negated)
}

fn tolerance(value: f64) -> BigRational {
    let zero = || BigRational::from_integer(BigInt::ZERO);
    BigRational::from_float(value).filter(|value| *value > zero()).unwrap_or_else(zero)
}
