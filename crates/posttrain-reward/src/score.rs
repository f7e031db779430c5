//! What a reward says: a value from 0 to 1, named parts, a note.

use serde::{Deserialize, Serialize};

use crate::RewardError;

/// A reward's verdict on one completion. A `Score` that exists is valid: its value is finite and
/// from 0 to 1.
///
/// ```
/// use posttrain_reward::Score;
///
/// let score = Score::new(0.75)?.with_part("correct", 1.0)?.with_part("format", 0.5)?.with_note("no closing tag");
/// assert_eq!(score.value(), 0.75);
/// assert_eq!(score.parts(), [("correct".to_owned(), 1.0), ("format".to_owned(), 0.5)]);
/// assert_eq!(score.note(), Some("no closing tag"));
/// assert!(Score::new(f64::NAN).is_err() && Score::new(1.5).is_err());
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Score {
    value: f64,
    parts: Vec<(String, f64)>,
    note: Option<String>,
}

/// A score as it is written down.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    value: f64,
    parts: Vec<(String, f64)>,
    note: Option<String>,
}

impl TryFrom<Unchecked> for Score {
    type Error = RewardError;

    fn try_from(unchecked: Unchecked) -> Result<Self, RewardError> {
        let mut score = Self::new(unchecked.value)?;
        for (name, value) in unchecked.parts {
            score = score.with_part(name, value)?;
        }
        Ok(Self { note: unchecked.note, ..score })
    }
}

impl Score {
    /// A score without parts or note.
    ///
    /// # Errors
    /// [`RewardError::InvalidScore`] where `value` is not finite or not from 0 to 1.
    ///
    /// ```
    /// use posttrain_reward::Score;
    ///
    /// assert_eq!(Score::new(0.5)?.value(), 0.5);
    /// assert_eq!(Score::new(-0.1).unwrap_err().cause(), "invalid_score");
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn new(value: f64) -> Result<Self, RewardError> {
        if !(0.0..=1.0).contains(&value) {
            let expected = "a finite number from 0 to 1";
            return Err(RewardError::InvalidScore { part: "value".to_owned(), value, expected });
        }
        Ok(Self { value, parts: Vec::new(), note: None })
    }

    /// 1 for right, 0 for wrong.
    ///
    /// ```
    /// use posttrain_reward::Score;
    ///
    /// assert_eq!(Score::binary(true).value() + Score::binary(false).value(), 1.0);
    /// ```
    #[must_use]
    pub fn binary(right: bool) -> Self {
        Self { value: f64::from(u8::from(right)), parts: Vec::new(), note: None }
    }

    /// Adds a named part, for the metrics. Parts explain the value; nothing is computed from them.
    ///
    /// # Errors
    /// [`RewardError::InvalidScore`] where `value` is not finite. (It may be outside 0 to 1: a
    /// length, a raw grade.)
    ///
    /// ```
    /// use posttrain_reward::Score;
    ///
    /// assert_eq!(Score::binary(true).with_part("tokens", 42.0)?.parts()[0].1, 42.0);
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn with_part(mut self, name: impl Into<String>, value: f64) -> Result<Self, RewardError> {
        let name = name.into();
        if !value.is_finite() {
            return Err(RewardError::InvalidScore {
                part: name,
                value,
                expected: "a finite number",
            });
        }
        self.parts.push((name, value));
        Ok(self)
    }

    /// Sets the note: one line for people, kept with the sample and never read by the loop.
    ///
    /// ```
    /// assert_eq!(posttrain_reward::Score::binary(true).with_note("12 = 12").note(), Some("12 = 12"));
    /// ```
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// The reward, from 0 to 1.
    ///
    /// ```
    /// assert_eq!(posttrain_reward::Score::binary(true).value(), 1.0);
    /// ```
    #[must_use]
    pub fn value(&self) -> f64 {
        self.value
    }

    /// The named parts, in the order in which they were added.
    ///
    /// ```
    /// assert!(posttrain_reward::Score::binary(true).parts().is_empty());
    /// ```
    #[must_use]
    pub fn parts(&self) -> &[(String, f64)] {
        &self.parts
    }

    /// The note.
    ///
    /// ```
    /// assert_eq!(posttrain_reward::Score::binary(true).note(), None);
    /// ```
    #[must_use]
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }
}
