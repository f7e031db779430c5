//! A model from the command line or from a configuration file.

use anyhow::{Context, Result};
use clap::Args;
use posttrain::lora::{AdapterView, load_peft};
use posttrain::model::{
    ChatTemplate, Checkpoint, ComputeKind, Decoder, DeviceChoice, Quantise, TextTokenizer, select_device, select_kind,
};
use posttrain::train::Policy;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Which model, where, in what kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// A folder in the Hugging Face layout, or a GGUF file.
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

/// The same from the command line.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// A folder in the Hugging Face layout, or a GGUF file.
    #[arg(long, value_name = "DIR-or-GGUF")]
    model: PathBuf,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// `f32` or `bf16`; by default bf16 where the processor multiplies it fast.
    #[arg(long, value_parser = kind, default_value = "auto")]
    kind: ComputeKind,
    /// How the frozen layers are kept: `none`, `int8` or `nf4`.
    #[arg(long, value_parser = quantise, default_value = "none")]
    quantise: Quantise,
}

fn quantise(text: &str) -> Result<Quantise, String> {
    match text {
        "none" => Ok(Quantise::None),
        "int8" => Ok(Quantise::Int8),
        "nf4" => Ok(Quantise::Nf4),
        _ => Err(format!("quantise `{text}`: expected none, int8 or nf4")),
    }
}

fn kind(text: &str) -> Result<ComputeKind, String> {
    match text {
        "auto" => Ok(ComputeKind::Auto),
        "f32" => Ok(ComputeKind::F32),
        "bf16" => Ok(ComputeKind::Bf16),
        _ => Err(format!("kind `{text}`: expected auto, f32 or bf16")),
    }
}

impl ModelArgs {
    /// The same as a configuration.
    pub fn config(&self) -> ModelConfig {
        ModelConfig { path: self.model.clone(), device: self.device, kind: self.kind, quantise: self.quantise }
    }
}

/// A model with everything that goes with it.
pub struct LoadedModel {
    /// The decoder.
    pub decoder: Decoder,
    /// Its tokenizer.
    pub tokenizer: TextTokenizer,
    /// Its chat template.
    pub template: ChatTemplate,
}

impl LoadedModel {
    /// Loads a model.
    ///
    /// # Errors
    /// What is wrong with its files, or that a CUDA device was asked for and is not there.
    pub fn open(config: &ModelConfig) -> Result<Self> {
        let device = select_device(config.device)?;
        let checkpoint = Checkpoint::open(&config.path).context("the model cannot be opened")?;
        Ok(Self {
            decoder: checkpoint.decoder_quantised(config.quantise, select_kind(config.kind, device), device)?,
            tokenizer: checkpoint.tokenizer()?,
            template: checkpoint.chat_template()?,
        })
    }

    /// An adapter from a PEFT folder, in the kind that the model computes in.
    ///
    /// # Errors
    /// What is wrong with its files, or where it does not fit the model.
    pub fn adapter(&self, dir: &Path) -> Result<Rc<AdapterView>> {
        let adapter = load_peft(dir, self.decoder.modules(), self.decoder.device())?;
        Ok(Rc::new(adapter.snapshot(self.decoder.kind())?))
    }

    /// The model as a policy sees it.
    pub fn policy(&self) -> Policy<'_> {
        Policy { model: &self.decoder, tokenizer: &self.tokenizer, template: &self.template }
    }
}

/// Sends the libraries' log to standard error; `RUST_LOG` chooses what is shown, warnings by default.
pub fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,posttrain_model=info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
}
