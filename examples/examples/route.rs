//! Sends questions to the domains of a dataset.
//!
//! ```text
//! cargo run --release -p examples --example route -- --router ngrams --dataset sciences < in.jsonl > out.jsonl
//! cargo run --release -p examples --example route -- --router chat --url http://127.0.0.1:PORT/v1 --model NAME < in.jsonl
//! ```
//!
//! A line in is `{"question": …}`; a line out is `{"label": …, "probabilities": {label: …}}`, a
//! line for a line, in order. `ngrams` and `keyword` are fitted on the dataset's training split,
//! whose domains are the labels; how they do on the test split goes to standard error, where
//! `--report FILE` adds all of it as JSON. `chat` needs no fit, and asks for the same labels.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use examples::{log_to_stderr, read_lines};
use posttrain::chat::client::{Endpoint, JsonClientConfig, KeySource};
use posttrain::chat::openai::OpenAiConfig;
use posttrain::data::{ReadConfig, SplitConfig, SplitSizes, read, sciences, split};
use posttrain::router::{
    ChatRouterConfig, ClassifierConfig, Decision, HashedNgrams, KeywordConfig, Question, Router,
    RouterData, RouterReport,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

/// Routes the questions on standard input.
#[derive(Parser)]
struct Args {
    /// What decides.
    #[arg(long, value_enum, default_value = "ngrams")]
    router: Kind,
    /// `sciences`, the built-in set, or a `.jsonl` or `.parquet` file with domains.
    #[arg(long, default_value = "sciences")]
    dataset: PathBuf,
    /// Decides which rows are fitted on (and which questions the built-in set asks).
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Rows of each domain for fitting.
    #[arg(long, default_value_t = 2000)]
    train: u64,
    /// Rows of each domain for tuning, and as many for the report.
    #[arg(long, default_value_t = 250)]
    test: u64,
    /// A file that gets the report on the test split as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The chat server's address, such as http://localhost:8000/v1; may be given several times.
    #[arg(long)]
    url: Vec<Endpoint>,
    /// The model's name on the server.
    #[arg(long, default_value = "")]
    model: String,
    /// The environment variable that holds the API key.
    #[arg(long, value_name = "VARIABLE")]
    key: Option<String>,
    /// The label where the chat model's answer names none; without it such an answer is an error.
    #[arg(long, value_name = "LABEL")]
    fallback: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// Logistic regression over hashed n-grams.
    Ngrams,
    /// Words learnt from the training split.
    Keyword,
    /// A chat model.
    Chat,
}

/// A line in.
#[derive(Deserialize)]
struct Line {
    question: String,
}

impl Args {
    fn data(&self) -> Result<RouterData> {
        let dataset = match self.dataset.as_path() {
            name if name == Path::new("sciences") => sciences::generate(self.seed)?,
            file => read(file, &ReadConfig::default())?,
        };
        let sizes = SplitSizes { train: self.train, validation: self.test, test: self.test };
        let splits = split(&dataset, &SplitConfig { sizes, seed: self.seed })?;
        Ok(RouterData::from_splits(&splits, dataset.domains())?)
    }

    fn router(&self, data: &RouterData, runtime: &Runtime) -> Result<Box<dyn Router>> {
        Ok(match self.router {
            Kind::Ngrams => Box::new(ClassifierConfig::default().fit(
                HashedNgrams::default(),
                &data.train,
                &data.validation,
            )?),
            Kind::Keyword => Box::new(KeywordConfig::learn(&data.train, 100).build()?),
            Kind::Chat => {
                let fallback = self.fallback.clone();
                let config =
                    ChatRouterConfig { fallback, ..ChatRouterConfig::new(data.train.labels()) };
                Box::new(config.build(Arc::new(self.chat_model()?), runtime.handle().clone())?)
            }
        })
    }

    fn chat_model(&self) -> Result<impl posttrain::chat::ChatModel + use<>> {
        if self.url.is_empty() || self.model.is_empty() {
            bail!("--router chat goes with --url and --model");
        }
        let http = JsonClientConfig {
            endpoints: self.url.clone(),
            api_key: self.key.clone().map_or(KeySource::None, KeySource::Environment),
            ..JsonClientConfig::default()
        };
        Ok(OpenAiConfig { model: self.model.clone(), http, ..OpenAiConfig::default() }.build()?)
    }
}

fn line(labels: &[String], decision: &Decision) -> Value {
    let of = |(label, p): (&String, &f64)| (label.clone(), json!(p));
    let probabilities: Map<String, Value> =
        labels.iter().zip(&decision.probabilities).map(of).collect();
    json!({ "label": labels[decision.label], "probabilities": probabilities })
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    log_to_stderr();
    let args = Args::parse();
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let data = args.data()?;
    let router = args.router(&data, &runtime)?;
    if args.report.is_some() || !matches!(args.router, Kind::Chat) {
        let report = RouterReport::of(&*router, &data.test)?;
        eprint!("{report}");
        if let Some(path) = &args.report {
            std::fs::write(path, serde_json::to_string_pretty(&report)?)
                .context("cannot write the report")?;
        }
    }
    let lines: Vec<Line> = read_lines(std::io::stdin().lock())?;
    let questions: Vec<Question> = (1..)
        .zip(lines)
        .map(|(n, line)| Question::new(format!("line {n}"), line.question))
        .collect();
    let mut out = std::io::stdout().lock();
    for decision in router.route(&questions)? {
        writeln!(out, "{}", line(router.labels(), &decision))?;
    }
    Ok(())
}
