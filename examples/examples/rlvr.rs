//! Reinforcement learning with verifiable rewards: one specialist, from a configuration file.
//!
//! ```text
//! cargo run --release -p examples --example rlvr -- --config examples/configs/rlvr-math.toml --out runs/math
//! ```
//!
//! Evaluates the base on the test split, trains, and evaluates the best validation checkpoint on
//! the same questions with the same seeds. Interrupted or killed, it goes on where it was when it
//! is started again with the same arguments.

use anyhow::{Context, Result, bail};
use clap::Parser;
use examples::{draw_rewards, log_to_stderr, stop_on_interrupt};
use posttrain::data::{Example, Split};
use posttrain::experiment::DataConfig;
use posttrain::recipes::{
    Console, Evaluation, EvaluationMode, MetricsLog, ModelSource, PromptStyle, RlConfig, RlRun,
    RunOutcome,
};
use posttrain::reward::RewardConfig;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Trains one specialist and says what it gained.
#[derive(Parser)]
struct Args {
    /// The run's configuration.
    #[arg(long)]
    config: PathBuf,
    /// The run's folder.
    #[arg(long)]
    out: PathBuf,
}

/// A run's configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The name of the model's folder within the run's.
    name: String,
    /// The domain that is trained on.
    domain: String,
    model: ModelSource,
    data: DataConfig,
    #[serde(default)]
    prompt: PromptStyle,
    #[serde(default)]
    reward: RewardConfig,
    #[serde(default)]
    rl: RlConfig,
}

#[derive(Serialize, Deserialize)]
struct Summary {
    test_before: Evaluation,
    test_after: Evaluation,
    steps: u64,
    best_step: Option<u64>,
    seconds: f64,
}

/// An evaluation with the time it took, kept so that a resumed run does not repeat it.
#[derive(Serialize, Deserialize)]
struct Timed {
    evaluation: Evaluation,
    seconds: f64,
}

struct Examples {
    train: Vec<Example>,
    validation: Vec<Example>,
    test: Vec<Example>,
}

impl Config {
    fn examples(&self) -> Result<Examples> {
        let splits = self.data.splits()?;
        if !splits.domains().contains(&self.domain.as_str()) {
            bail!(
                "domain `{}` is not in the dataset; there are: {}",
                self.domain,
                splits.domains().join(", ")
            );
        }
        let part = |which| splits.domain(which, &self.domain).cloned().collect();
        Ok(Examples {
            train: part(Split::Train),
            validation: part(Split::Validation),
            test: part(Split::Test),
        })
    }
}

fn main() -> Result<()> {
    log_to_stderr();
    let args = Args::parse();
    let config = read_config(&args)?;
    let data = config.examples()?;
    let model = config.model.load().context("the model cannot be opened")?;
    config.rl.lora.select(model.decoder.modules())?;
    keep_config(&args, &config)?;
    let folder = args.out.join(&config.name);
    let reward = config.reward.build()?;
    let base = config.model.path.display().to_string();
    let run = RlRun::new(model, reward, config.rl.clone(), &folder)?;
    let run = run.with_style(config.prompt.clone()).with_base_model(base);
    stop_on_interrupt(run.stop_flag())?;
    let mut console = Console::default();

    let before = evaluated_once(&args.out.join("test_before.json"), || {
        run.evaluate(
            "test before",
            None,
            &data.test,
            EvaluationMode::SampledAndGreedy,
            &mut console,
        )
    })?;
    let RunOutcome { state, complete } = run.train(&data.train, &data.validation, &mut console)?;
    draw(&folder, state.step)?;
    if !complete {
        console.line(&format!("stopped after step {}; start it again to go on", state.step));
        return Ok(());
    }
    let best = folder.join(if state.best.is_some() { "best" } else { "last" });
    let started = Instant::now();
    let after = run.evaluate(
        "test after",
        Some(&best),
        &data.test,
        EvaluationMode::SampledAndGreedy,
        &mut console,
    )?;
    let summary = Summary {
        test_before: before.evaluation,
        test_after: after,
        steps: state.step,
        best_step: state.best.map(|b| b.step),
        seconds: before.seconds + state.seconds + started.elapsed().as_secs_f64(),
    };
    write(&args.out.join("summary.json"), &(serde_json::to_string_pretty(&summary)? + "\n"))?;
    report(&args.out, &summary);
    Ok(())
}

/// Reads the configuration and checks what can be checked before anything is loaded.
fn read_config(args: &Args) -> Result<Config> {
    let named = || args.config.display().to_string();
    let text = std::fs::read_to_string(&args.config).with_context(named)?;
    let config: Config = toml::from_str(&text).with_context(named)?;
    config.rl.validate().with_context(named)?;
    if config.name.is_empty()
        || !config.name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
    {
        bail!("{}: `name` must be letters, digits, - and _, got {:?}", named(), config.name);
    }
    if config.data.sizes.test == 0 {
        bail!(
            "{}: `data.sizes.test` must be at least 1: there is nothing to report without a test",
            named()
        );
    }
    Ok(config)
}

/// Keeps the configuration, as resolved, in the run's folder; a folder that was begun with another
/// one is refused.
fn keep_config(args: &Args, config: &Config) -> Result<()> {
    let resolved = toml::to_string(config)?;
    let kept = args.out.join("config.toml");
    if let Ok(old) = std::fs::read_to_string(&kept) {
        if old == resolved {
            return Ok(());
        }
        let (mut was, mut now) = (old.lines(), resolved.lines());
        let differ =
            std::iter::from_fn(|| Some((was.next(), now.next())).filter(|p| *p != (None, None)));
        let (was, now) = differ.into_iter().find(|(was, now)| was != now).unwrap_or_default();
        let (was, now) = (was.unwrap_or("nothing"), now.unwrap_or("nothing"));
        let path = args.config.display();
        bail!(
            "{}: the run was begun with `{was}` where {path} has `{now}`; give another --out",
            kept.display()
        );
    }
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    write(&kept, &resolved)
}

fn evaluated_once(
    path: &Path,
    evaluate: impl FnOnce() -> Result<Evaluation, posttrain::recipes::RecipeError>,
) -> Result<Timed> {
    if let Some(kept) =
        std::fs::read_to_string(path).ok().and_then(|text| serde_json::from_str(&text).ok())
    {
        return Ok(kept);
    }
    let started = Instant::now();
    let timed = Timed { evaluation: evaluate()?, seconds: started.elapsed().as_secs_f64() };
    write(path, &serde_json::to_string(&timed)?)?;
    Ok(timed)
}

/// Beside, then renamed: a reader sees the old file or the whole new one.
fn write(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_extension("writing");
    std::fs::write(&beside, text)
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| path.display().to_string())
}

fn draw(folder: &Path, step: u64) -> Result<()> {
    let (_, records) = MetricsLog::open(folder, step)?;
    draw_rewards(&folder.join("reward.svg"), &records)
}

fn report(out: &Path, s: &Summary) {
    let row = |name: &str, e: &Evaluation| {
        let (t, g) = (e.sampled, e.greedy.unwrap_or(e.sampled));
        println!(
            "{name:<7} {:.3} [{:.3}, {:.3}]    {:.3} [{:.3}, {:.3}]",
            t.share, t.low, t.high, g.share, g.low, g.high
        );
    };
    println!(
        "\ntest    T = 1                   greedy                  (n = {}, 95% Wilson)",
        s.test_before.sampled.n
    );
    row("before", &s.test_before);
    row("after", &s.test_after);
    let best = s.best_step.map_or(String::new(), |step| format!(", best step {step}"));
    println!("{} steps in {:.0} s{best}; everything is in {}", s.steps, s.seconds, out.display());
}
