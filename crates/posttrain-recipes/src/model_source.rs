//! A model with everything that goes with it, from a configuration.

use crate::RecipeError;
use posttrain_hub::{Files, HubConfig, HubModel, fetch};
use posttrain_model::{
    Checkpoint, ComputeKind, DeviceChoice, Quantize, TextModel, select_device, select_kind,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Which model, where, in what kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSource {
    /// A folder in the Hugging Face layout, a GGUF file, or a model of the hub as
    /// `hub:OWNER/NAME@REVISION`, which is fetched into the cache that Python shares.
    pub path: PathBuf,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    #[serde(default)]
    pub device: DeviceChoice,
    /// `auto`, `f32` or `bf16`.
    #[serde(default)]
    pub kind: ComputeKind,
    /// How the frozen layers are kept: `none`, `int8` or `nf4`.
    #[serde(default)]
    #[serde(alias = "quantise")]
    pub quantize: Quantize,
}

impl ModelSource {
    /// Loads the model; what is on the hub is fetched first.
    ///
    /// # Errors
    /// [`RecipeError::Model`]: what is wrong with its files, or that a CUDA device was asked for and is not there;
    /// [`RecipeError::Hub`]: why it cannot be fetched.
    pub fn load(&self) -> Result<TextModel, RecipeError> {
        let device = select_device(self.device)?;
        let checkpoint = Checkpoint::open(&self.folder(Files::All)?)?;
        Ok(TextModel::load(&checkpoint, self.quantize, select_kind(self.kind, device), device)?)
    }

    /// The model's configuration, tokenizer and chat template; of the hub's files only those are
    /// fetched.
    ///
    /// # Errors
    /// [`RecipeError::Model`]: what is wrong with its files; [`RecipeError::Hub`]: why they cannot be fetched.
    pub fn without_weights(&self) -> Result<Checkpoint, RecipeError> {
        Ok(Checkpoint::open(&self.folder(Files::BesideWeights)?)?)
    }

    /// Where the model's files are; what is on the hub is fetched first.
    fn folder(&self, files: Files) -> Result<PathBuf, RecipeError> {
        match self.path.to_str().and_then(|path| path.strip_prefix("hub:")) {
            Some(name) => {
                let config = HubConfig { files, ..HubConfig::from_env()? };
                Ok(fetch(&HubModel::parse(name)?, &config, &posttrain_hub::NoProgress)?.folder)
            }
            None => Ok(self.path.clone()),
        }
    }
}
