//! Reading files of any supported format.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::dataset::Collector;
use crate::{Columns, DataError, Dataset, Limits, jsonl};

/// The endings that this build reads.
const FORMATS: &str = if cfg!(feature = "parquet") {
    ".jsonl or .parquet"
} else {
    ".jsonl (built without `parquet`)"
};

/// How a file is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReadConfig {
    /// Which column is which field.
    pub columns: Columns,
    /// How much is taken in.
    pub limits: Limits,
}

impl ReadConfig {
    /// Reads with these columns and the default limits.
    #[must_use]
    pub fn new(columns: Columns) -> Self {
        Self { columns, limits: Limits::default() }
    }

    /// Whether the columns and the limits are in range.
    ///
    /// # Errors
    /// [`DataError::Config`] names the first setting that is not.
    pub fn validate(&self) -> Result<(), DataError> {
        self.columns.validate()?;
        self.limits.validate()
    }
}

/// Reads a `.jsonl` or `.parquet` file: all of it, or an error that says where it is broken.
///
/// In JSON lines a byte order mark, either line end and a missing last line end are taken as they
/// come, and lines of white space are passed over.
///
/// ```
/// use posttrain_data::{ReadConfig, read};
///
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("sums.jsonl");
/// std::fs::write(&path, "{\"domain\": \"math\", \"question\": \"1 + 1?\", \"answer\": 2}\n").unwrap();
/// let dataset = read(&path, &ReadConfig::default()).unwrap();
/// assert_eq!(dataset.examples()[0].answer, "2");
/// ```
///
/// # Errors
/// Any [`DataError`] about the file, its rows or the configuration, with path and line (row for
/// Parquet).
pub fn read(path: impl AsRef<Path>, config: &ReadConfig) -> Result<Dataset, DataError> {
    read_all([path], config)
}

/// Reads the files one after the other as one dataset, in which no id may stand twice.
///
/// # Errors
/// As [`read`].
pub fn read_all<P: AsRef<Path>>(
    paths: impl IntoIterator<Item = P>,
    config: &ReadConfig,
) -> Result<Dataset, DataError> {
    config.validate()?;

    let mut collector = Collector::new(config.limits);
    let mut names = Vec::new();
    for path in paths {
        collect(path.as_ref(), config, &mut collector)?;
        names.push(path.as_ref().display().to_string());
    }
    collector.finish(&names.join(", "))
}

fn collect(path: &Path, config: &ReadConfig, collector: &mut Collector) -> Result<(), DataError> {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    match ending.as_deref() {
        Some("jsonl") => jsonl::collect(path, &config.columns, config.limits.row_bytes, collector),
        #[cfg(feature = "parquet")]
        Some("parquet") => {
            crate::parquet_file::collect(path, &config.columns, config.limits.row_bytes, collector)
        }
        None if !path.exists() => {
            Err(DataError::io("open", path, std::io::ErrorKind::NotFound.into()))
        }
        _ => Err(DataError::Format { path: path.to_owned(), expected: FORMATS }),
    }
}
