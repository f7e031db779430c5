//! Is it better to train one model on all domains, or one specialist a domain and a router in front
//! of them?
//!
//! ```text
//! cargo run --release -p examples --example four_models -- --config examples/configs/demo.toml --out runs/demo
//! ```
//!
//! Trains a specialist a domain and a generalist on one base, tests all of them and the base on
//! every domain, measures routers, puts every test question to the specialist that the router
//! chooses, and writes `report.html` and `report.json`: after each model what there is so far, with
//! some of its answers beside the base's on the terminal. Interrupted or killed, it goes on where it
//! was when it is started again with the same arguments.
//!
//! `--launch slurm` submits the arms as an array of jobs of a Slurm cluster, and the report as a job
//! that waits for them; `--launch kubernetes` creates a job for each (built with `--features
//! kubernetes`). `--cluster FILE` says what they ask the cluster for.
//!
//! `--parallel 2` trains two arms at a time, each in a process of its own with half of the cores or
//! GPUs. `--arm NAME` does one arm alone, for a scheduler that runs them as jobs; `--report` joins
//! what they left.

use anyhow::{Result, bail, ensure};
use clap::{Parser, ValueEnum};
use examples::{log_to_stderr, refuse_ranks, stop_on_interrupt};
use posttrain::experiment::{
    ArmEnd, DryRun, Experiment, ExperimentConfig, Lines, Parallel, PartStatus, Report, Slot,
    assemble, plan, with_seeds, write_report,
};
use posttrain::recipes::{Console, ModelSource};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

mod launch;
mod so_far;

/// The exit status of a run that was interrupted and can go on, as a shell gives it to one that an
/// interrupt has ended.
const INTERRUPTED: u8 = 130;

/// Trains specialists and a generalist, and says which side is better.
#[derive(Parser)]
struct Args {
    /// The experiment's configuration.
    #[arg(long)]
    config: PathBuf,
    /// The run's folder.
    #[arg(long)]
    out: PathBuf,
    /// A seed in place of the configuration's.
    #[arg(long)]
    seed: Option<u64>,
    /// Train and test this arm alone, without a report.
    #[arg(long, value_name = "NAME")]
    arm: Option<String>,
    /// Train so many arms at a time, each in a process of its own.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with_all = ["arm", "report"])]
    parallel: usize,
    /// Where the arms and the report are run: here, or as jobs of a cluster, which are submitted;
    /// with --dry-run they are only shown.
    #[arg(long, value_enum, default_value_t = Launch::Local)]
    launch: Launch,
    /// What the jobs ask the cluster for: a TOML file of `posttrain_experiment::SlurmConfig`'s or
    /// `KubernetesConfig`'s fields.
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// How often an arm that died is started again under --parallel.
    #[arg(long, default_value_t = 1)]
    retries: usize,
    /// Train nothing: join what is there, with the arms that are missing named.
    #[arg(long)]
    report: bool,
    /// The folder of the same experiment under another seed, for the report; may be given several
    /// times.
    #[arg(long, value_name = "DIR")]
    also: Vec<PathBuf>,
    /// Everything but the weights: check configuration, data, prompts, memory, reward and servers,
    /// and say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// The cores of this process; set by --parallel.
    #[arg(long, hide = true, value_delimiter = ',')]
    cores: Vec<usize>,
    /// Arms that run beside this one, itself counted; set by --parallel.
    #[arg(long, hide = true, default_value_t = 1)]
    at_a_time: usize,
}

/// Where arms are run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Launch {
    /// This machine.
    Local,
    /// Jobs of a Slurm cluster.
    Slurm,
    /// Jobs of a Kubernetes cluster.
    Kubernetes,
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<ExitCode> {
    log_to_stderr();
    let args = Args::parse();
    refuse_ranks()?;
    ensure!(args.parallel >= 1, "--parallel must be at least 1");
    keep_to(&args.cores)?;
    let mut config = ExperimentConfig::read(&args.config)?;
    config.seed = args.seed.unwrap_or(config.seed);
    config.validate()?;
    check(&args, &config)?;
    let jobs = launch::jobs(&args, &config)?;
    if args.dry_run {
        dry_run(&config)?;
        if let Some(jobs) = jobs {
            println!("\n{}", jobs.text()?);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(jobs) = jobs {
        println!("{}", jobs.submit(&args.out)?);
        return Ok(ExitCode::SUCCESS);
    }
    let ends = if args.parallel > 1 { in_parallel(&args, &config)? } else { Vec::new() };
    let failed: Vec<&ArmEnd> = ends.iter().filter(|end| !end.ok).collect();
    if with_model(&args, &config)? == PartStatus::Stopped {
        eprintln!("stopped; start it again with the same arguments to go on");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    if args.arm.is_none() {
        let report = with_seeds(assemble(&args.out)?, &args.also)?;
        write_report(&args.out, &report)?;
        summarize(&report);
        eprintln!("wrote {}", args.out.join("report.html").display());
    }
    if !failed.is_empty() {
        let arms: Vec<String> =
            failed.iter().map(|end| format!("{} ({})", end.arm, end.status)).collect();
        bail!("arms that did not finish: {}; start it again to go on with them", arms.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// What a run would only meet after hours, or with a folder begun.
fn check(args: &Args, config: &ExperimentConfig) -> Result<()> {
    ensure!(!args.out.is_file(), "--out {}: expected a folder, this is a file", args.out.display());
    for folder in &args.also {
        let report = folder.join("report.json");
        ensure!(
            report.is_file(),
            "--also {}: expected a finished run's folder, there is no report.json",
            folder.display()
        );
    }
    if let Some(name) = &args.arm {
        let arms: Vec<String> =
            plan(&config.clone().resolved())?.1.into_iter().map(|arm| arm.name).collect();
        ensure!(arms.contains(name), "there is no arm `{name}`; there are: {}", arms.join(", "));
    }
    Ok(())
}

/// Everything that needs the model in this process.
fn with_model(args: &Args, config: &ExperimentConfig) -> Result<PartStatus> {
    let model = config.model.load()?;
    let router = config.routing.model.as_ref().map(ModelSource::load).transpose()?;
    let base = config.model.path.display().to_string();
    let mut experiment = Experiment::new(config.clone(), model, &base, &args.out)?;
    experiment = experiment.with_arms_at_a_time(args.at_a_time);
    if let Some(router) = router {
        experiment = experiment.with_router_model(router);
    }
    stop_on_interrupt(experiment.stop_flag())?;
    let mut console = Console::default();
    Ok(match &args.arm {
        Some(arm) => experiment.run_arm(arm, &mut console)?,
        None if args.report || args.parallel > 1 => experiment.finish(&mut console)?,
        None => {
            experiment.run_telling(&mut console, &mut |model| so_far::tell(&args.out, model))?
        }
    })
}

/// Trains the arms in processes of this same program.
fn in_parallel(args: &Args, config: &ExperimentConfig) -> Result<Vec<ArmEnd>> {
    let (_, arms) = plan(&config.clone().resolved())?;
    let program = std::env::current_exe()?;
    let parallel = Parallel {
        at_a_time: args.parallel,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        gpus: tch::Cuda::device_count().max(0) as usize,
        retries: args.retries,
    };
    let numbers = |all: &[usize]| all.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let command = |arm: &posttrain::experiment::Arm, slot: &Slot| {
        let mut command = Command::new(&program);
        command
            .arg("--config")
            .arg(&args.config)
            .arg("--out")
            .arg(&args.out)
            .args(["--arm", &arm.name]);
        command.args(["--at-a-time", &args.parallel.to_string(), "--cores", &numbers(&slot.cores)]);
        command.args(args.seed.iter().flat_map(|seed| ["--seed".to_owned(), seed.to_string()]));
        let threads = slot.cores.len().to_string();
        command.env("OMP_NUM_THREADS", &threads).env("RAYON_NUM_THREADS", &threads);
        if !slot.gpus.is_empty() {
            command.env("CUDA_VISIBLE_DEVICES", numbers(&slot.gpus));
        }
        command
    };
    let line: Lines = Arc::new(|arm: &str, line: &str| eprintln!("{arm:>12} │ {line}"));
    // An interrupt reaches the arms by themselves; here it keeps further ones from being started.
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_interrupt(stop.clone())?;
    Ok(parallel.run(&arms, &command, &stop, &line)?)
}

/// Keeps this process and its threads to some cores.
fn keep_to(cores: &[usize]) -> Result<()> {
    #[cfg(target_os = "linux")]
    if !cores.is_empty() {
        let mut set = rustix::thread::CpuSet::new();
        cores.iter().for_each(|core| set.set(*core));
        rustix::thread::sched_setaffinity(None, &set)?;
    }
    Ok(())
}

/// Says what would be done; fails where something would stop it.
fn dry_run(config: &ExperimentConfig) -> Result<()> {
    let run = DryRun::of(config)?;
    print!("{run}");
    ensure!(run.problems.is_empty(), "{} of these would stop the run", run.problems.len());
    Ok(())
}

fn summarize(report: &Report) {
    let domains = report.domains();
    println!(
        "\n{:<12}{}   steps  seconds",
        "test, T = 1",
        domains.iter().map(|d| format!("{d:>23}")).collect::<String>()
    );
    let row = |name: &str,
               test: &std::collections::BTreeMap<String, posttrain::statistics::Share>,
               end: String| {
        let cell = |d: &str| {
            test.get(d)
                .map_or(String::new(), |a| format!("{:.3} [{:.3}, {:.3}]", a.share, a.low, a.high))
        };
        println!(
            "{name:<12}{}{end}",
            domains.iter().map(|d| format!("{:>23}", cell(d))).collect::<String>()
        );
    };
    if let Some(base) = &report.base {
        row("base", &base.test, String::new());
    }
    for name in report.model_names() {
        let model = &report.models[name];
        row(name, &model.test, format!("{:>8}{:>9.0}", model.steps, model.seconds));
    }
    for (name, router) in &report.router {
        println!("router {name}: {:.3}", router.accuracy);
    }
    if let Some(h) = &report.head_to_head {
        println!(
            "routed {:.3} [{:.3}, {:.3}], generalist {:.3} [{:.3}, {:.3}], difference {:+.3} [{:+.3}, {:+.3}], McNemar p = {:.3}",
            h.routed.share,
            h.routed.low,
            h.routed.high,
            h.generalist.share,
            h.generalist.low,
            h.generalist.high,
            h.difference,
            h.low,
            h.high,
            h.mcnemar_p
        );
    }
    if let Some(clock) = &report.wall_clock {
        println!(
            "training: generalist {:.0} s, specialists {:.0} s in all, the longest {:.0} s: {:.2} times sooner side by side",
            clock.generalist_s,
            clock.specialists_total_s,
            clock.specialists_critical_path_s,
            clock.ratio
        );
    }
    report
        .missing
        .iter()
        .for_each(|missing| println!("missing: {} ({})", missing.model, missing.reason));
}
