//! What going on needs of a trainer, and how it is written.

use crate::TrainError;
use posttrain_lora::{Adapter, save_peft};
use posttrain_optim::AdamW;
use posttrain_store::{read_json, read_json_if_there, replace_folder, write_json_pretty};
use posttrain_tensor::{read_tensors, write_tensors};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const ADAPTER: &str = "adapter";
const OPTIMIZER: &str = "optimizer.safetensors";
const TRAINER: &str = "trainer.json";
const GRADIENT: &str = "gradient.safetensors";
const COLLECTED: &str = "collected.json";

/// Everything that going on needs of a trainer at one moment: adapter, moments, counters, in tensors
/// of its own ([`Trainer::state`](crate::Trainer::state)).
#[derive(Debug)]
pub struct TrainerState {
    adapter: Adapter,
    optimizer: AdamW,
    policy_version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    policy_version: u64,
    optimizer_steps: u64,
}

/// What is known of a gradient that is not applied yet.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Collected {
    micro_batches: u64,
}

impl TrainerState {
    pub(crate) fn new(adapter: Adapter, optimizer: AdamW, policy_version: u64) -> Self {
        Self { adapter, optimizer, policy_version }
    }

    /// Writes it into a folder, as [`Trainer::save_state`](crate::Trainer::save_state) does.
    ///
    /// # Errors
    /// [`TrainError::Store`] or [`TrainError::Lora`] names what could not be written.
    pub fn save(&self, dir: &Path) -> Result<(), TrainError> {
        save(dir, &self.adapter, &self.optimizer, self.policy_version)
    }

    /// Writes the adapter as a PEFT folder, whole or not at all.
    ///
    /// # Errors
    /// As [`TrainerState::save`].
    pub fn save_adapter(&self, dir: &Path, base_model: &str) -> Result<(), TrainError> {
        save_adapter(&self.adapter, dir, base_model)
    }
}

pub(crate) fn save(
    dir: &Path,
    adapter: &Adapter,
    optimizer: &AdamW,
    policy_version: u64,
) -> Result<(), TrainError> {
    save_peft(adapter, &adapter_folder(dir), "")?;
    optimizer.save(&dir.join(OPTIMIZER))?;
    let saved = Saved { policy_version, optimizer_steps: optimizer.steps() };
    Ok(write_json_pretty(&dir.join(TRAINER), &saved)?)
}

/// Writes a gradient that is not applied yet, and the passes that it came from, which dropout's next
/// masks follow.
pub(crate) fn save_gradient(
    dir: &Path,
    adapter: &Adapter,
    micro_batches: u64,
) -> Result<(), TrainError> {
    let named = adapter.parameters().into_iter().zip(adapter.gradients()?);
    let there = named.filter_map(|((name, _), gradient)| Some((name, gradient?)));
    write_tensors(&dir.join(GRADIENT), &there.collect::<Vec<_>>())?;
    Ok(write_json_pretty(&dir.join(COLLECTED), &Collected { micro_batches })?)
}

/// Gives an adapter the gradient that was written; the passes that it came from, or none where there
/// is none.
pub(crate) fn load_gradient(dir: &Path, adapter: &Adapter) -> Result<Option<u64>, TrainError> {
    let Some(collected) = read_json_if_there::<Collected>(&dir.join(COLLECTED))? else {
        return Ok(None);
    };
    let path = dir.join(GRADIENT);
    let mut written = read_tensors(&path)?;
    let mut gradients = Vec::new();
    for (name, parameter) in adapter.parameters() {
        let gradient = written.remove(&name);
        if gradient.as_ref().is_some_and(|gradient| gradient.size() != parameter.size()) {
            let reason = format!("the gradient of `{name}` has another shape");
            return Err(TrainError::State { path, reason });
        }
        gradients.push(gradient);
    }
    if let Some(name) = written.into_keys().next() {
        let reason = format!("`{name}` is the gradient of nothing");
        return Err(TrainError::State { path, reason });
    }
    let _guard = tch::no_grad_guard();
    adapter.set_gradients(&gradients)?;
    Ok(Some(collected.micro_batches))
}

pub(crate) fn save_adapter(
    adapter: &Adapter,
    dir: &Path,
    base_model: &str,
) -> Result<(), TrainError> {
    replace_folder(dir, |fresh| Ok(save_peft(adapter, fresh, base_model)?))
}

/// Where a folder that [`Trainer::save_state`](crate::Trainer::save_state) wrote has its adapter, in
/// PEFT's form.
#[must_use]
pub fn adapter_folder(dir: &Path) -> PathBuf {
    dir.join(ADAPTER)
}

/// A state's optimizer over an adapter that was read from it, and its policy version.
pub(crate) fn load_optimizer(dir: &Path, adapter: &Adapter) -> Result<(AdamW, u64), TrainError> {
    let saved: Saved = read_json(&dir.join(TRAINER))?;
    let mut optimizer = AdamW::new(adapter.parameters())?;
    optimizer.load(&dir.join(OPTIMIZER), saved.optimizer_steps)?;
    Ok((optimizer, saved.policy_version))
}
