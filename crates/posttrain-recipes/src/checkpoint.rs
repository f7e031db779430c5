//! Everything that a run needs to go on: one folder, replaced as a whole.

use crate::RecipeError;
use crate::config::RlConfig;
use posttrain_data::StreamState;
use posttrain_store::{
    Difference, StoreError, read_json, read_json_if_there, recover_folder, replace_folder,
    write_json_pretty,
};
use posttrain_train::Trainer;
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
    /// What a run's folder says of its last saved state, without anything else of it; none where
    /// nothing is saved yet.
    ///
    /// # Errors
    /// [`RecipeError::Store`] for a file that cannot be read.
    pub fn peek(run: &Path) -> Result<Option<Self>, RecipeError> {
        let saved = read_json_if_there::<Saved>(&run.join("state").join(RUN))?;
        Ok(saved.map(|saved| saved.run))
    }

    /// Writes a run's state to `dir`, whole or not at all.
    pub(crate) fn save(
        &self,
        dir: &Path,
        trainer: &Trainer,
        config: &RlConfig,
    ) -> Result<(), RecipeError> {
        let saved = Saved { run: self.clone(), config: as_json(config)? };
        replace_folder(dir, |fresh| {
            trainer.save_state(fresh)?;
            Ok(write_json_pretty(&fresh.join(RUN), &saved)?)
        })
    }

    /// Reads a run's state, if there is one, into the trainer. The configuration must be the one
    /// that it was begun with.
    pub(crate) fn load(
        dir: &Path,
        trainer: &mut Trainer,
        config: &RlConfig,
    ) -> Result<Option<Self>, RecipeError> {
        recover_folder(dir)?;
        let path = dir.join(RUN);
        if !path.exists() {
            return Ok(None);
        }
        let saved: Saved = read_json(&path)?;
        let now = as_json(config)?;
        if let Some(difference) = Difference::between(&saved.config, &now) {
            return Err(RecipeError::OtherRun { path, difference });
        }
        trainer.load_state(dir)?;
        Ok(Some(saved.run))
    }
}

/// The configuration without what does not touch the numbers: how often a state is saved, how many
/// samples are logged.
fn as_json(config: &RlConfig) -> Result<Value, RecipeError> {
    let free = RlConfig { logged_samples: 0, checkpoint_every: 1, ..config.clone() };
    Ok(serde_json::to_value(free)
        .map_err(|source| StoreError::Unwritable { path: RUN.into(), source })?)
}
