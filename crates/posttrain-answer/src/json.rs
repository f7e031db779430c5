//! When two texts are the same JSON.

mod find;
mod reader;

use serde::{Deserialize, Serialize};

use crate::extraction::check_bytes;
use crate::number::check_tolerance;
use crate::reference::checked_reference;
use crate::response::{ending, without_thinking};
use crate::{AnswerError, Comparison, Extraction, Found, Verdict};
pub use find::find;
use reader::JsonNumber;
pub(crate) use reader::{JsonValue, read};

/// What keys are worth that the reference does not have.
///
/// ```
/// use posttrain_answer::json::{ExtraKeys, Json};
///
/// let lenient = Json { extra_keys: ExtraKeys::Ignored, ..Json::default() };
/// let (reference, answer) = (r#"{"a": 1}"#, r#"{"a": 1, "why": "because"}"#);
/// assert!(!Json::default().same(reference, answer)?);
/// assert!(lenient.same(reference, answer)?);
/// # Ok::<(), posttrain_answer::AnswerError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExtraKeys {
    /// An object must have the reference's keys and no others.
    #[default]
    Wrong,
    /// Others do not count, at any depth.
    Ignored,
}

/// When a response's JSON has the reference's value: keys in any order, arrays in theirs, texts
/// exactly, numbers by value (`1` is `1.0`), however long they are: `18446744073709551616` is not
/// `18446744073709551617`, unless a tolerance says so.
///
/// The response's JSON is what [`find`] finds. What earns nothing: JSON with a comma too many, an
/// earlier value than the last, an object in which a name stands twice.
///
/// ```
/// use posttrain_answer::json::Json;
///
/// let rule = Json::default();
/// let reference = r#"{"name": "Ada", "born": 1815}"#;
/// let response = "Here it is:\n```json\n{\"born\": 1815.0, \"name\": \"Ada\"}\n```";
/// assert!(rule.compare(reference, response)?.verdict.is_same());
/// assert!(!rule.compare(reference, r#"{"name": "Ada", "born": "1815"}"#)?.verdict.is_same());
/// # Ok::<(), posttrain_answer::AnswerError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Json {
    /// Largest accepted difference of two numbers; at least 0. Default 0: exact.
    pub absolute_tolerance: f64,
    /// Largest accepted difference relative to the reference's number; at least 0. The wider of the
    /// two tolerances holds. Default 0: exact.
    pub relative_tolerance: f64,
    /// What keys are worth that the reference does not have. Default: the answer is wrong.
    pub extra_keys: ExtraKeys,
    /// Bytes at the response's end that are looked at, from 1 to 2²⁴. Default 65,536.
    pub max_bytes: usize,
}

impl Default for Json {
    fn default() -> Self {
        Self {
            absolute_tolerance: 0.0,
            relative_tolerance: 0.0,
            extra_keys: ExtraKeys::default(),
            max_bytes: 64 * 1024,
        }
    }
}

impl Json {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`AnswerError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// use posttrain_answer::json::Json;
    ///
    /// assert!(Json { max_bytes: 0, ..Json::default() }.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), AnswerError> {
        check_tolerance("absolute_tolerance", self.absolute_tolerance)?;
        check_tolerance("relative_tolerance", self.relative_tolerance)?;
        check_bytes(self.max_bytes)
    }

    /// Compares the JSON in a response with the reference's.
    ///
    /// # Errors
    /// [`AnswerError::EmptyReference`], or [`AnswerError::BadReference`] where the reference is not
    /// JSON.
    ///
    /// ```
    /// use posttrain_answer::{Verdict, json::Json};
    ///
    /// assert_eq!(Json::default().compare("[1, 2]", "I do not know.")?.verdict, Verdict::Missing);
    /// # Ok::<(), posttrain_answer::AnswerError>(())
    /// ```
    pub fn compare(&self, reference: &str, response: &str) -> Result<Comparison, AnswerError> {
        let wanted = read_reference(reference)?;

        let spoken = without_thinking(response).map(|spoken| ending(spoken, self.max_bytes));
        let Some(answer) = spoken.and_then(find) else {
            return Ok(Comparison::missing());
        };

        let same = read(answer).is_ok_and(|answer| self.same_value(&answer, &wanted));
        let found = Found { text: answer.to_owned(), by: Extraction::Plain };
        Ok(Comparison { verdict: Verdict::of(same), found: Some(found) })
    }

    /// Whether two texts that are JSON as a whole are the same. What is no JSON is the same as
    /// nothing.
    ///
    /// # Errors
    /// As [`compare`](Self::compare).
    ///
    /// ```
    /// use posttrain_answer::json::Json;
    ///
    /// assert!(Json::default().same("[1, 2]", "[1.0, 2e0]")?);
    /// assert!(!Json::default().same("0.1", "0.10000000000000000001")?);
    /// # Ok::<(), posttrain_answer::AnswerError>(())
    /// ```
    pub fn same(&self, reference: &str, answer: &str) -> Result<bool, AnswerError> {
        let wanted = read_reference(reference)?;

        Ok(read(answer).is_ok_and(|answer| self.same_value(&answer, &wanted)))
    }

    /// The reader bounds the depth of both.
    fn same_value(&self, answer: &JsonValue, reference: &JsonValue) -> bool {
        match (answer, reference) {
            (JsonValue::Number(left), JsonValue::Number(right)) => self.same_number(left, right),
            (JsonValue::Array(left), JsonValue::Array(right)) => {
                left.len() == right.len()
                    && left.iter().zip(right).all(|(left, right)| self.same_value(left, right))
            }
            (JsonValue::Object(left), JsonValue::Object(right)) => {
                let keys = self.extra_keys == ExtraKeys::Ignored || left.len() == right.len();
                let has = |(key, wanted)| {
                    left.get(key).is_some_and(|value| self.same_value(value, wanted))
                };
                keys && right.iter().all(has)
            }
            (left, right) => left == right,
        }
    }

    fn same_number(&self, answer: &JsonNumber, reference: &JsonNumber) -> bool {
        if answer == reference {
            return true;
        }
        if self.absolute_tolerance == 0.0 && self.relative_tolerance == 0.0 {
            return false;
        }

        let bound = self.absolute_tolerance.max(self.relative_tolerance * reference.to_f64().abs());
        (answer.to_f64() - reference.to_f64()).abs() <= bound
    }
}

fn read_reference(reference: &str) -> Result<JsonValue, AnswerError> {
    let reference = checked_reference(reference)?;

    read(reference)
        .map_err(|_| AnswerError::bad_reference(reference, "JSON in which no name stands twice"))
}
