//! How much a reader takes in.

use serde::{Deserialize, Serialize};

use crate::DataError;

/// How much a reader takes in before it says that this cannot be meant; each limit is at least 1.
///
/// A Parquet file has one more limit, which goes by its size: its rows, 256 bytes each beside their
/// text, may unpack to 64 MiB and 1,000 bytes for each byte of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of one JSONL line or of one Parquet cell.
    pub row_bytes: u64,
    /// Rows in all.
    pub rows: u64,
    /// Bytes of the fields that are kept, in all.
    pub total_bytes: u64,
}

impl Default for Limits {
    /// 16 MiB a row, ten million rows, 4 GiB: some ten times the 1.2 million rows of Webscale-RL,
    /// and lines far above the 1 MiB that the Hugging Face viewer shows.
    fn default() -> Self {
        Self { row_bytes: 16 << 20, rows: 10_000_000, total_bytes: 4 << 30 }
    }
}

impl Limits {
    /// Whether each limit is at least 1.
    ///
    /// # Errors
    /// [`DataError::Config`] names the first that is 0.
    pub fn validate(&self) -> Result<(), DataError> {
        let limits =
            [("row_bytes", self.row_bytes), ("rows", self.rows), ("total_bytes", self.total_bytes)];
        match limits.into_iter().find(|&(_, limit)| limit == 0) {
            Some((field, _)) => {
                Err(DataError::Config { field, expected: "at least 1", got: "0".to_owned() })
            }
            None => Ok(()),
        }
    }
}
