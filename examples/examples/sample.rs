//! Samples completions of conversations.
//!
//! ```text
//! cargo run --release -p examples --example sample -- --model DIR-or-GGUF [--adapter PEFT-DIR] --max-tokens 64 \
//!     --temperature 1 --seed 0 -n 4 < messages.jsonl > completions.jsonl
//! ```
//!
//! A line in is `{"messages": [...]}`, the bare list of messages, `{"text": "..."}` to be continued,
//! or `{"tokens": [...]}`; a line out is a completion with its place (`prompt`,
//! `sample`), `text`, `tokens`, `logprobs` and `finish_reason`, in the order of the prompts. A
//! prompt that cannot be sampled from has one line with its `error`, and the others are not
//! touched.

use anyhow::Result;
use clap::Parser;
use examples::{ModelArgs, TextLine, log_to_stderr, read_lines};
use posttrain::recipes::load_policy;
use posttrain::rollout::{Engine, EngineConfig, FinishReason, Outcome, Request, SamplingParams};
use posttrain::train::derive_seed;
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

/// Samples completions of the conversations on standard input.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// A PEFT folder to sample with.
    #[arg(long, value_name = "PEFT-DIR")]
    adapter: Option<PathBuf>,
    /// Tokens of a completion at most.
    #[arg(long, default_value_t = 256)]
    max_tokens: usize,
    /// Tokens of a completion at least.
    #[arg(long, default_value_t = 0)]
    min_tokens: usize,
    /// 0 takes the most probable token every time.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    temperature: f64,
    /// Keep the K most probable tokens.
    #[arg(long)]
    top_k: Option<usize>,
    /// Keep the smallest set of tokens with this probability together.
    #[arg(long)]
    top_p: Option<f64>,
    /// Keep tokens at least this share as probable as the most probable one.
    #[arg(long)]
    min_p: Option<f64>,
    /// A text that ends a completion; may be given several times.
    #[arg(long)]
    stop: Vec<String>,
    /// The same seed samples the same completions.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Completions of each prompt.
    #[arg(short = 'n', long, default_value_t = 1, value_parser = at_least_one)]
    samples: usize,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Line {
    Completion {
        prompt: usize,
        sample: usize,
        text: String,
        tokens: Vec<i64>,
        logprobs: Vec<f32>,
        finish_reason: FinishReason,
    },
    Error {
        prompt: usize,
        error: String,
    },
}

impl Args {
    fn params(&self, prompt: usize) -> SamplingParams {
        SamplingParams {
            max_tokens: self.max_tokens,
            min_tokens: self.min_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            stop_token_ids: Vec::new(),
            stop: self.stop.clone(),
            seed: derive_seed(self.seed, "sample", 0, prompt as u64),
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|n| *n >= 1)
        .ok_or_else(|| "expected a whole number, at least 1".into())
}

fn line(outcome: Outcome) -> Line {
    match outcome.result {
        Ok(c) => Line::Completion {
            prompt: outcome.request,
            sample: outcome.sample,
            text: c.text,
            tokens: c.tokens,
            logprobs: c.logprobs,
            finish_reason: c.finish_reason,
        },
        Err(error) => Line::Error { prompt: outcome.request, error: error.to_string() },
    }
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    log_to_stderr();
    let args = Args::parse();
    args.params(0).validate()?;
    let prompts: Vec<TextLine> = read_lines(std::io::stdin().lock())?;
    let model = args.model.open()?;
    let policy = args.adapter.as_ref().map(|dir| load_policy(dir, &model.decoder)).transpose()?;
    let mut engine =
        Engine::new(model.decoder.clone(), Some(model.tokenizer.clone()), EngineConfig::default())?;
    for (index, prompt) in prompts.iter().enumerate() {
        let tokens = prompt.encode(&model, true)?;
        engine.submit(
            Request::new(tokens, args.params(index)).samples(args.samples).policy(policy.clone()),
        );
    }
    let mut outcomes = Vec::new();
    engine.run(|outcome| outcomes.push(outcome))?;
    outcomes.sort_by_key(|o| (o.request, o.sample));
    let mut out = std::io::stdout().lock();
    for outcome in outcomes {
        serde_json::to_writer(&mut out, &line(outcome))?;
        writeln!(out)?;
    }
    Ok(())
}
