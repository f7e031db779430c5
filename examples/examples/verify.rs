//! Verifies responses: JSON lines in, JSON lines out, a line for a line, in order.
//!
//! ```text
//! cargo run --release -p examples --example verify -- --verifier math < in.jsonl > out.jsonl
//! cargo run --release -p examples --example verify -- --verifier regex --config regex.toml < in.jsonl > out.jsonl
//! ```
//!
//! In: `{"reference": "…", "response": "…"}`, and where the verifier wants it `"question"` and
//! whatever else the row has (`"options"` for `choice`). Out: `{"reward": 0.0…1.0}`, or
//! `{"error": "…"}` where the verifier cannot say or the line is malformed. `--config` is a TOML
//! file with the fields of the verifier's config (`MathConfig`, `ListConfig`, …).

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use examples::{Row, VerifierKind, each_line};
use posttrain::reward::{Sample, Verifier};
use serde_json::{Value, json};

/// Verifies responses against references, line by line.
#[derive(Parser)]
struct Args {
    /// What verifies.
    #[arg(long, value_enum)]
    verifier: VerifierKind,
    /// A TOML file with the fields of the verifier's config [default: the defaults].
    #[arg(long)]
    config: Option<PathBuf>,
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    let args = Args::parse();
    let verifier = args.verifier.build(args.config.as_deref())?;
    let mut output = BufWriter::new(io::stdout().lock());
    for (row, line) in each_line::<Row>(io::stdin().lock()).zip(1..) {
        let sample = row?.map(|row| row.into_sample(line));
        writeln!(output, "{}", verdict(&*verifier, sample))?;
    }
    output.flush().context("writing the verdicts")
}

fn verdict(verifier: &dyn Verifier, sample: Result<Sample, String>) -> Value {
    match sample.map(|sample| verifier.verify(&sample)) {
        Ok(Ok(score)) => json!({ "reward": score.value() }),
        Ok(Err(error)) => json!({ "error": format!("{:#}", anyhow::Error::from(error)) }),
        Err(error) => json!({ "error": error }),
    }
}
