//! Why a file cannot be read.

use std::io;
use std::sync::Arc;

/// What is wrong with a file that a reward compares.
///
/// ```
/// use posttrain_reward::spreadsheet::FileFailure;
///
/// let failure = FileFailure::TooLarge { what: "bytes in the file", limit: 33_554_432 };
/// assert_eq!(failure.to_string(), "more than 33554432 bytes in the file");
/// assert_eq!(failure.cause(), "file_too_large");
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FileFailure {
    /// It is not there.
    #[error("no such file")]
    Missing,
    /// It is larger than allowed, as it is or unpacked.
    #[error("more than {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// It needs a password.
    #[error("it is encrypted")]
    Encrypted,
    /// It is of another kind.
    #[error("{what}, not an .xlsx workbook")]
    NotXlsx {
        /// What it is.
        what: &'static str,
    },
    /// It is damaged, or not made by the rules of its kind.
    #[error("it is damaged: {reason}")]
    Corrupt {
        /// What the reader says.
        reason: String,
    },
    /// It lacks a sheet.
    #[error("no sheet `{sheet}`")]
    NoSheet {
        /// The sheet.
        sheet: String,
    },
    /// A formula has no value, since nothing has calculated it.
    #[error("the formula in `{sheet}`, row {row}, column {column}, was never calculated")]
    Uncalculated {
        /// The sheet.
        sheet: String,
        /// The row, from 1.
        row: u32,
        /// The column, from 1.
        column: u32,
    },
    /// Reading it failed.
    #[error("reading it failed")]
    Io(#[source] Arc<io::Error>),
}

impl FileFailure {
    /// The key that this failure is counted by.
    ///
    /// ```
    /// assert_eq!(posttrain_reward::spreadsheet::FileFailure::Encrypted.cause(), "file_encrypted");
    /// ```
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Missing => "file_missing",
            Self::TooLarge { .. } => "file_too_large",
            Self::Encrypted => "file_encrypted",
            Self::NotXlsx { .. } => "file_not_xlsx",
            Self::Corrupt { .. } => "file_corrupt",
            Self::NoSheet { .. } => "file_no_sheet",
            Self::Uncalculated { .. } => "file_uncalculated",
            Self::Io(_) => "file_io",
        }
    }
}
