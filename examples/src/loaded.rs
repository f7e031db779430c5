//! A model from the command line, and the libraries' log.

use anyhow::{Context, Result};
use clap::Args;
use posttrain::model::{
    Checkpoint, ComputeKind, Decoder, DeviceChoice, Quantize, TextModel, select_device, select_kind,
};
use posttrain::recipes::ModelSource;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Which model, where, in what kind.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// A folder in the Hugging Face layout, or a GGUF file.
    #[arg(long, value_name = "DIR-or-GGUF")]
    model: PathBuf,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// `f32` or `bf16`; by default bf16 where the processor multiplies it fast.
    #[arg(long, default_value = "auto")]
    kind: ComputeKind,
    /// How the frozen layers are kept: `none`, `int8` or `nf4`.
    #[arg(long, alias = "quantise", default_value = "none")]
    quantize: Quantize,
}

impl ModelArgs {
    /// Loads it.
    ///
    /// # Errors
    /// What is wrong with its files, or that a CUDA device was asked for and is not there.
    pub fn open(&self) -> Result<TextModel> {
        let source = ModelSource {
            path: self.model.clone(),
            device: self.device,
            kind: self.kind,
            quantize: self.quantize,
        };
        source.load().context("the model cannot be opened")
    }

    /// Loads its weights alone: neither tokenizer nor chat template has to be there.
    ///
    /// # Errors
    /// Those of [`ModelArgs::open`].
    pub fn open_weights(&self) -> Result<Decoder> {
        let device = select_device(self.device)?;
        let kind = select_kind(self.kind, device);
        let decoder = Checkpoint::open(&self.model)
            .and_then(|c| c.decoder_quantized(self.quantize, kind, device));
        decoder.context("the model cannot be opened")
    }

    /// How the frozen layers are kept.
    #[must_use]
    pub fn quantize(&self) -> Quantize {
        self.quantize
    }
}

/// Sends the libraries' log to standard error; `RUST_LOG` chooses what is shown, warnings by
/// default.
pub fn log_to_stderr() {
    tracing_subscriber::registry().with(stderr_log()).init();
}

/// Besides, writes what a run's phases took as a Chrome trace, for `chrome://tracing` or
/// <https://ui.perfetto.dev>. The file is whole when what is returned is dropped.
///
/// # Errors
/// Names the file that cannot be written.
pub fn log_and_trace(path: Option<&Path>) -> Result<Option<tracing_chrome::FlushGuard>> {
    let Some(path) = path else {
        log_to_stderr();
        return Ok(None);
    };
    let file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
    let (chrome, guard) = tracing_chrome::ChromeLayerBuilder::new()
        .writer(std::io::BufWriter::new(file))
        .include_args(true)
        .build();
    let chrome = chrome.with_filter(EnvFilter::new("off,posttrain_recipes=info"));
    tracing_subscriber::registry().with(stderr_log()).with(chrome).init();
    Ok(Some(guard))
}

fn stderr_log() -> impl Layer<tracing_subscriber::Registry> {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,posttrain_model=info"));
    let colors = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    log.with_target(false).with_ansi(colors).with_filter(filter)
}
