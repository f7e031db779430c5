//! Verifies responses: JSON lines in, JSON lines out, a line for a line, in order.
//!
//! ```text
//! cargo run --release -p examples --example verify -- --verifier math < in.jsonl > out.jsonl
//! cargo run --release -p examples --example verify -- --verifier regex --config regex.toml < in.jsonl > out.jsonl
//! ```
//!
//! In: `{"reference": "…", "response": "…"}`, and where the verifier wants it `"question"` and whatever else the row has
//! (`"options"` for `choice`). Out: `{"reward": 0.0…1.0}`, or `{"error": "…"}` where the verifier cannot say or the line is
//! malformed. `--config` is a TOML file with the fields of the verifier's config (`MathConfig`, `ListConfig`, …).

use std::io::{self, BufRead, BufWriter, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use examples::{Row, VerifierKind};
use posttrain::reward::{Sample, Verifier};
use serde_json::{Value, json};

/// The longest line that is read, in bytes.
const MAX_LINE: u64 = 16 << 20;

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

fn main() -> Result<()> {
    let args = Args::parse();
    let verifier = args.verifier.build(args.config.as_deref())?;
    let mut input = io::stdin().lock();
    let mut output = BufWriter::new(io::stdout().lock());
    while let Some(line) = read_line(&mut input)? {
        writeln!(output, "{}", verdict(&*verifier, line))?;
    }
    output.flush().context("writing the verdicts")
}

/// The next line without its end, or why it is none; `None` at the end of the input.
fn read_line(input: &mut impl BufRead) -> Result<Option<Result<String, String>>> {
    let mut bytes = Vec::new();
    if input.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes).context("reading a line")? == 0 {
        return Ok(None);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    } else if bytes.len() as u64 == MAX_LINE {
        skip_line(input)?;
        return Ok(Some(Err(format!("the line is longer than {MAX_LINE} bytes"))));
    }
    Ok(Some(String::from_utf8(bytes).map_err(|error| format!("the line is not UTF-8: {error}"))))
}

/// Goes on to the next line without keeping what is left of this one.
fn skip_line(input: &mut impl BufRead) -> Result<()> {
    loop {
        let buffer = input.fill_buf().context("reading a line")?;
        let (length, ends) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        input.consume(length);
        if ends {
            return Ok(());
        }
    }
}

fn verdict(verifier: &dyn Verifier, line: Result<String, String>) -> Value {
    let row =
        line.and_then(|line| serde_json::from_str::<Row>(&line).map_err(|error| format!("malformed line: {error}")));
    let sample = match row {
        Ok(row) => Sample::from(row),
        Err(error) => return json!({ "error": error }),
    };
    match verifier.verify(&sample) {
        Ok(score) => json!({ "reward": score.value() }),
        Err(error) => json!({ "error": error.to_string() }),
    }
}
