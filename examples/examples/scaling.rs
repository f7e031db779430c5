//! What a step would take on more machines, from what it takes on those that there are.
//!
//! ```text
//! cargo run --release -p examples --example scaling -- --run 1=runs/alone/math --run 2=runs/ranks/math --adapter-bytes 156000000
//! ```
//!
//! In: runs of the same configuration with different numbers of ranks, each with its `metrics.jsonl`.
//! Out: the measured seconds of each beside the model's, the model's for 1 to 64 machines, and the
//! same for three other steps made of this one: bound by sampling (the answers eight times as long),
//! by training (four optimizer steps on each batch), and by the network (a tenth of its bandwidth).
//! The model, of a step on `n` machines:
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

const MACHINES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

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
#[derive(Clone, Copy)]
struct Measured {
    ranks: usize,
    sampling: f64,
    training: f64,
    step: f64,
    longest: f64,
}

/// A step on a network.
struct Scenario {
    name: &'static str,
    one: Measured,
    bandwidth: f64,
    latency: f64,
    adapter_bytes: f64,
    token_seconds: f64,
}

impl Scenario {
    /// As it was measured, and what it would be with more of one part.
    fn all(one: &Measured, args: &Args) -> [Self; 4] {
        let scenario = |name, one: Measured, bandwidth| Self {
            name,
            one,
            bandwidth,
            latency: args.latency,
            adapter_bytes: args.adapter_bytes,
            token_seconds: args.token_seconds,
        };
        let long = Measured {
            sampling: 8.0 * one.sampling,
            longest: 8.0 * one.longest,
            step: one.step + 7.0 * one.sampling,
            ..*one
        };
        let often =
            Measured { training: 4.0 * one.training, step: one.step + 3.0 * one.training, ..*one };
        [
            scenario("as measured", *one, args.bandwidth),
            scenario("sampling", long, args.bandwidth),
            // Each of the four steps reduces a gradient.
            Self {
                adapter_bytes: 4.0 * args.adapter_bytes,
                latency: 4.0 * args.latency,
                ..scenario("training", often, args.bandwidth)
            },
            scenario("network", *one, args.bandwidth / 10.0),
        ]
    }
}

/// A step's parts on so many machines, seconds.
struct Parts {
    sampling: f64,
    training: f64,
    all_reduce: f64,
    rest: f64,
}

impl Parts {
    fn of(scenario: &Scenario, n: usize) -> Self {
        let (one, count) = (&scenario.one, n as f64);
        let rounds = count - 1.0;
        Self {
            // One machine takes what it was measured to take.
            sampling: (one.sampling / count)
                .max((one.longest * scenario.token_seconds).min(one.sampling)),
            training: one.training / count,
            all_reduce: 2.0 * rounds / count * scenario.adapter_bytes / scenario.bandwidth
                + 2.0 * rounds * scenario.latency,
            rest: (one.step - one.sampling - one.training).max(0.0),
        }
    }

    fn step(&self) -> f64 {
        self.sampling + self.training + self.all_reduce + self.rest
    }

    /// The part that takes longest.
    fn bound(&self) -> &'static str {
        let parts = [
            ("sampling", self.sampling),
            ("training", self.training),
            ("all-reduce", self.all_reduce),
            ("the rest", self.rest),
        ];
        parts.into_iter().max_by(|one, other| one.1.total_cmp(&other.1)).map_or("", |part| part.0)
    }
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    let args = Args::parse();
    let mut runs = args.run.iter().map(|run| read(run)).collect::<Result<Vec<_>>>()?;
    runs.sort_by_key(|run| run.ranks);
    let Some(one) = runs.iter().find(|run| run.ranks == 1) else {
        bail!("--run: one with 1 rank is needed, as `1=FOLDER`");
    };

    let scenarios = Scenario::all(one, &args);
    let measured = &scenarios[0];
    println!("ranks   measured s/step      the model's");
    for run in &runs {
        let model = Parts::of(measured, run.ranks).step();
        println!("{:>5} {:>17.2} {model:>16.2}", run.ranks, run.step);
    }
    println!("\nmachines  sampling  training  all-reduce  rest   s/step  speed-up  efficiency");
    for n in MACHINES {
        let parts = Parts::of(measured, n);
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

    println!("\nspeed-up, and the part that takes longest, of a step that is bound by");
    let names = scenarios.iter().map(|scenario| format!("{:>19}", scenario.name));
    println!("machines {}", names.collect::<String>());
    for n in MACHINES {
        let cells = scenarios.iter().map(|scenario| {
            let parts = Parts::of(scenario, n);
            format!("{:>8.2} {:<10}", scenario.one.step / parts.step(), parts.bound())
        });
        println!("{n:>8} {}", cells.collect::<String>().trim_end());
    }
    Ok(())
}

fn read(run: &str) -> Result<Measured> {
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
