//! Log-probabilities of texts under a model, with an adapter or without.
//!
//! ```text
//! cargo run --release -p examples --example logprobs -- --model DIR-or-GGUF [--adapter PEFT-DIR] [--kind f32] < in.jsonl > out.jsonl
//! ```
//!
//! A line in is `{"tokens": [...]}`, `{"text": "..."}` or `{"messages": [...]}`; a line out is
//! `{"tokens": [...], "logprobs": [...]}`, in nats, the first token's `null`, since nothing comes
//! before it.

use anyhow::{Context, Result};
use clap::Parser;
use examples::{ModelArgs, TextLine, log_to_stderr, read_lines};
use posttrain::recipes::load_policy;
use posttrain::train::score_texts;
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

/// Scores texts from standard input.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// A PEFT folder to score with.
    #[arg(long, value_name = "PEFT-DIR")]
    adapter: Option<PathBuf>,
    /// End conversations where the assistant's answer begins.
    #[arg(long)]
    generation_prompt: bool,
}

#[derive(Serialize)]
struct Scored {
    tokens: Vec<i64>,
    logprobs: Vec<Option<f32>>,
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    log_to_stderr();
    let args = Args::parse();
    let texts: Vec<TextLine> = read_lines(std::io::stdin().lock())?;
    let model = args.model.open()?;
    let policy = args.adapter.as_ref().map(|dir| load_policy(dir, &model.decoder)).transpose()?;
    let adapter = policy.as_ref().map(|policy| &*policy.adapter);
    let mut out = std::io::stdout().lock();
    for (index, text) in texts.into_iter().enumerate() {
        let tokens = text.encode(&model, args.generation_prompt)?;
        let scores = score_texts(&model.decoder, adapter, std::slice::from_ref(&tokens))
            .with_context(|| format!("text {} of standard input", index + 1))?;
        let logprobs =
            std::iter::once(None).chain(scores[0].logprobs.iter().copied().map(Some)).collect();
        serde_json::to_writer(&mut out, &Scored { tokens, logprobs })?;
        writeln!(out)?;
    }
    Ok(())
}
