//! Everything that a run needs to go on: one folder, replaced as a whole.

use crate::config::RlConfig;
use crate::folder::{read_json, recover_folder, replace_folder, write_json};
use crate::{TrainError, Trainer};
use posttrain_data::StreamState;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// The best step so far by validation accuracy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BestStep {
    /// The step.
    pub step: u64,
    /// Its accuracy at temperature 1.
    pub accuracy: f64,
}

/// Where a run stands, beside the trainer's own state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Steps done.
    pub step: u64,
    /// Where the data stands.
    pub data: StreamState,
    /// The best step so far.
    pub best: Option<BestStep>,
    /// Seconds of work so far, over all the processes that did it.
    pub seconds: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    run: RunState,
    config: Value,
}

const RUN: &str = "run.json";

impl RunState {
    /// What a run's folder says of its last saved state, without anything else of it; none where nothing is saved yet.
    ///
    /// # Errors
    /// [`TrainError::Io`] or [`TrainError::Json`] for a file that cannot be read.
    pub fn peek(run: &Path) -> Result<Option<Self>, TrainError> {
        let path = run.join("state").join(RUN);
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(read_json::<Saved>(&path)?.run))
    }

    /// Writes a run's state to `dir`, whole or not at all.
    pub(crate) fn save(&self, dir: &Path, trainer: &Trainer, config: &RlConfig) -> Result<(), TrainError> {
        let saved = Saved { run: self.clone(), config: as_json(config)? };
        replace_folder(dir, |fresh| {
            trainer.save_state(fresh)?;
            write_json(&fresh.join(RUN), &saved)
        })
    }

    /// Reads a run's state, if there is one, into the trainer. The configuration must be the one that it was begun with.
    pub(crate) fn load(dir: &Path, trainer: &mut Trainer, config: &RlConfig) -> Result<Option<Self>, TrainError> {
        recover_folder(dir)?;
        let path = dir.join(RUN);
        if !path.exists() {
            return Ok(None);
        }
        let saved: Saved = read_json(&path)?;
        let now = as_json(config)?;
        if let Some((field, was, now)) = first_difference("", &saved.config, &now) {
            return Err(TrainError::OtherRun { path, field, was, now });
        }
        trainer.load_state(dir)?;
        Ok(Some(saved.run))
    }
}

/// The configuration without what does not touch the numbers: how often a state is saved, how many samples are logged.
fn as_json(config: &RlConfig) -> Result<Value, TrainError> {
    let free = RlConfig { logged_samples: 0, checkpoint_every: 1, ..config.clone() };
    serde_json::to_value(free).map_err(|source| TrainError::Json { path: RUN.into(), line: 0, source })
}

fn first_difference(path: &str, was: &Value, now: &Value) -> Option<(String, String, String)> {
    match (was, now) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|k| !a.contains_key(*k)));
            keys.into_iter().find_map(|key| {
                let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                first_difference(&inner, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null))
            })
        }
        _ if was == now => None,
        _ => Some((path.into(), was.to_string(), now.to_string())),
    }
}
