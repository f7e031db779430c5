//! `cargo xtask gpu-check`: what depends on a GPU, on the GPU, and a table of how it went.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::form::{Wanted, has_gpu};
use crate::setup;
use crate::workspace::Workspace;

/// Where tests that can run on either device are told which.
const DEVICE: (&str, &str) = ("POSTTRAIN_TEST_DEVICE", "cuda");

/// A suite, and what it says of the GPU.
struct Check {
    what: &'static str,
    package: &'static str,
    test: &'static str,
}

const CHECKS: [Check; 8] = [
    Check { what: "CUDA's library is really loaded", package: "tests", test: "cuda_library" },
    Check {
        what: "every family: logits, greedy tokens, gradients",
        package: "posttrain-model",
        test: "families",
    },
    Check { what: "a base in eight and four bits", package: "posttrain-model", test: "quantized" },
    Check { what: "decoding through the cache", package: "posttrain-rollout", test: "families" },
    Check { what: "an adapter on the head", package: "posttrain-train", test: "golden_head" },
    Check { what: "sampler, losses, steps: the CPU's results", package: "tests", test: "devices" },
    Check { what: "too little memory: smaller passes", package: "tests", test: "out_of_memory" },
    Check {
        what: "reinforcement learning: the reward rises",
        package: "posttrain-recipes",
        test: "families_rl",
    },
];

struct Outcome {
    what: &'static str,
    passed: bool,
    took: Duration,
}

/// Runs every check, even after one has failed. Without a GPU it says so, and fails: nothing has
/// been checked.
pub fn run(workspace: &Workspace) -> Result<ExitCode> {
    if !has_gpu() {
        eprintln!("error: no NVIDIA GPU is seen on this machine, and nothing has been checked");
        return Ok(ExitCode::FAILURE);
    }
    setup::run(workspace, Wanted::Whatever)?;
    let outcomes: Vec<_> =
        CHECKS.iter().map(|check| check.run(workspace)).collect::<Result<_>>()?;
    print!("\n{}", table(&outcomes));
    Ok(if outcomes.iter().all(|o| o.passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Check {
    fn command(&self, mut cargo: Command) -> Command {
        cargo.args([
            "test",
            "--release",
            "-p",
            self.package,
            "--test",
            self.test,
            "--",
            "--nocapture",
        ]);
        cargo.env(DEVICE.0, DEVICE.1);
        cargo
    }

    fn run(&self, workspace: &Workspace) -> Result<Outcome> {
        println!("\n=== {}", self.what);
        let started = Instant::now();
        let status = self.command(workspace.cargo()).status().context("cannot run cargo")?;
        Ok(Outcome { what: self.what, passed: status.success(), took: started.elapsed() })
    }
}

fn table(outcomes: &[Outcome]) -> String {
    let width = outcomes.iter().map(|o| o.what.len()).max().unwrap_or(0);
    let row = |o: &Outcome| {
        let verdict = if o.passed { "passed" } else { "FAILED" };
        format!("{:<width$}  {verdict}  {:>7.1} s\n", o.what, o.took.as_secs_f64())
    };
    outcomes.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_stands_out_in_the_table() {
        let outcome = |what, passed| Outcome { what, passed, took: Duration::from_millis(1500) };
        let table = table(&[outcome("one", true), outcome("another", false)]);
        assert_eq!(table, "one      passed      1.5 s\nanother  FAILED      1.5 s\n");
    }

    #[test]
    fn checks_are_told_the_device_and_name_suites_that_are_there() {
        for check in CHECKS {
            let command = check.command(Command::new("cargo"));
            assert!(
                command
                    .get_envs()
                    .any(|(name, value)| name == DEVICE.0 && value == Some(DEVICE.1.as_ref()))
            );
            let root = Workspace::find().unwrap().root;
            let folder = if check.package == "tests" {
                root.join("tests")
            } else {
                root.join("crates").join(check.package)
            };
            assert!(
                folder.join("tests").join(format!("{}.rs", check.test)).is_file(),
                "{}",
                check.test
            );
        }
    }
}
