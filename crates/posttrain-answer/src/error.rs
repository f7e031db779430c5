//! The crate's error: why two texts cannot be compared.

/// Why there is no comparison. A wrong answer is never an error; these are the mistakes of a data
/// set or of a configuration.
///
/// ```
/// use posttrain_answer::{AnswerError, number::Numeric};
///
/// let error = Numeric::default().compare("twelve", "12").unwrap_err();
/// assert!(matches!(error, AnswerError::BadReference { .. }));
/// assert_eq!(error.to_string(), "reference `twelve` is not a number of at most 400 digits");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// There is no reference to compare with: nothing but white space.
    #[error("the reference is empty")]
    EmptyReference,
    /// The reference is not of the form that is compared.
    #[error("reference `{reference}` is not {expected}")]
    BadReference {
        /// The reference, at most 80 characters of it.
        reference: String,
        /// What is needed, in words.
        expected: &'static str,
    },
    /// An option is out of its range.
    #[error("`{field}` is {got}: expected {expected}")]
    InvalidConfig {
        /// The field.
        field: &'static str,
        /// What came.
        got: String,
        /// What is allowed, in words.
        expected: &'static str,
    },
}

impl AnswerError {
    pub(crate) fn bad_reference(reference: &str, expected: &'static str) -> Self {
        let reference = reference.chars().take(80).map(visible).collect();

        Self::BadReference { reference, expected }
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "a constructor of errors takes literals, numbers and texts alike"
    )]
    pub(crate) fn invalid(field: &'static str, got: impl ToString, expected: &'static str) -> Self {
        Self::InvalidConfig { field, got: got.to_string(), expected }
    }
}

/// A control character by its escape, which can be read; any other one as it is.
fn visible(c: char) -> String {
    if c.is_control() { c.escape_default().to_string() } else { c.to_string() }
}
