//! Everything that can be wrong with data, and where it was found.

use std::path::{Path, PathBuf};

use crate::Place;

/// What is wrong with the data, its file or its configuration.
///
/// Every variant says where (path and line), which field, what was expected and what came. A reader
/// that returns an error returns nothing else: no rows are half-read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file cannot be written.
    #[error(transparent)]
    Store(#[from] posttrain_store::StoreError),
    /// The operating system refused to read a file.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted, in words: "open", "read".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's own error.
        source: std::io::Error,
    },
    /// A file whose name ends in neither `.jsonl` nor `.parquet`.
    #[error("{}: expected a name that ends in {expected}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The endings that this build reads.
        expected: &'static str,
    },
    /// A line is not valid JSON.
    #[error("{place}: not valid JSON")]
    Json {
        /// The line.
        place: Place,
        /// What the parser met.
        source: serde_json::Error,
    },
    /// A text is not valid UTF-8.
    #[error("{place}: not valid UTF-8 from byte {offset} on")]
    Utf8 {
        /// The line or row.
        place: Place,
        /// The first bad byte, counted from 0 within the line or the cell.
        offset: usize,
    },
    /// A line or cell is longer than [`Limits::row_bytes`](crate::Limits::row_bytes).
    #[error("{place}: longer than the limit of {limit} bytes")]
    RowTooLong {
        /// The line or row.
        place: Place,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The data as a whole passes one of the [`Limits`](crate::Limits).
    #[error("{place}: the data passes the limit of {limit} {unit}")]
    TooLarge {
        /// Where the limit was passed.
        place: Place,
        /// The limit.
        limit: u64,
        /// What is counted: "rows", "bytes", or bytes of what a Parquet file unpacks to.
        unit: &'static str,
    },
    /// A field that a row must have is missing or null.
    #[error(
        "{place}: field `{field}`: expected {expected}, got nothing; the row has {}",
        list(found)
    )]
    MissingField {
        /// The line or row.
        place: Place,
        /// The field's name in the file.
        field: String,
        /// What should be there.
        expected: &'static str,
        /// The fields that are there.
        found: Vec<String>,
    },
    /// A field holds something of another type.
    #[error("{place}: field `{field}`: expected {expected}, got {got}")]
    FieldType {
        /// The line or row.
        place: Place,
        /// The field's name in the file.
        field: String,
        /// What should be there.
        expected: &'static str,
        /// What is there.
        got: String,
    },
    /// A field that must say something is empty or white space.
    #[error("{place}: field `{field}`: expected text, got {got:?}")]
    EmptyField {
        /// The line or row.
        place: Place,
        /// The field's name in the file.
        field: String,
        /// What is there.
        got: String,
    },
    /// Two rows have the same id.
    #[error("duplicate id {id:?}: {first} and {second}")]
    DuplicateId {
        /// The id.
        id: String,
        /// Where it came first.
        first: Place,
        /// Where it came again.
        second: Place,
    },
    /// A row belongs to no domain that is known.
    #[error("{place}: unknown domain {domain:?}; expected one of {}", list(known))]
    UnknownDomain {
        /// The line or row.
        place: Place,
        /// The row's domain.
        domain: String,
        /// The domains that are known.
        known: Vec<String>,
    },
    /// A domain's name cannot safely name a folder.
    #[error("domain {domain:?} cannot name a folder: it {reason}")]
    UnsafeDomain {
        /// The domain.
        domain: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A Parquet file cannot be decoded.
    #[cfg(feature = "parquet")]
    #[error("{place}: not readable as Parquet")]
    Parquet {
        /// The file, and the row that was about to be read.
        place: Place,
        /// The decoder's own error.
        source: parquet::errors::ParquetError,
    },
    /// A Parquet file's contents contradict its own metadata.
    #[error("{place}: expected {expected} rows in column `{column}`, got {got}")]
    BrokenColumn {
        /// The file, and the row that was about to be read.
        place: Place,
        /// The column.
        column: String,
        /// Rows that the metadata promises.
        expected: usize,
        /// Rows that there are.
        got: usize,
    },
    /// A file has no column of the name that the configuration gives.
    #[error("{}: no column `{column}`; the file has {}", path.display(), list(found))]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column that was asked for.
        column: String,
        /// The columns that are there.
        found: Vec<String>,
    },
    /// There are no rows at all.
    #[error("{what}: expected at least one row, got none")]
    NoRows {
        /// The file, or what else should have held rows.
        what: String,
    },
    /// A domain has fewer rows than its three splits need.
    #[error("domain {domain:?}: the splits need {needed} rows, there are {found}")]
    TooFewRows {
        /// The domain.
        domain: String,
        /// Train, validation and test together.
        needed: u64,
        /// Rows of the domain.
        found: u64,
    },
    /// A domain has rows enough, but they hang together in groups that do not fill the splits
    /// exactly.
    #[error(
        "domain {domain:?}: no way found to fill the splits exactly without cutting a group apart: {split} needs \
         {needed} rows and got {got}; {rows} rows stand in {groups} groups, the largest of {largest}"
    )]
    Unpackable {
        /// The domain.
        domain: String,
        /// The split that could not be filled.
        split: crate::Split,
        /// Rows that the split needs.
        needed: u64,
        /// Rows that it got.
        got: u64,
        /// Rows of the domain.
        rows: u64,
        /// Groups that have rows of the domain (after joining those that share a question).
        groups: u64,
        /// Rows of the domain in its largest group.
        largest: u64,
    },
    /// A setting is outside its range.
    #[error("setting `{field}`: expected {expected}, got {got}")]
    Config {
        /// The setting.
        field: &'static str,
        /// Its range.
        expected: &'static str,
        /// Its value.
        got: String,
    },
    /// A saved position in a stream of batches does not fit the stream.
    #[error("position {position} of epoch {epoch}: expected at most {rows}, the rows of an epoch")]
    StreamState {
        /// The state's epoch.
        epoch: u64,
        /// The state's position.
        position: u64,
        /// Rows of an epoch.
        rows: u64,
    },
}

impl DataError {
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }
}

/// Names in backticks, the first twenty of them.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 20;
    let mut shown: Vec<_> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    if names.len() > SHOWN {
        shown.push(format!("and {} more", names.len() - SHOWN));
    }
    if shown.is_empty() { "nothing".to_owned() } else { shown.join(", ") }
}
