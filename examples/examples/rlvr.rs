//! Reinforcement learning with verifiable rewards: one specialist, from a configuration file.
//!
//! ```text
//! cargo run --release -p examples --example rlvr -- --config examples/configs/rlvr-math.toml --out runs/math
//! ```
//!
//! Evaluates the base on the test split, trains, and evaluates the best validation checkpoint on
//! the same questions with the same seeds. Interrupted or killed, it goes on where it was when it
//! is started again with the same arguments.
//!
//! Several processes make a run together where torchrun starts them:
//!
//! ```text
//! torchrun --nproc-per-node 2 --no-python target/release/examples/rlvr --config examples/configs/rlvr-ranks.toml --out runs/ranks
//! ```

use anyhow::{Context, Result, bail};
use clap::Parser;
use examples::{
    Curve, Page, PageSample, RunArgs, Summary, begin, check_name, console, draw_rewards,
    evaluated_once, join_ranks, log_and_trace, read_config, stop_on_interrupt,
};
use posttrain::data::{Example, Split};
use posttrain::experiment::DataConfig;
use posttrain::recipes::{
    EvaluationMode, Event, ModelSource, PromptStyle, RlConfig, RlRun, RunOutcome, SampleLine,
    StepRecord,
};
use posttrain::reward::RewardConfig;
use posttrain::store::read_log;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Instant;

/// A run's configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The name of the model's folder within the run's.
    name: String,
    /// The domain that is trained on; all of them where it is left out.
    #[serde(default)]
    domain: Option<String>,
    model: ModelSource,
    data: DataConfig,
    #[serde(default)]
    prompt: PromptStyle,
    #[serde(default)]
    reward: RewardConfig,
    #[serde(default)]
    rl: RlConfig,
}

struct Examples {
    train: Vec<Example>,
    validation: Vec<Example>,
    test: Vec<Example>,
}

impl Config {
    fn examples(&self) -> Result<Examples> {
        let splits = self.data.splits()?;
        let part = |which| -> Vec<Example> {
            let own = |e: &&Example| self.domain.as_ref().is_none_or(|domain| e.domain == *domain);
            splits.get(which).iter().filter(own).cloned().collect()
        };
        if let Some(domain) = &self.domain
            && !splits.domains().contains(&domain.as_str())
        {
            let there = splits.domains().join(", ");
            bail!("domain `{domain}` is not in the dataset; there are: {there}");
        }
        Ok(Examples {
            train: part(Split::Train),
            validation: part(Split::Validation),
            test: part(Split::Test),
        })
    }
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    let args = RunArgs::parse();
    let _trace = log_and_trace(args.trace.as_deref())?;
    let config = checked_config(&args)?;
    let data = config.examples().with_context(|| args.config.display().to_string())?;
    let (ranks, device) = join_ranks(args.rank_timeout, config.model.device)?;
    let model = ModelSource { device, ..config.model.clone() }.load();
    let model =
        model.with_context(|| format!("{}: [model]: cannot be opened", args.config.display()))?;
    config.rl.lora.select(model.decoder.modules())?;
    let _lock = begin(&args, &config, &ranks)?;

    let folder = args.out.join(&config.name);
    let reward = config.reward.build()?;
    let run = RlRun::new(model, reward, config.rl.clone(), &folder)?
        .with_style(config.prompt.clone())
        .with_base_model(config.model.path.display().to_string())
        .with_ranks(ranks.clone())?;
    stop_on_interrupt(run.stop_flag())?;
    let mut console = console(&ranks);

    let mode = EvaluationMode::SampledAndGreedy;
    let before = evaluated_once(&args.out.join("test_before.json"), &ranks, || {
        run.evaluate("test before", None, &data.test, mode, &mut *console)
    })?;
    let RunOutcome { state, complete } = run.train(&data.train, &data.validation, &mut *console)?;
    if !complete {
        let text = format!("stopped after step {}; start it again to go on", state.step);
        console.see(&Event::Note { text: &text });
    }

    let best = folder.join(if state.best.is_some() { "best" } else { "last" });
    let started = Instant::now();
    let evaluate = || run.evaluate("test after", Some(&best), &data.test, mode, &mut *console);
    let after = complete.then(evaluate).transpose()?;
    if !ranks.is_leader() {
        return Ok(());
    }
    let records: Vec<StepRecord> = read_log(&folder.join("metrics.jsonl"))?;
    draw_rewards(&folder.join("reward.svg"), &records)?;
    let Some(after) = after else { return Ok(()) };
    let summary = Summary {
        best_step: state.best.map(|best| best.step),
        seconds: before.seconds + state.seconds + started.elapsed().as_secs_f64(),
        ..Summary::of(before.evaluation, after, state.step)
    };
    summary.write(&args.out)?;
    page(&config, &summary, &records, &folder)?.write(&args.out.join("report.html"))?;
    summary.print(&args.out);
    Ok(())
}

/// Reads the configuration and checks what can be checked before anything is loaded.
fn checked_config(args: &RunArgs) -> Result<Config> {
    let named = || args.config.display().to_string();
    let config: Config = read_config(&args.config)?;
    config.rl.validate().with_context(|| format!("{}: [rl]", named()))?;
    check_name(&args.config, &config.name)?;
    if config.data.sizes.test == 0 {
        bail!(
            "{}: `data.sizes.test` must be at least 1: there is nothing to report without a test",
            named()
        );
    }
    if config.data.sizes.train == 0 {
        bail!("{}: `data.sizes.train` must be at least 1: nothing can be learned", named());
    }
    Ok(config)
}

fn page(config: &Config, summary: &Summary, records: &[StepRecord], folder: &Path) -> Result<Page> {
    let over = |title: &str, value: &dyn Fn(&StepRecord) -> Option<f64>| Curve {
        title: title.to_owned(),
        points: records.iter().filter_map(|r| Some((r.step as f64, value(r)?))).collect(),
    };
    let curves = vec![
        over("Reward", &|r| Some(r.reward)),
        over("Validation accuracy, T = 1", &|r| Some(r.validation.as_ref()?.sampled.share)),
        over("Share of groups with signal", &|r| Some(r.groups_with_signal)),
        over("Entropy, nats", &|r| Some(r.entropy)),
        over("|trainer − sampler| log-probability, nats", &|r| Some(r.logprob_gap)),
        over("Staleness, versions", &|r| r.staleness),
        over("Groups sampled ahead", &|r| Some(r.queued_groups? as f64)),
        over("Groups replaced", &|r| Some(r.replaced_groups? as f64)),
        over("Gradient norm", &|r| r.grad_norm),
        over("Seconds per step", &|r| Some(r.seconds)),
    ];

    // The last of what was written in training.
    let text = std::fs::read_to_string(folder.join("samples.jsonl")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(24)..].iter();
    let samples = last.filter_map(|line| serde_json::from_str::<SampleLine>(line).ok());
    let samples = samples.map(|line| PageSample {
        question: line.question,
        reference: line.answer,
        answer: line.completion,
        reward: line.reward,
        advantage: Some(line.advantage),
        tokens: line.tokens,
    });
    Ok(Page {
        title: format!("{}: {} steps", config.name, summary.steps),
        lead: format!(
            "Reinforcement learning, {:?}, seed {}. Samples are from its last steps: green tokens \
             were made likelier, red ones less likely, the more the stronger; an underlined token is \
             more than a twentieth likelier or less likely to the trainer than to the sampler.",
            config.rl.mode, config.rl.seed
        ),
        accuracies: vec![("before".into(), summary.before), ("after".into(), summary.after)],
        curves,
        samples: samples.collect(),
        conversations: Vec::new(),
    })
}
