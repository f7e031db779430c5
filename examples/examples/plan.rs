//! What a run will hold in memory, and whether it fits, before anything is loaded.
//!
//! ```text
//! cargo run --release -p examples --example plan -- --model examples/configs/shapes/qwen3-8b.json --rank 128 --budget-gb 80 \
//!     --beside examples/configs/shapes/qwen3-4b.json
//! ```
//!
//! In: a model's `config.json`, or the folder that it lies in. Out: a table of bytes by what holds
//! them.

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use posttrain::lora::LoraConfig;
use posttrain::model::{ModelConfig, ModelSize, Quantize};
use posttrain::train::{GradientCheckpointing, MemoryPlan, PlanRequest, TrainerConfig};
use std::path::{Path, PathBuf};
use tch::{Device, Kind};

/// Plans a run's memory.
#[derive(Parser)]
struct Args {
    /// A `config.json`, or a folder with one.
    #[arg(long)]
    model: PathBuf,
    /// Other models on the same device (a judge, a router), weights alone.
    #[arg(long)]
    beside: Vec<PathBuf>,
    /// How the frozen layers of all of them are kept.
    #[arg(long, alias = "quantise", value_enum, default_value = "none")]
    quantize: Form,
    /// Compute in f32 rather than bf16.
    #[arg(long)]
    f32: bool,
    /// Plan for the CPU, whose attention keeps less for the way back, rather than for a GPU.
    #[arg(long)]
    cpu: bool,
    /// Rank of the adapter.
    #[arg(long, default_value_t = 128)]
    rank: i64,
    /// Tokens of one pass.
    #[arg(long, default_value_t = 16_384)]
    micro_batch_tokens: usize,
    /// Keep everything for the way back rather than each block's input.
    #[arg(long)]
    no_checkpointing: bool,
    /// Threads that share a step; 1 on a GPU.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Samples decoded side by side.
    #[arg(long, default_value_t = 128)]
    rows: usize,
    /// Tokens of a prompt.
    #[arg(long, default_value_t = 512)]
    prompt_tokens: usize,
    /// Tokens of a completion.
    #[arg(long, default_value_t = 1024)]
    completion_tokens: usize,
    /// Completions of a prompt.
    #[arg(long, default_value_t = 8)]
    group_size: usize,
    /// Memory of the device, in GB (10⁹ bytes).
    #[arg(long)]
    budget_gb: Option<f64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    None,
    Int8,
    Nf4,
}

impl From<Form> for Quantize {
    fn from(form: Form) -> Self {
        match form {
            Form::None => Self::None,
            Form::Int8 => Self::Int8,
            Form::Nf4 => Self::Nf4,
        }
    }
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    let args = Args::parse();
    let (model, quantize) = (read(&args.model)?, Quantize::from(args.quantize));
    let kind = if args.f32 { Kind::Float } else { Kind::BFloat16 };
    println!("{}: {}\n", args.model.display(), ModelSize::of(&model, quantize, kind));
    let plan = plan(&args, &model, quantize, kind)?;
    print!("{plan}");
    let mut peak = plan.peak();
    for path in &args.beside {
        let size = ModelSize::of(&read(path)?, quantize, kind);
        println!(
            "{:<30}{:>12.3} GB",
            format!("beside: {}", name(path)),
            size.memory_bytes as f64 / 1e9
        );
        peak += size.memory_bytes as u64;
    }
    println!("{:<30}{:>12.3} GB", "at most", peak as f64 / 1e9);
    if let Some(budget) = args.budget_gb {
        let left = budget - peak as f64 / 1e9;
        let verdict = if left >= 0.0 { "fits" } else { "DOES NOT FIT" };
        println!(
            "{verdict}: {left:.3} GB of {budget} left, for what libtorch and the driver take besides"
        );
    }
    Ok(())
}

fn plan(args: &Args, model: &ModelConfig, quantize: Quantize, kind: Kind) -> Result<MemoryPlan> {
    let lora = LoraConfig { rank: args.rank, ..LoraConfig::default() };
    let checkpointing = if args.no_checkpointing {
        GradientCheckpointing::Off
    } else {
        GradientCheckpointing::Blocks
    };
    let trainer = TrainerConfig {
        micro_batch_tokens: args.micro_batch_tokens,
        checkpointing,
        ..TrainerConfig::default()
    };
    lora.validate()?;
    trainer.validate()?;
    let counts = [("workers", args.workers), ("rows", args.rows), ("group-size", args.group_size)];
    if let Some((name, _)) = counts.iter().find(|(_, count)| *count == 0) {
        bail!("--{name} must be at least 1, got 0");
    }
    Ok(MemoryPlan::of(&PlanRequest {
        model,
        quantize,
        kind,
        device: if args.cpu { Device::Cpu } else { Device::Cuda(0) },
        lora: &lora,
        trainer,
        workers: args.workers,
        rows: args.rows,
        prompt_tokens: args.prompt_tokens,
        completion_tokens: args.completion_tokens,
        group_size: args.group_size,
        record_mib: 0,
    }))
}

fn read(path: &Path) -> Result<ModelConfig> {
    let file = if path.is_dir() { path.join("config.json") } else { path.to_path_buf() };
    ModelConfig::from_json_file(&file).context("the model cannot be planned for")
}

fn name(path: &Path) -> String {
    path.file_stem()
        .map_or_else(|| path.display().to_string(), |stem| stem.to_string_lossy().into_owned())
}
