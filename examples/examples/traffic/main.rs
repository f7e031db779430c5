//! A policy that learns from traffic, with a gate that can say no: a simulated population asks a real
//! server for a day, and says of some answers, late and sometimes wrongly, whether they were right; by
//! held-out tasks, which training never sees, the same verifier decides which version may serve.
//!
//! ```text
//! cargo run --release -p examples --example traffic -- --config examples/configs/traffic.toml --out runs/traffic
//! ```
//!
//! It starts `posttrain-server --learn` once for each seed, in a process of its own (built first, where
//! it is not). A day goes by in requests: while a candidate's worth of feedback waits, the clock stands
//! still. Then the gate's error rates are counted by simulation, planted candidates are put to it, and
//! versions are swapped under load. `OUT/summary.json` has the outcome, `OUT/report.html` the curves,
//! and each seed's folder everything that was served, said and decided.

mod gate;
mod population;
mod server;
mod swaps;

use anyhow::{Context, Result, bail};
use clap::Parser;
use examples::{Curve, Page, RunArgs, begin, log_and_trace, read_config, refuse_ranks, write};
use posttrain::data::{Example, Split};
use posttrain::experiment::DataConfig;
use posttrain::recipes::traffic::{Decision, TrafficConfig, Verdict};
use posttrain::recipes::{ModelSource, Ranks};
use posttrain::statistics::Share;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

/// The configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrafficFile {
    /// A day for each.
    seeds: Vec<u64>,
    /// The base.
    model: ModelSource,
    /// What is asked: the training split by the population, the test split by the gate, the
    /// validation split before and after.
    data: DataConfig,
    /// The domain that is asked about; all of them where it is left out.
    #[serde(default)]
    domain: Option<String>,
    /// Who asks, and what they say.
    population: population::Population,
    /// The policy. Its seed is each of `seeds`, and its held-out tasks are the test split.
    traffic: TrafficConfig,
    /// How often the gate is simulated.
    simulation: gate::Simulation,
    /// How versions are swapped under load.
    swaps: swaps::Swaps,
}

/// What a day came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Day {
    seed: u64,
    before: Share,
    after: Share,
    versions: Vec<Decision>,
    /// Seconds from a candidate's last feedback to its decision, the longest of those accepted.
    capture_to_swap: f64,
    requests: usize,
    seconds: f64,
}

/// The questions of a run.
pub(crate) struct Questions {
    pub asked: Vec<Example>,
    pub held_out: Vec<Example>,
    pub fresh: Vec<Example>,
}

impl TrafficFile {
    fn questions(&self) -> Result<Questions> {
        let splits = self.data.splits()?;
        let of = |split: Split| -> Vec<Example> {
            let own = |e: &&Example| self.domain.as_ref().is_none_or(|domain| e.domain == *domain);
            splits.get(split).iter().filter(own).cloned().collect()
        };
        let questions = Questions {
            asked: of(Split::Train),
            held_out: of(Split::Test),
            fresh: of(Split::Validation),
        };
        if questions.asked.is_empty() || questions.held_out.is_empty() {
            bail!("`data`: expected questions of `domain`, there are none");
        }
        Ok(questions)
    }
}

fn main() -> ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    let args = RunArgs::parse();
    let _trace = log_and_trace(args.trace.as_deref())?;
    let config: TrafficFile = read_config(&args.config)?;
    refuse_ranks()?;
    let _lock = begin(&args, &config, &Ranks::default())?;
    let questions = config.questions()?;
    let binary = server::binary()?;

    let mut days = Vec::new();
    for &seed in &config.seeds {
        let folder = args.out.join(format!("seed-{seed}"));
        let done = folder.join("day.json");
        let day = if let Ok(text) = std::fs::read_to_string(&done) {
            serde_json::from_str(&text).context("day.json")?
        } else {
            let day = population::day(&config, &questions, seed, &binary, &folder)?;
            write(&done, &serde_json::to_string_pretty(&day)?)?;
            day
        };
        tell(&day);
        days.push(day);
    }

    let gate = gate::simulate(&config.traffic.gate, &config.simulation)?;
    println!("gate: {gate:?}");
    let first = args.out.join(format!("seed-{}", config.seeds.first().context("`seeds`: none")?));
    let broken = gate::broken_files(&config, &questions, &binary, &first)?;
    let bad = gate::bad_policies(&config, &questions, &binary, &first)?;
    let (planted, stopped) = (broken.planted + bad.planted, broken.stopped + bad.stopped);
    println!("before a real server: {stopped} of {planted} planted ones stopped");
    let swaps = swaps::under_load(&config, &questions, &binary, &first)?;
    println!("swaps: {swaps:?}");

    let summary = json!({
        "versions": days.iter().flat_map(|day| day.versions.iter().map(|decision| json!({
            "seed": day.seed,
            "version": decision.version,
            "accepted": decision.verdict == Verdict::Accepted,
            "verdict": decision.verdict,
            "reason": decision.reason,
            "held_out": decision.candidate_share.share,
            "low": decision.candidate_share.low,
            "high": decision.candidate_share.high,
        }))).collect::<Vec<_>>(),
        "days": days.iter().map(|day| json!({
            "seed": day.seed, "before": day.before, "after": day.after,
            "accepted": accepted(day), "capture_to_swap": day.capture_to_swap,
            "requests": day.requests, "seconds": day.seconds,
        })).collect::<Vec<_>>(),
        "gate": {
            "error_rate": config.traffic.gate.error_rate,
            "false_accept": gate.false_accept,
            "false_reject": gate.false_reject,
            "planted": gate.planted + planted,
            "planted_stopped": gate.planted_stopped + stopped,
        },
        "swaps": swaps,
    });
    write(&args.out.join("summary.json"), &(serde_json::to_string_pretty(&summary)? + "\n"))?;
    page(&days).write(&args.out.join("report.html"))?;
    println!("everything is in {}", args.out.display());
    Ok(())
}

fn accepted(day: &Day) -> usize {
    day.versions.iter().filter(|decision| decision.verdict == Verdict::Accepted).count()
}

fn tell(day: &Day) {
    println!(
        "seed {}: {:.3} [{:.3}, {:.3}] -> {:.3} [{:.3}, {:.3}] on fresh questions, {} versions accepted of {}, {} requests in {:.0} s, capture to swap {:.0} s at most",
        day.seed,
        day.before.share,
        day.before.low,
        day.before.high,
        day.after.share,
        day.after.low,
        day.after.high,
        accepted(day),
        day.versions.len(),
        day.requests,
        day.seconds,
        day.capture_to_swap,
    );
}

fn page(days: &[Day]) -> Page {
    let accuracies = days.iter().flat_map(|day| {
        [
            (format!("seed {}, before", day.seed), day.before),
            (format!("seed {}, after", day.seed), day.after),
        ]
    });
    let curves = days.iter().map(|day| {
        let accepted = day.versions.iter().filter(|d| d.verdict == Verdict::Accepted);
        Curve {
            title: format!("Seed {}: held-out accuracy of accepted versions", day.seed),
            points: accepted.map(|d| (d.version as f64, d.candidate_share.share)).collect(),
        }
    });
    Page {
        title: "Learning from traffic".into(),
        lead: "A simulated population, a real server, and a gate by paired sequential tests."
            .into(),
        accuracies: accuracies.collect(),
        curves: curves.collect(),
        samples: Vec::new(),
        conversations: Vec::new(),
    }
}

/// Writes held-out tasks as the gate reads them.
pub(crate) fn write_tasks(path: &Path, tasks: &[Example]) -> Result<()> {
    let line = |task: &Example| Ok(serde_json::to_string(task)? + "\n");
    let lines: Result<String> = tasks.iter().map(line).collect();
    write(path, &lines?)
}
