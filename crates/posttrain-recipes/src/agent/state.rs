//! Saved states of several trainers.

use crate::RecipeError;
use crate::checkpoint::CheckpointConfig;
use crate::observer::{Event, Observer};
use posttrain_data::StreamState;
use posttrain_store::{Difference, Versions, read_json, recover_folder, write_json_pretty};
use posttrain_train::Trainer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where a run in environments stands, beside the trainers' own states.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgentState {
    /// Steps done.
    pub step: u64,
    /// Where the data stands.
    pub data: StreamState,
    /// The best step by validation, with its reward.
    pub best: Option<(u64, f64)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    form: String,
    run: AgentState,
    config: Value,
}

/// The form that states are written in.
const FORM: &str = "agent 1";
const RUN: &str = "run.json";

/// A run's saved states: one folder a state, with one of its own for each role.
pub(crate) struct AgentStates {
    folder: PathBuf,
    versions: Versions,
    config: CheckpointConfig,
    base_model: String,
    kept: Value,
}

impl AgentStates {
    pub fn open(
        folder: &Path,
        config: CheckpointConfig,
        base_model: &str,
        kept: Value,
    ) -> Result<Self, RecipeError> {
        let versions = Versions::open(&folder.join("checkpoints"), "step")?;
        Ok(Self { folder: folder.into(), versions, config, base_model: base_model.into(), kept })
    }

    /// Takes the newest good state up into the trainers.
    pub fn load(
        &self,
        trainers: &mut BTreeMap<String, Trainer>,
        observer: &mut dyn Observer,
    ) -> Result<AgentState, RecipeError> {
        for role in trainers.keys() {
            for adapter in ["best", "last"] {
                recover_folder(&self.folder.join(role).join(adapter))?;
            }
        }
        let Some(newest) = self.versions.newest()? else { return Ok(AgentState::default()) };
        for damage in &newest.damaged {
            let text = format!("{damage}; the run goes on from step {}", newest.number);
            observer.see(&Event::Note { text: &text });
        }

        let path = newest.path.join(RUN);
        let saved: Saved = read_json(&path)?;
        if let Some(difference) = Difference::between(&saved.config, &self.kept) {
            return Err(RecipeError::OtherRun { path, difference });
        }
        for (role, trainer) in trainers {
            trainer.load_state(&newest.path.join(role))?;
        }
        Ok(saved.run)
    }

    /// Saves where a run stands, and each role's adapter as `<role>/last`.
    pub fn save(
        &self,
        state: &AgentState,
        trainers: &BTreeMap<String, Trainer>,
    ) -> Result<(), RecipeError> {
        for (role, trainer) in trainers {
            trainer.save_adapter(&self.folder.join(role).join("last"), &self.base_model)?;
        }
        let saved = Saved { form: FORM.into(), run: state.clone(), config: self.kept.clone() };
        self.versions.write(state.step, |fresh| -> Result<(), RecipeError> {
            for (role, trainer) in trainers {
                trainer.state()?.save(&fresh.join(role))?;
            }
            Ok(write_json_pretty(&fresh.join(RUN), &saved)?)
        })?;

        Ok(self.config.retain(&self.versions, state.best.map(|(step, _)| step))?)
    }

    /// Whether a state is due after a step.
    pub fn due(&self, every: u64, state: &AgentState) -> bool {
        self.config.due(every, state.step, state.best.map(|(step, _)| step))
    }

    /// Keeps the adapters of the best step as `<role>/best`.
    pub fn keep_best(&self, trainers: &BTreeMap<String, Trainer>) -> Result<(), RecipeError> {
        for (role, trainer) in trainers {
            trainer.save_adapter(&self.folder.join(role).join("best"), &self.base_model)?;
        }
        Ok(())
    }
}
