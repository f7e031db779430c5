//! What a step would take on more machines, from what it takes on those that there are.
//!
//! ```text
//! cargo run --release -p examples --example scaling -- --run 1=runs/alone/math --run 2=runs/ranks/math --adapter-bytes 156000000
//! ```
//!
//! In: runs of the same configuration with different numbers of ranks, each with its `metrics.jsonl`.
//! Out: the measured seconds of each beside the model's, then the model's for 1 to 64 machines. The
//! model, of a step on `n` machines:
//!
//! - sampling: the one rank's seconds divided by `n`, but never less than the longest completion takes
//!   alone (`--token-seconds` for each of its tokens);
//! - training: the one rank's seconds divided by `n`;
//! - all-reduce of the adapter's gradient by a ring: `2 (n − 1) / n` of its bytes through the network,
//!   and `2 (n − 1)` latencies;
//! - the rest (optimizer, metrics), which every rank does: what remains of the one rank's step.
//!
//! It knows nothing of machines that differ, of groups that cannot be cut (a rank more than there are
//! prompts has nothing to sample), or of rewards that wait for somebody: a real run is slower.

use anyhow::{Context, Result, bail};
use clap::Parser;
use posttrain::recipes::{StepRecord, read_metrics};
use std::path::PathBuf;

/// Says what a step would take on more machines.
#[derive(Parser)]
struct Args {
    /// A run, as `RANKS=FOLDER` with the folder of its model; one with 1 rank is needed.
    #[arg(long, value_name = "RANKS=FOLDER", required = true)]
    run: Vec<String>,
    /// Bytes of the adapter's gradient in f32.
    #[arg(long)]
    adapter_bytes: f64,
    /// Bytes a second between two machines; 10 Gbit/s by default.
    #[arg(long, default_value_t = 1.25e9)]
    bandwidth: f64,
    /// Seconds until a message is there.
    #[arg(long, default_value_t = 1e-4)]
    latency: f64,
    /// Seconds of a decoding step with one row.
    #[arg(long, default_value_t = 0.02)]
    token_seconds: f64,
}

/// Means over a run's steps.
struct Measured {
    ranks: usize,
    sampling: f64,
    training: f64,
    step: f64,
    longest: f64,
}

/// A step's parts on so many machines, seconds.
struct Parts {
    sampling: f64,
    training: f64,
    all_reduce: f64,
    rest: f64,
}

impl Parts {
    fn of(one: &Measured, n: usize, args: &Args) -> Self {
        let count = n as f64;
        let rounds = count - 1.0;
        Self {
            sampling: (one.sampling / count).max(one.longest * args.token_seconds),
            training: one.training / count,
            all_reduce: 2.0 * rounds / count * args.adapter_bytes / args.bandwidth
                + 2.0 * rounds * args.latency,
            rest: (one.step - one.sampling - one.training).max(0.0),
        }
    }

    fn step(&self) -> f64 {
        self.sampling + self.training + self.all_reduce + self.rest
    }
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    let args = Args::parse();
    let mut runs = args.run.iter().map(|run| measured(run)).collect::<Result<Vec<_>>>()?;
    runs.sort_by_key(|run| run.ranks);
    let Some(one) = runs.iter().find(|run| run.ranks == 1) else {
        bail!("--run: one with 1 rank is needed, as `1=FOLDER`");
    };

    println!("ranks   measured s/step      the model's");
    for run in &runs {
        let model = Parts::of(one, run.ranks, &args).step();
        println!("{:>5} {:>17.2} {model:>16.2}", run.ranks, run.step);
    }
    println!("\nmachines  sampling  training  all-reduce  rest   s/step  speed-up  efficiency");
    for n in [1, 2, 4, 8, 16, 32, 64] {
        let parts = Parts::of(one, n, &args);
        let speed = one.step / parts.step();
        println!(
            "{n:>8} {:>9.2} {:>9.2} {:>11.3} {:>5.2} {:>8.2} {speed:>9.2} {:>10.0}%",
            parts.sampling,
            parts.training,
            parts.all_reduce,
            parts.rest,
            parts.step(),
            100.0 * speed / n as f64
        );
    }
    Ok(())
}

fn measured(run: &str) -> Result<Measured> {
    let form = || format!("--run {run}: expected RANKS=FOLDER");
    let (ranks, folder) = run.split_once('=').with_context(form)?;
    let ranks: usize = ranks.parse().with_context(form)?;
    let records = read_metrics(&PathBuf::from(folder)).with_context(|| format!("--run {run}"))?;
    if ranks == 0 || records.is_empty() {
        bail!("--run {run}: expected at least one rank and one step");
    }
    let mean = |of: &dyn Fn(&StepRecord) -> f64| {
        records.iter().map(of).sum::<f64>() / records.len() as f64
    };
    Ok(Measured {
        ranks,
        sampling: mean(&|r| r.seconds_sampling + r.seconds_reward),
        training: mean(&|r| r.seconds_training),
        step: mean(&|r| r.seconds),
        longest: mean(&|r| r.completion_tokens_max as f64),
    })
}
