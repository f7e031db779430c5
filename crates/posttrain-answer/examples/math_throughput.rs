//! Verdicts per second of the mathematics on one thread.
//!
//!     cargo run --release -p posttrain-answer --example math_throughput -- [PAIRS.jsonl] [--print]
//!
//! Without a path, on the pairs of `tests/fixtures/math_verify`, where `generate.py --time`
//! measures math-verify: the median of five rounds. `--print` writes the verdicts instead, a line
//! for a line.

use std::time::Instant;

use posttrain_answer::math::Math;
use posttrain_answer::{AnswerError, Verdict};
use serde::Deserialize;

const PAIRS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/math_verify/verdicts.jsonl");
const REPEATS: usize = 5;

#[derive(Deserialize)]
struct Pair {
    reference: String,
    response: String,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path =
        arguments.iter().find(|argument| !argument.starts_with("--")).map_or(PAIRS, String::as_str);
    let text = std::fs::read_to_string(path)?;
    let pairs = text.lines().map(serde_json::from_str).collect::<Result<Vec<Pair>, _>>()?;
    let math = Math::default();

    if arguments.iter().any(|argument| argument == "--print") {
        for pair in &pairs {
            println!("{}", verdict(&math, pair));
        }
        return Ok(());
    }

    let rounds: Vec<Round> = (0..5).map(|_| Round::of(&math, &pairs)).collect();
    let verdicts = REPEATS * pairs.len();
    println!("{} of {} right", rounds[0].right / REPEATS, pairs.len());
    println!(
        "{:.0} verdicts per second by the clock",
        verdicts as f64 / median(rounds.iter().map(|round| round.clock))
    );
    if let Some(processor) = rounds.iter().map(|round| round.processor).collect::<Option<Vec<_>>>()
    {
        println!(
            "{:.0} verdicts per second by the processor",
            verdicts as f64 / median(processor.into_iter())
        );
    }
    Ok(())
}

/// `1`, `0`, or why there is no verdict.
fn verdict(math: &Math, pair: &Pair) -> &'static str {
    match math.compare(&pair.reference, &pair.response).map(|comparison| comparison.verdict) {
        Ok(Verdict::Same) => "1",
        Ok(Verdict::Undecided(_)) => "undecided",
        Ok(_) => "0",
        Err(AnswerError::EmptyReference) => "empty_reference",
        Err(_) => "bad_reference",
    }
}

/// Every pair, several times over: how many were right, and how long it took.
struct Round {
    right: usize,
    /// Seconds by the clock.
    clock: f64,
    /// Seconds of the processor, which other work on the machine does not slow as much, where the
    /// system tells.
    processor: Option<f64>,
}

impl Round {
    fn of(math: &Math, pairs: &[Pair]) -> Self {
        let clock = Instant::now();
        let before = processor();

        let verdicts = (0..REPEATS).flat_map(|_| pairs).map(|pair| verdict(math, pair));
        let right = verdicts.filter(|verdict| *verdict == "1").count();

        let processor = before.zip(processor()).map(|(before, after)| after - before);
        Self { right, clock: clock.elapsed().as_secs_f64(), processor }
    }
}

/// What this thread has had of the processor, seconds.
fn processor() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e9)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
