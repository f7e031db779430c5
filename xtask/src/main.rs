//! `cargo xtask`: the workspace's own tool. `setup` installs libtorch and the demonstration model
//! into folders that git ignores, `test` checks everything, `bench` measures, `demo` runs the main
//! job.

use std::process::{ExitCode, ExitStatus};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::form::Wanted;
use crate::workspace::Workspace;

mod bench;
mod compiler;
mod demo;
mod demo_model;
mod disk;
mod form;
mod gpu_check;
mod judge_server;
mod libtorch;
mod mutants;
mod peers;
mod python;
mod sdk;
mod setup;
mod slurm;
mod test;
mod venv;
mod wheels;
mod workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Sets the workspace up, tests it, and runs its demonstration"
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install libtorch and the demonstration model (quick when they are there)
    Setup {
        /// Install the small CPU form (1.2 GB) even where there is a GPU
        #[arg(long, conflicts_with = "cuda")]
        cpu: bool,
        /// Install the full CUDA form even where no GPU is seen
        #[arg(long)]
        cuda: bool,
    },
    /// Set up, then check the formatting, run clippy and run every test
    Test {
        /// Start a judge server first, so that the tests which need one run, and stop it afterwards
        #[arg(long)]
        servers: bool,
    },
    /// Start a small judge server on this machine (OpenAI-compatible, llama-cpp-python) and print
    /// its address
    JudgeServer {
        /// Stop it instead
        #[arg(long)]
        stop: bool,
    },
    /// Start a Slurm cluster of one node on this machine, in a folder of its own, and print how to
    /// use it
    Slurm {
        /// Stop it instead
        #[arg(long)]
        stop: bool,
    },
    /// Put faults into the server on purpose, one after another, in a copy of the tree, and see that its
    /// tests catch each (about an hour)
    Mutants {
        /// Those alone that have this in their name
        #[arg(default_value = "")]
        filter: String,
    },
    /// Set up, then run every benchmark, beside the peers where they are given, and write
    /// target/bench/report.json
    Bench(bench::Arguments),
    /// Set up, then run what depends on a GPU on the GPU, and print a table; fails where there is
    /// none
    GpuCheck,
    /// Set up, then train the demonstration model with progress bars
    Demo {
        /// Passed on to the example, whose paths count from the workspace's root
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        extra: Vec<String>,
    },
}

fn main() -> ExitCode {
    // Written out, since anyhow's own way adds a backtrace under RUST_BACKTRACE, and these messages
    // are for users.
    run(Arguments::parse().task).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(task: Task) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match task {
        Task::Setup { cpu, cuda } => {
            setup::run(&workspace, Wanted::from_flags(cpu, cuda)).map(|()| ExitCode::SUCCESS)
        }
        Task::Bench(arguments) => bench::run(&workspace, &arguments),
        Task::Test { servers } => test::run(&workspace, servers),
        Task::Mutants { filter } => mutants::run_all(&workspace, &filter),
        Task::GpuCheck => gpu_check::run(&workspace),
        Task::JudgeServer { stop } => judge_server::run(&workspace, stop),
        Task::Slurm { stop } => slurm::run(&workspace, stop),
        Task::Demo { extra } => demo::run(&workspace, &extra),
    }
}

/// A child's exit status as our own; 1 where a signal ended it.
fn exit_code(status: ExitStatus) -> ExitCode {
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
