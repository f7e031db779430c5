//! A term for length: full marks up to a length, then less and less.

use serde::{Deserialize, Serialize};

use crate::{RewardError, Sample, Score, Verifier};

/// What a response's length is counted in.
///
/// ```
/// use posttrain_reward::Sample;
/// use posttrain_reward::verifiers::LengthUnit;
///
/// let sample = Sample { tokens: Some(3), ..Sample::new("?", "4", "It is 4 €.") };
/// assert_eq!(LengthUnit::Tokens.length(&sample)?, 3);
/// assert_eq!(LengthUnit::Characters.length(&sample)?, 10);
/// assert_eq!(LengthUnit::Words.length(&sample)?, 4);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LengthUnit {
    /// The policy's tokens, as the sampler counted them ([`Sample::tokens`]).
    #[default]
    Tokens,
    /// Unicode characters.
    Characters,
    /// Runs of anything but white space.
    Words,
}

impl LengthUnit {
    /// The length of the sample's response.
    ///
    /// # Errors
    /// [`RewardError::MissingField`] where tokens are wanted and nobody counted them.
    ///
    /// ```
    /// use posttrain_reward::Sample;
    /// use posttrain_reward::verifiers::LengthUnit;
    ///
    /// assert_eq!(LengthUnit::Tokens.length(&Sample::new("?", "4", "4")).unwrap_err().cause(), "missing_field");
    /// ```
    pub fn length(self, sample: &Sample) -> Result<usize, RewardError> {
        match self {
            Self::Tokens => sample
                .tokens
                .ok_or_else(|| sample.missing("tokens", "the response's number of tokens")),
            Self::Characters => Ok(sample.response.chars().count()),
            Self::Words => Ok(sample.response.split_whitespace().count()),
        }
    }
}

/// DAPO's soft over-length penalty, moved from −1…0 to 0…1.
///
/// With `n` the response's length, `L` = `max_length` and `b` = `buffer`:
///
/// ```text
/// 1              where n ≤ L − b
/// (L − n) / b    where L − b < n ≤ L
/// 0              where n > L
/// ```
///
/// This is `1 + R_length` of DAPO's equation 13 (<https://arxiv.org/abs/2503.14476>). DAPO adds
/// `R_length` to a correctness of −1 or 1; `WeightedSum` with weights 2 for a correctness of 0 or 1
/// and 1 for this term is the same reward up to scale and offset, which group-normalized advantages
/// do not see.
///
/// ```
/// use posttrain_reward::{Sample, Verifier};
/// use posttrain_reward::verifiers::{LengthConfig, LengthUnit};
///
/// let term = LengthConfig { unit: LengthUnit::Words, max_length: 10, buffer: 4 }.build()?;
/// let value = |words: usize| term.verify(&Sample::new("?", "4", "word ".repeat(words))).map(|score| score.value());
/// assert_eq!([value(6)?, value(7)?, value(9)?, value(10)?, value(11)?], [1.0, 0.75, 0.25, 0.0, 0.0]);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LengthConfig {
    /// What lengths are counted in. Default: tokens.
    pub unit: LengthUnit,
    /// The length from which on a response is worth nothing, at least 1. Default 20,480, as in
    /// DAPO.
    pub max_length: usize,
    /// The stretch before `max_length` over which the value falls, from 0 (a step) to `max_length`.
    /// Default 4,096, as in DAPO.
    pub buffer: usize,
}

impl Default for LengthConfig {
    fn default() -> Self {
        Self { unit: LengthUnit::default(), max_length: 20_480, buffer: 4_096 }
    }
}

impl LengthConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// use posttrain_reward::verifiers::LengthConfig;
    ///
    /// assert!(LengthConfig::default().validate().is_ok());
    /// assert!(LengthConfig { max_length: 10, buffer: 11, ..LengthConfig::default() }.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        let invalid = |field, got: usize, expected| {
            Err(RewardError::InvalidConfig { field, got: got.to_string(), expected })
        };
        if self.max_length == 0 {
            return invalid("max_length", 0, "at least 1");
        }
        if self.buffer > self.max_length {
            return invalid("buffer", self.buffer, "at most `max_length`");
        }
        Ok(())
    }

    /// The term.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    ///
    /// ```
    /// use posttrain_reward::{Sample, Verifier};
    /// use posttrain_reward::verifiers::LengthConfig;
    ///
    /// let term = LengthConfig::default().build()?;
    /// let sample = Sample { tokens: Some(18_432), ..Sample::default() };
    /// assert_eq!(term.verify(&sample)?.value(), 0.5);
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn build(self) -> Result<LengthTerm, RewardError> {
        self.validate()?;
        Ok(LengthTerm { config: self })
    }
}

/// The term that [`LengthConfig`] describes and builds; the length is a part of the score.
///
/// ```
/// use posttrain_reward::{Sample, Verifier};
/// use posttrain_reward::verifiers::LengthConfig;
///
/// let sample = Sample { tokens: Some(100), ..Sample::default() };
/// assert_eq!(LengthConfig::default().build()?.verify(&sample)?.parts(), [("length".to_owned(), 100.0)]);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LengthTerm {
    config: LengthConfig,
}

impl Verifier for LengthTerm {
    fn name(&self) -> &str {
        "length"
    }

    fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
        let length = self.config.unit.length(sample)?;
        Score::new(self.value(length))?.with_part("length", length as f64)
    }
}

impl LengthTerm {
    fn value(&self, length: usize) -> f64 {
        let LengthConfig { max_length, buffer, .. } = self.config;
        if length <= max_length - buffer {
            return 1.0;
        }
        // A buffer of 0 leaves nothing between the two ends.
        if length > max_length { 0.0 } else { (max_length - length) as f64 / buffer as f64 }
    }
}
