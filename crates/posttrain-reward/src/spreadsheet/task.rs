//! A spreadsheet task, as it stands in a dataset row.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::area::{Area, parse_areas};
use crate::{RewardError, Sample};

/// The key of the metadata that holds the task.
const KEY: &str = "spreadsheet";

/// An answer range and the test cases that it is compared in.
#[derive(Debug)]
pub(super) struct Task<C> {
    pub(super) areas: Vec<Area>,
    pub(super) cases: Vec<C>,
}

/// Two files that are there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileCase {
    pub(super) answer: PathBuf,
    pub(super) reference: PathBuf,
}

/// A file that a program turns into its answer.
#[cfg(unix)]
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputCase {
    pub(super) input: PathBuf,
    pub(super) reference: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<C> {
    range: String,
    cases: Vec<C>,
}

impl<C: DeserializeOwned> Task<C> {
    /// The task of `sample`; `expected` says its form in words.
    pub(super) fn of(sample: &Sample, expected: &'static str) -> Result<Self, RewardError> {
        let value = sample.metadata.get(KEY).ok_or_else(|| sample.missing(KEY, expected))?;
        let bad = |reason: String| RewardError::BadTask {
            id: sample.id.clone(),
            key: KEY,
            reason,
            expected,
        };
        let written = Written::<C>::deserialize(value).map_err(|error| bad(error.to_string()))?;
        if written.cases.is_empty() {
            return Err(bad("no cases".to_owned()));
        }
        let areas =
            parse_areas(&written.range).map_err(|reason| bad(format!("range: {reason}")))?;
        Ok(Self { areas, cases: written.cases })
    }
}
