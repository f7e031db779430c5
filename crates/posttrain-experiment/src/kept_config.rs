//! The configuration in a run's folder: what a folder was begun with it goes on with.

use crate::folder::replace;
use crate::{ExperimentConfig, ExperimentError};
use std::path::Path;

/// Keeps the configuration, as resolved, as `config.toml`; a folder that was begun with another one is refused.
pub(crate) fn keep_config(folder: &Path, config: &ExperimentConfig) -> Result<(), ExperimentError> {
    let path = folder.join("config.toml");
    let unwritable = |e: toml::ser::Error| ExperimentError::Config { path: path.clone(), reason: e.to_string() };
    let resolved = toml::to_string(config).map_err(unwritable)?;
    if let Ok(old) = std::fs::read_to_string(&path) {
        return match first_difference(&old, &resolved) {
            None => Ok(()),
            Some((was, now)) => Err(ExperimentError::OtherRun { path, was: was.into(), now: now.into() }),
        };
    }
    std::fs::create_dir_all(folder).map_err(ExperimentError::io(folder))?;
    replace(&path, &resolved)
}

/// The first line that differs, as it was and as it is.
fn first_difference<'a>(was: &'a str, now: &'a str) -> Option<(&'a str, &'a str)> {
    let (mut old, mut new) = (was.lines(), now.lines());
    let pairs = std::iter::from_fn(|| Some((old.next(), new.next())).filter(|pair| *pair != (None, None)));
    let (was, now) = pairs.into_iter().find(|(was, now)| was != now)?;
    Some((was.unwrap_or("nothing"), now.unwrap_or("nothing")))
}
