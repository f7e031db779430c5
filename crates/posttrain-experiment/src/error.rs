//! What can go wrong in an experiment.

use std::path::{Path, PathBuf};

/// An error of this crate. Its fields are data, so that a caller can act on them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExperimentError {
    /// Two lists of verdicts that are compared question by question differ in length.
    #[error("`{argument}`: expected one for each of {expected} questions, got {got}")]
    Unpaired {
        /// The argument.
        argument: &'static str,
        /// Questions.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// A confusion matrix is not square, or does not fit its labels.
    #[error("confusion matrix: expected {labels} rows of {labels} counts, as there are labels; row {row} has {got}")]
    Confusion {
        /// How many labels there are.
        labels: usize,
        /// The first row that does not fit, from 0; the number of rows where that is what does not fit.
        row: usize,
        /// Its counts.
        got: usize,
    },
    /// A report's text is not of the report's form.
    #[error("{origin}: `{field}`, line {line}: {source}")]
    Format {
        /// The file, or `report` where it came as text.
        origin: String,
        /// The path of the field, such as `models.math.steps`.
        field: String,
        /// The line, from 1; 0 where the report never was text.
        line: usize,
        /// The parser's answer.
        #[source]
        source: serde_json::Error,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl ExperimentError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
