//! What can go wrong in a comparison.

/// An error of this crate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StatisticsError {
    /// Lists that are compared question by question differ in length.
    #[error("`{argument}`: expected one for each of {expected} questions, got {got}")]
    Unpaired {
        /// The argument.
        argument: &'static str,
        /// Questions.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// A setting is out of its range.
    #[error("`{field}` must be {expected}, got {got}")]
    Config {
        /// The setting.
        field: &'static str,
        /// The range that it must lie in.
        expected: &'static str,
        /// What was given.
        got: f64,
    },
}
