//! Supervised fine-tuning from a configuration file: answers are learned as they stand.
//!
//! ```text
//! cargo run --release -p examples --example sft -- --config examples/configs/sft.toml --out runs/sft
//! ```
//!
//! The data are questions with answers, or rows whose metadata has `messages` (OpenAI's form: an
//! assistant's message is learned unless its `weight` is 0).

use anyhow::Result;
use clap::Parser;
use examples::{RunArgs, fine_tune};
use posttrain::loss::CrossEntropy;
use posttrain::recipes::lesson::Supervised;

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    fine_tune::<CrossEntropy, _>(&RunArgs::parse(), |config, model, _, _| {
        Ok(Supervised {
            model: model.clone(),
            style: config.prompt.clone(),
            objective: config.lesson,
        })
    })
}
