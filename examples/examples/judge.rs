//! Asks a language model whether responses are correct.
//!
//! ```text
//! cargo xtask judge-server
//! cargo run --release -p examples --example judge -- --url http://127.0.0.1:PORT/v1 --model NAME < in.jsonl > out.jsonl
//! ```
//!
//! A line in is `{"question": …, "reference": …, "response": …}`, with `id`, `domain` and what the
//! verifier needs (`options`) if you like; a line out is `{"reward": …, "note": …}` or
//! `{"error": …, "cause": …}`, a line for a line, in order, and a malformed or a blank one costs
//! only itself. `--url` several times names replicas. With `--audit VERIFIER` (any of the `verify`
//! example's) the verifier scores the same responses: a table of how far the two agree goes to
//! standard error, and `audit.json` is written. Failures are counted on standard error; one never
//! is a reward of zero. The program fails if no line at all got a verdict.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use examples::{Row, VerifierKind, each_line, log_to_stderr};
use posttrain::chat::ChatModel;
use posttrain::chat::cache::{CacheConfig, CachedChat};
use posttrain::chat::client::{Endpoint, JsonClientConfig, KeySource};
use posttrain::chat::openai::OpenAiConfig;
use posttrain::reward::audit::AuditConfig;
use posttrain::reward::judge::{JudgeConfig, JudgeSampling};
use posttrain::reward::{Reward, RewardError, Sample, Score, Scorer, ScorerConfig, Verifier};
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
        let client =
            OpenAiConfig { model: self.model.clone(), http, ..OpenAiConfig::default() }.build()?;
        Ok(match self.cache.clone() {
            Some(folder) => Arc::new(CachedChat::new(
                Arc::new(client),
                CacheConfig { folder, ..CacheConfig::default() },
            )?),
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

impl<'a> Line<'a> {
    fn of(score: &'a Result<Score, RewardError>) -> Self {
        match score {
            Ok(score) => Self::Score { reward: score.value(), note: score.note() },
            Err(error) => Self::Error { error: error.report(), cause: error.cause() },
        }
    }

    fn malformed(error: &str) -> Self {
        Self::Error { error: error.to_owned(), cause: "malformed_line" }
    }
}

/// What each line asks to have judged, or what is wrong with it.
fn read_samples() -> Result<Vec<Result<Sample, String>>> {
    let rows = each_line::<Row>(std::io::stdin().lock()).zip(1..);
    rows.map(|(row, line)| {
        Ok(row?.map(|row| row.into_sample(line)).and_then(|sample| asked(sample, line)))
    })
    .collect()
}

fn asked(sample: Sample, line: usize) -> Result<Sample, String> {
    if sample.question.trim().is_empty() {
        return Err(format!("line {line}: no `question`, without which a judge cannot say"));
    }
    Ok(sample)
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

/// Writes a line for each that was read, and counts by cause what has no verdict.
fn write_lines(
    read: &[Result<Sample, String>],
    scores: &[Result<Score, RewardError>],
) -> Result<BTreeMap<String, usize>> {
    let mut judged = scores.iter();
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut failures = BTreeMap::new();
    for sample in read {
        let line = match sample {
            Ok(_) => Line::of(judged.next().context("the scorer lost a sample")?),
            Err(error) => Line::malformed(error),
        };
        writeln!(out, "{}", serde_json::to_string(&line)?)?;
        if let Line::Error { cause, .. } = line {
            *failures.entry(cause.to_owned()).or_default() += 1;
        }
    }
    out.flush().context("writing the verdicts")?;
    Ok(failures)
}

/// How far `verifier` and the judge agree: a table on standard error, and `audit.json`.
fn compare_with(
    verifier: Arc<dyn Reward>,
    samples: &[Sample],
    judged: &[Result<Score, RewardError>],
    config: &ScorerConfig,
    runtime: &Runtime,
) -> Result<()> {
    let verified = score_all(verifier, samples, config, runtime)?;
    let mut audit = AuditConfig::default().build()?;
    for (sample, (judged, verified)) in samples.iter().zip(judged.iter().zip(&verified)) {
        audit.add(sample, judged, verified);
    }

    let report = audit.report();
    eprint!("{report}");
    std::fs::write("audit.json", serde_json::to_string_pretty(&report)?)
        .context("cannot write audit.json")
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    log_to_stderr();
    let args = Args::parse();
    let judge = args.judge()?;
    let verifier = args.verifier()?;

    let read = read_samples()?;
    let samples: Vec<Sample> = read.iter().flatten().cloned().collect();
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let config = ScorerConfig {
        in_flight: args.in_flight,
        time_limit_seconds: args.seconds,
        ..ScorerConfig::default()
    };
    let scores = score_all(judge, &samples, &config, &runtime)?;

    let failures = write_lines(&read, &scores)?;
    if !failures.is_empty() {
        eprintln!("no verdict: {failures:?}");
    }
    if let Some(verifier) = verifier {
        compare_with(verifier, &samples, &scores, &config, &runtime)?;
    }

    let judged = scores.iter().any(Result::is_ok);
    ensure!(read.is_empty() || judged, "not one of the {} lines got a verdict", read.len());
    Ok(())
}
