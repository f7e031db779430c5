//! Everything that a run needs to go on: one folder, replaced as a whole.

use crate::RecipeError;
use crate::queue::SavedRollout;
use crate::rollout::Rollout;
use posttrain_data::StreamState;
use posttrain_store::{
    Difference, StoreError, read_json, read_json_if_there, recover_folder, replace_folder,
    write_json, write_json_pretty,
};
use posttrain_train::Trainer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::VecDeque;
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
    /// Ids of examples that were taken from the data and have not been trained on, in an
    /// asynchronous run by arrival: they are sampled again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_flight: Vec<String>,
    /// Groups submitted so far in such a run.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub submitted: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    run: RunState,
    config: Value,
}

const RUN: &str = "run.json";
/// Batches that were sampled and not trained on, in an asynchronous run in the data's order.
const QUEUE: &str = "queue.json";

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

    /// Writes a run's state, with what waits to be trained on, to `dir`: whole or not at all.
    pub(crate) fn save<'a>(
        &self,
        dir: &Path,
        trainer: &Trainer,
        config: &Value,
        queue: impl IntoIterator<Item = &'a Rollout>,
    ) -> Result<(), RecipeError> {
        let saved = Saved { run: self.clone(), config: config.clone() };
        let queue: Vec<SavedRollout> = queue.into_iter().map(SavedRollout::from).collect();
        replace_folder(dir, |fresh| {
            trainer.save_state(fresh)?;
            if !queue.is_empty() {
                write_json(&fresh.join(QUEUE), &queue)?;
            }
            Ok(write_json_pretty(&fresh.join(RUN), &saved)?)
        })
    }

    /// Reads a run's state, if there is one, into the trainer, and what waited to be trained on.
    /// The configuration must be the one that it was begun with. Folders that a killed process was
    /// replacing are put back.
    pub(crate) fn load(
        run: &Path,
        trainer: &mut Trainer,
        config: &Value,
    ) -> Result<Option<(Self, VecDeque<Rollout>)>, RecipeError> {
        for folder in ["state", "best", "last"] {
            recover_folder(&run.join(folder))?;
        }

        let dir = &run.join("state");
        let path = dir.join(RUN);
        if !path.exists() {
            return Ok(None);
        }
        let saved: Saved = read_json(&path)?;
        if let Some(difference) = Difference::between(&saved.config, config) {
            return Err(RecipeError::OtherRun { path, difference });
        }
        let queue: Option<Vec<SavedRollout>> = read_json_if_there(&dir.join(QUEUE))?;
        trainer.load_state(dir)?;
        let queue = queue.unwrap_or_default().into_iter().map(Rollout::from).collect();
        Ok(Some((saved.run, queue)))
    }
}

/// A configuration in the form that a saved state is compared by.
pub(crate) fn kept_config(config: &impl Serialize) -> Result<Value, RecipeError> {
    Ok(serde_json::to_value(config)
        .map_err(|source| StoreError::Unwritable { path: RUN.into(), source })?)
}
