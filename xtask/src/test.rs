//! `cargo xtask test`: set-up, formatting, lints, documentation, and every test, ending in one line
//! that sums them up.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result};

use crate::form::Wanted;
use crate::judge_server::JudgeServer;
use crate::workspace::Workspace;
use crate::{exit_code, sdk, setup};

const FORMAT: &[&str] = &["fmt", "--all", "--check"];
const CLIPPY: &[&str] =
    &["clippy", "--workspace", "--features", ALL, "--all-targets", "--", "-D", "warnings"];
const DOCUMENTATION: &[&str] = &["doc", "--workspace", "--no-deps"];
const TESTS: &[&str] = &["test", "--workspace", "--features", ALL, "--no-fail-fast"];
/// What the examples leave out of a first build; the libraries' own features are on by `tests`.
const ALL: &str = "examples/kubernetes";

/// Tests counted over every suite.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// Runs every check, even after one has failed; the exit status is that of the first which did.
pub fn run(workspace: &Workspace, servers: bool) -> Result<ExitCode> {
    heading("set-up");
    setup::run(workspace, Wanted::Whatever)?;
    if !servers {
        return check(workspace, &[]);
    }
    let sdk = sdk::ensure(workspace)?;
    let server = JudgeServer::new(workspace);
    let ran_before = server.running()?.is_some();
    let url = server.start(workspace)?;
    println!("judge server: {url}");
    let outcome = check(
        workspace,
        &[("POSTTRAIN_JUDGE_URL", url.into()), ("POSTTRAIN_SDK_PYTHON", sdk.into())],
    );
    if !ran_before {
        server.stop()?;
    }
    outcome
}

fn check(workspace: &Workspace, servers: &[(&str, OsString)]) -> Result<ExitCode> {
    let mut failed = Vec::new();
    for step in [FORMAT, CLIPPY, DOCUMENTATION] {
        heading(&format!("cargo {}", step.join(" ")));
        // A link to nothing is only a warning to rustdoc.
        let status = workspace.cargo().args(step).env("RUSTDOCFLAGS", "-D warnings").status();
        failed.push((step, status.context("cannot run cargo")?));
    }
    heading(&format!("cargo {}", TESTS.join(" ")));
    let mut tests = workspace.cargo();
    tests.args(TESTS).envs(servers.iter().map(|(name, value)| (name, value)));
    let (status, tally) = count_tests(&mut tests, &mut io::stdout())?;
    failed.push((TESTS, status));
    failed.retain(|(_, status)| !status.success());
    for (step, status) in &failed {
        println!("failed: cargo {} ({status})", step.join(" "));
    }
    println!("{tally}");
    Ok(failed.first().map_or(ExitCode::SUCCESS, |(_, status)| exit_code(*status)))
}

fn heading(text: &str) {
    println!("\n=== {text}");
}

/// Shows what the tests print as they print it, and adds their results up.
fn count_tests(command: &mut Command, screen: &mut impl Write) -> Result<(ExitStatus, Tally)> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let mut lines = BufReader::new(child.stdout.take().context("cargo has no output")?);
    let (mut line, mut tally) = (Vec::new(), Tally::default());
    while lines.read_until(b'\n', &mut line).context("cannot read cargo's output")? > 0 {
        screen.write_all(&line).context("cannot write")?;
        tally.add(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok((child.wait().context("cannot wait for cargo")?, tally))
}

impl Tally {
    /// Adds a suite's last line, such as
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; …`.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) =
            line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split(';') {
            let mut words = count.split_whitespace();
            let number = words.next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                Some("ignored") => self.skipped += number,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_summed() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests\n",
            "test a ... ok\n",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.00s\n",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s\n",
            "a test that prints test result: ok. 5 passed\n",
        ] {
            tally.add(line);
        }
        assert_eq!(tally, Tally { passed: 13, failed: 2, skipped: 1 });
        assert_eq!(tally.to_string(), "13 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn a_child_is_streamed_and_its_status_kept() {
        let script =
            "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; printf '\\377'; exit 101";
        let mut screen = Vec::new();
        let (status, tally) =
            count_tests(Command::new("sh").args(["-c", script]), &mut screen).unwrap();
        assert_eq!((status.code(), tally.passed), (Some(101), 2));
        assert!(screen.starts_with(b"test result: ok") && screen.ends_with(b"\xff"));
    }
}
