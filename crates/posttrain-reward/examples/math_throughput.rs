//! Verdicts a second of the mathematics verifier on one thread.
//!
//!     cargo run --release -p posttrain-reward --example math_throughput -- [PAIRS.jsonl] [--print]
//!
//! Without a path, on the pairs of `tests/fixtures/math_verify`, where `generate.py --time` measures math-verify: the median of
//! five rounds. `--print` writes the verdicts instead, a line for a line.

use std::time::Instant;

use posttrain_reward::{MathConfig, RewardError, Sample, Verifier};
use serde::Deserialize;

const PAIRS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/math_verify/verdicts.jsonl");
const REPEATS: usize = 5;

#[derive(Deserialize)]
struct Pair {
    reference: String,
    response: String,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = arguments.iter().find(|argument| !argument.starts_with("--")).map_or(PAIRS, String::as_str);
    let text = std::fs::read_to_string(path)?;
    let pairs = text.lines().map(serde_json::from_str).collect::<Result<Vec<Pair>, _>>()?;
    let samples: Vec<Sample> = pairs.into_iter().map(|pair| Sample::new("?", pair.reference, pair.response)).collect();
    let verifier = MathConfig::default().build()?;
    if arguments.iter().any(|argument| argument == "--print") {
        for sample in &samples {
            let verdict = verifier.verify(sample);
            println!(
                "{}",
                verdict.map_or_else(|error: RewardError| error.cause().to_owned(), |score| score.value().to_string())
            );
        }
        return Ok(());
    }
    let rounds: Vec<Round> = (0..5).map(|_| Round::of(&verifier, &samples)).collect();
    let verdicts = REPEATS * samples.len();
    println!("{} of {} right", rounds[0].right / REPEATS, samples.len());
    println!("{:.0} verdicts a second by the clock", verdicts as f64 / median(rounds.iter().map(|round| round.clock)));
    if let Some(processor) = rounds.iter().map(|round| round.processor).collect::<Option<Vec<_>>>() {
        println!("{:.0} verdicts a second by the processor", verdicts as f64 / median(processor.into_iter()));
    }
    Ok(())
}

/// Every pair, several times over: how many were right, and how long it took.
struct Round {
    right: usize,
    /// Seconds by the clock.
    clock: f64,
    /// Seconds of the processor, which other work on the machine does not slow as much, where the system tells.
    processor: Option<f64>,
}

impl Round {
    fn of(verifier: &impl Verifier, samples: &[Sample]) -> Self {
        let (clock, before) = (Instant::now(), processor());
        let verdicts = (0..REPEATS).flat_map(|_| samples).map(|sample| verifier.verify(sample));
        let right = verdicts.filter(|verdict| verdict.as_ref().is_ok_and(|score| score.value() == 1.0)).count();
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
