//! A model with everything that goes with it, from a configuration.

use crate::{Policy, TrainError};
use posttrain_hub::{Files, HubConfig, HubModel, fetch};
use posttrain_lora::{AdapterView, load_peft};
use posttrain_model::{
    ChatTemplate, Checkpoint, ComputeKind, Decoder, DeviceChoice, Quantise, TextTokenizer, select_device, select_kind,
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Which model, where, in what kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSource {
    /// A folder in the Hugging Face layout, a GGUF file, or a model of the hub as `hub:OWNER/NAME@REVISION`, which is fetched
    /// into the cache that Python shares.
    pub path: PathBuf,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    #[serde(default)]
    pub device: DeviceChoice,
    /// `auto`, `f32` or `bf16`.
    #[serde(default)]
    pub kind: ComputeKind,
    /// How the frozen layers are kept: `none`, `int8` or `nf4`.
    #[serde(default)]
    pub quantise: Quantise,
}

/// A model with its tokenizer and its chat template.
pub struct LoadedModel {
    /// The decoder.
    pub decoder: Decoder,
    /// Its tokenizer.
    pub tokenizer: TextTokenizer,
    /// Its chat template.
    pub template: ChatTemplate,
}

impl ModelSource {
    /// The model's configuration, tokenizer and chat template; of the hub's files only those are fetched.
    ///
    /// # Errors
    /// [`TrainError::Model`]: what is wrong with its files; [`TrainError::Hub`]: why they cannot be fetched.
    pub fn without_weights(&self) -> Result<Checkpoint, TrainError> {
        Ok(Checkpoint::open(&self.folder(Files::BesideWeights)?)?)
    }

    /// Where the model's files are; what is on the hub is fetched first.
    fn folder(&self, files: Files) -> Result<PathBuf, TrainError> {
        match self.path.to_str().and_then(|path| path.strip_prefix("hub:")) {
            Some(name) => {
                let config = HubConfig { files, ..HubConfig::from_env()? };
                Ok(fetch(&HubModel::parse(name)?, &config, &posttrain_hub::Silent)?.folder)
            }
            None => Ok(self.path.clone()),
        }
    }
}

impl LoadedModel {
    /// Loads a model.
    ///
    /// # Errors
    /// [`TrainError::Model`]: what is wrong with its files, or that a CUDA device was asked for and is not there;
    /// [`TrainError::Hub`]: why it cannot be fetched.
    pub fn open(source: &ModelSource) -> Result<Self, TrainError> {
        let device = select_device(source.device)?;
        let checkpoint = Checkpoint::open(&source.folder(Files::All)?)?;
        Ok(Self {
            decoder: checkpoint.decoder_quantised(source.quantise, select_kind(source.kind, device), device)?,
            tokenizer: checkpoint.tokenizer()?,
            template: checkpoint.chat_template()?,
        })
    }

    /// An adapter from a PEFT folder, in the kind that the model computes in.
    ///
    /// # Errors
    /// [`TrainError::Lora`]: what is wrong with its files, or where it does not fit the model.
    pub fn adapter(&self, folder: &Path) -> Result<Rc<AdapterView>, TrainError> {
        let adapter = load_peft(folder, self.decoder.modules(), self.decoder.device())?;
        Ok(Rc::new(adapter.snapshot(self.decoder.kind())?))
    }

    /// The model as a policy sees it.
    pub fn policy(&self) -> Policy<'_> {
        Policy { model: &self.decoder, tokenizer: &self.tokenizer, template: &self.template }
    }
}
