//! A reward of your own: native, remote, and both in one.
//!
//! ```text
//! cargo run --release -p examples --example custom_reward < in.jsonl > out.jsonl
//! python3 examples/remote_reward/server.py 8000 &
//! cargo run --release -p examples --example custom_reward -- --url http://127.0.0.1:8000 < in.jsonl > out.jsonl
//! ```
//!
//! A line in is `{"question": "...", "reference": "...", "response": "..."}`; a line out, in the
//! same order, is `{"reward": 0.5, "parts": {...}, "note": "..."}` or `{"error": "..."}`. The
//! reward is: is the recipe's list complete? The native verifier says so where the reference is a
//! list; where it is prose, the remote reward is asked, if there is one. A long response then earns
//! less.

use std::io::stdin;
use std::sync::Arc;

use anyhow::Result;
use clap::Parser;
use examples::{Row, each_line};
use posttrain::reward::compose::{FirstThatDecides, GoOn, Product};
use posttrain::reward::outside::RemoteConfig;
use posttrain::reward::verifiers::{LengthConfig, LengthUnit};
use posttrain::reward::{Reward, RewardError, Sample, Score, Scorer, ScorerConfig, Verifier};
use serde_json::json;

/// Scores responses by a reward of your own.
#[derive(Parser)]
struct Args {
    /// A remote reward, for what the native one cannot say.
    #[arg(long)]
    url: Option<String>,
    /// Seconds that one response's scoring may take, retries included.
    #[arg(long, default_value_t = 60.0)]
    time_limit_seconds: f64,
    /// Seconds that all of it may take: what has no score by then is an error.
    #[arg(long, default_value_t = 300.0)]
    deadline_seconds: f64,
}

/// The share of a list's items that the response names: a native reward in twenty lines.
struct Ingredients;

impl Verifier for Ingredients {
    fn name(&self) -> &str {
        "ingredients"
    }

    fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
        let wanted: Vec<String> =
            sample.reference.split(',').map(|item| item.trim().to_lowercase()).collect();
        // Not knowing is an error. A zero would say that the response is wrong.
        if wanted.len() < 2 || wanted.iter().any(|item| item.is_empty()) {
            let (id, verifier) = (sample.id.clone(), self.name().to_owned());
            return Err(RewardError::Undecided {
                id,
                verifier,
                reason: "the reference is not a list",
            });
        }
        let response = sample.response.to_lowercase();
        let named = wanted.iter().filter(|item| response.contains(item.as_str())).count();
        Score::new(named as f64 / wanted.len() as f64)?.with_part("named", named as f64)
    }
}

fn reward(url: Option<&str>) -> Result<Arc<dyn Reward>, RewardError> {
    let mut cascade: Vec<Arc<dyn Reward>> = vec![Arc::new(Ingredients.into_reward())];
    if let Some(url) = url {
        cascade.push(Arc::new(RemoteConfig::for_server(url)?.build()?));
    }
    let correct = Arc::new(FirstThatDecides::new(cascade, GoOn::CannotSay)?);
    let brief = LengthConfig { unit: LengthUnit::Words, max_length: 400, buffer: 200 }
        .build()?
        .into_reward();
    Ok(Arc::new(Product::new([correct as Arc<dyn Reward>, Arc::new(brief)])?))
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    let args = Args::parse();
    let reward = reward(args.url.as_deref())?;
    let rows = each_line::<Row>(stdin().lock()).zip(1..);
    let samples = rows.map(|(row, line)| Ok(row?.map(|row| row.into_sample(line))));
    let samples: Vec<Result<Sample, String>> = samples.collect::<Result<_>>()?;
    // What a trainer does while it samples: push as completions finish, collect at the end of the
    // step.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let config = ScorerConfig {
        time_limit_seconds: args.time_limit_seconds,
        deadline_seconds: Some(args.deadline_seconds),
        ..ScorerConfig::default()
    };
    let mut scorer = Scorer::new(reward, &config, runtime.handle().clone())?;
    for sample in samples.iter().flatten() {
        scorer.push(sample.clone())?;
    }
    let mut scores = scorer.finish()?.into_iter();
    for sample in samples {
        // A score for every sample, and a sample on every line that is none of the malformed.
        match sample {
            Ok(_) => scores.next().into_iter().for_each(|score| println!("{}", line(score))),
            Err(error) => println!("{}", json!({ "error": error })),
        }
    }
    Ok(())
}

fn line(score: Result<Score, RewardError>) -> serde_json::Value {
    match score {
        Ok(score) => {
            let parts: serde_json::Map<_, _> =
                score.parts().iter().map(|(name, part)| (name.clone(), json!(part))).collect();
            json!({"reward": score.value(), "parts": parts, "note": score.note()})
        }
        // With what is behind it: `reward `remote` failed (http_503): …`.
        Err(error) => json!({"error": format!("{:#}", anyhow::Error::from(error))}),
    }
}
