//! Where a row came from, for errors and leaks to name.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a row came from; every count starts at 1.
///
/// ```
/// use posttrain_data::Place;
///
/// assert_eq!(Place::line("train.jsonl", 7).to_string(), "train.jsonl:7");
/// assert_eq!(Place::row("train.parquet", 7).to_string(), "train.parquet, row 7");
/// assert_eq!(Place::Memory { row: 7 }.to_string(), "row 7");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// A line of a text file.
    Line {
        /// The file.
        path: Arc<Path>,
        /// The line, from 1.
        line: u64,
    },
    /// A row of a table, in the order of the file.
    Row {
        /// The file.
        path: Arc<Path>,
        /// The row, from 1.
        row: u64,
    },
    /// A row that the caller handed over.
    Memory {
        /// The row, from 1.
        row: u64,
    },
}

impl Place {
    /// A line of a text file, counted from 1.
    pub fn line(path: impl AsRef<Path>, line: u64) -> Self {
        Self::Line { path: path.as_ref().into(), line }
    }

    /// A row of a table, counted from 1.
    pub fn row(path: impl AsRef<Path>, row: u64) -> Self {
        Self::Row { path: path.as_ref().into(), row }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Row { path, row } => write!(f, "{}, row {row}", path.display()),
            Self::Memory { row } => write!(f, "row {row}"),
        }
    }
}
