//! Asks a language model whether responses are correct.
//!
//! ```text
//! cargo xtask judge-server
//! cargo run --release -p examples --example judge -- --url http://127.0.0.1:PORT/v1 --model NAME < in.jsonl > out.jsonl
//! ```
//!
//! A line in is `{"question": …, "reference": …, "response": …}`, with `id`, `domain` and what the verifier needs (`options`)
//! if you like; a line out is `{"reward": …, "note": …}` or `{"error": …, "cause": …}`, a line for a line, in order. `--url`
//! several times names replicas. With `--audit VERIFIER` (any of the `verify` example's) the verifier scores the same
//! responses: a table of how far the two agree goes to standard error, and `audit.json` is written. Failures are counted on
//! standard error; one never is a reward of zero.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser;
use examples::{Row, VerifierKind, log_to_stderr, read_lines};
use posttrain::chat::{CacheConfig, CachedChat, ChatModel, Endpoint, JsonClientConfig, KeySource, OpenAiConfig};
use posttrain::reward::{
    AuditConfig, JudgeConfig, JudgeSampling, Reward, RewardError, Sample, Score, Scorer, ScorerConfig, Verifier,
};
use serde::Serialize;
use tokio::runtime::Runtime;

/// Judges the responses on standard input.
#[derive(Parser)]
struct Args {
    /// The server's address, such as http://localhost:8000/v1; may be given several times.
    #[arg(long, required = true)]
    url: Vec<Endpoint>,
    /// The model's name on the server.
    #[arg(long)]
    model: String,
    /// The environment variable that holds the API key.
    #[arg(long, value_name = "VARIABLE")]
    key: Option<String>,
    /// Answers for a verdict, more than half of which must agree.
    #[arg(long, default_value_t = 1)]
    votes: usize,
    /// More than 0 where there are several votes.
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Tokens of the judge's answer at most.
    #[arg(long, default_value_t = 2048)]
    max_tokens: u32,
    /// What the prompt says in addition, about the domain, say.
    #[arg(long, default_value = "")]
    instructions: String,
    /// Responses that are judged at the same time.
    #[arg(long, default_value_t = 256)]
    in_flight: usize,
    /// Seconds that a verdict may take, waiting for the server included.
    #[arg(long, default_value_t = 600.0)]
    seconds: f64,
    /// A folder that keeps answers, so that the same question is not paid for twice.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// A file that every conversation with the judge is appended to.
    #[arg(long, value_name = "FILE")]
    transcript: Option<PathBuf>,
    /// Compare with a verifier.
    #[arg(long, value_name = "VERIFIER", value_enum)]
    audit: Option<VerifierKind>,
    /// A TOML file with the fields of that verifier's config [default: the defaults].
    #[arg(long, value_name = "FILE", requires = "audit")]
    audit_config: Option<PathBuf>,
}

impl Args {
    fn chat_model(&self) -> Result<Arc<dyn ChatModel>> {
        let http = JsonClientConfig {
            endpoints: self.url.clone(),
            api_key: self.key.clone().map_or(KeySource::None, KeySource::Environment),
            in_flight: self.in_flight,
            ..JsonClientConfig::default()
        };
        let client = OpenAiConfig { model: self.model.clone(), http, ..OpenAiConfig::default() }.build()?;
        Ok(match self.cache.clone() {
            Some(folder) => {
                Arc::new(CachedChat::new(Arc::new(client), CacheConfig { folder, ..CacheConfig::default() })?)
            }
            None => Arc::new(client),
        })
    }

    fn judge(&self) -> Result<Arc<dyn Reward>> {
        let (temperature, max_tokens) = (self.temperature, self.max_tokens);
        let config = JudgeConfig {
            votes: self.votes,
            sampling: JudgeSampling { temperature, max_tokens, ..JudgeSampling::default() },
            instructions: self.instructions.clone(),
            transcript: self.transcript.clone(),
            ..JudgeConfig::default()
        };
        Ok(Arc::new(config.build(self.chat_model()?)?))
    }

    fn verifier(&self) -> Result<Option<Arc<dyn Reward>>> {
        let Some(kind) = self.audit else { return Ok(None) };
        let verifier = kind.build(self.audit_config.as_deref())?;
        Ok(Some(Arc::new(verifier.into_reward())))
    }
}

/// A line out.
#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Score { reward: f64, note: Option<&'a str> },
    Error { error: String, cause: &'a str },
}

fn line(score: &Result<Score, RewardError>) -> Line<'_> {
    match score {
        Ok(score) => Line::Score { reward: score.value(), note: score.note() },
        Err(error) => Line::Error { error: with_sources(error), cause: error.cause() },
    }
}

fn with_sources(error: &RewardError) -> String {
    let sources = std::iter::successors(std::error::Error::source(error), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

fn score_all(
    reward: Arc<dyn Reward>,
    samples: &[Sample],
    config: &ScorerConfig,
    runtime: &Runtime,
) -> Result<Vec<Result<Score, RewardError>>> {
    let mut scorer = Scorer::new(reward, config, runtime.handle().clone())?;
    for sample in samples {
        scorer.push(sample.clone())?;
    }
    Ok(scorer.finish()?)
}

fn main() -> Result<()> {
    log_to_stderr();
    let args = Args::parse();
    let (judge, verifier) = (args.judge()?, args.verifier()?);
    let rows: Vec<Row> = read_lines(std::io::stdin().lock())?;
    let mut samples: Vec<Sample> = rows.into_iter().map(Sample::from).collect();
    let unnamed = samples.iter_mut().enumerate().filter(|(_, sample)| sample.id.is_empty());
    unnamed.for_each(|(index, sample)| sample.id = format!("line {}", index + 1));
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let config =
        ScorerConfig { in_flight: args.in_flight, time_limit_seconds: args.seconds, ..ScorerConfig::default() };
    let scores = score_all(judge, &samples, &config, &runtime)?;

    let mut out = std::io::stdout().lock();
    for score in &scores {
        serde_json::to_writer(&mut out, &line(score))?;
        writeln!(out)?;
    }
    let mut failures: BTreeMap<&str, usize> = BTreeMap::new();
    scores
        .iter()
        .filter_map(|score| score.as_ref().err())
        .for_each(|error| *failures.entry(error.cause()).or_default() += 1);
    if !failures.is_empty() {
        eprintln!("no verdict: {failures:?}");
    }
    if let Some(verifier) = verifier {
        let verified = score_all(verifier, &samples, &config, &runtime)?;
        let mut audit = AuditConfig::default().build()?;
        samples
            .iter()
            .zip(scores.iter().zip(&verified))
            .for_each(|(sample, (judge, verifier))| audit.add(sample, judge, verifier));
        eprint!("{}", audit.report());
        std::fs::write("audit.json", serde_json::to_string_pretty(&audit.report())?)
            .context("cannot write audit.json")?;
    }
    Ok(())
}
