//! The configuration in a run's folder: what a folder was begun with it goes on with.

use crate::{ExperimentConfig, ExperimentError};
use posttrain_store::{Difference, replace_file};
use serde_json::Value;
use std::path::Path;

/// Keeps the configuration, as resolved, as `config.toml`; a folder that was begun with another one
/// is refused.
pub(crate) fn keep_config(folder: &Path, config: &ExperimentConfig) -> Result<(), ExperimentError> {
    let path = folder.join("config.toml");
    let resolved = toml::to_string(config).map_err(|error| ExperimentError::Config {
        path: path.clone(),
        reason: error.to_string(),
    })?;

    let Ok(old) = std::fs::read_to_string(&path) else {
        return Ok(replace_file(&path, resolved.as_bytes())?);
    };

    match Difference::between(&values(&path, &old)?, &values(&path, &resolved)?) {
        None => Ok(()),
        Some(difference) => Err(ExperimentError::OtherRun { path, difference }),
    }
}

fn values(path: &Path, toml: &str) -> Result<Value, ExperimentError> {
    toml::from_str(toml)
        .map_err(|e| ExperimentError::Config { path: path.to_owned(), reason: e.to_string() })
}
