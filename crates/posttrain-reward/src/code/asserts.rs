//! Asserts about a program, decided where the program cannot reach.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Instant;

use rustix::process::Pid;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncWriteExt, copy};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::time::timeout;

use super::test_case::Tests;
use crate::outside::ProgramFailure;
use crate::sandbox::{Job, Overdue, Running, Sandbox, look};

const SOLUTION: &str = include_str!("solution.py");
const TESTER: &str = include_str!("tester.py");

/// What a test said.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "outcome", content = "note", rename_all = "snake_case")]
pub(crate) enum Outcome {
    Passed(String),
    Failed(String),
    /// The test is not Python, or no program could be judged by it: the data's mistake.
    Broken(String),
    /// The test needs what cannot be sent to another process, or what only the program could
    /// decide.
    Unsupported(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Report {
    Ready {
        #[serde(rename = "ready")]
        _ready: bool,
    },
    /// The program has been handed values by the last test, and must not see another one.
    Fresh {
        #[serde(rename = "fresh")]
        _fresh: bool,
    },
    Test(Outcome),
}

/// Runs the tests' asserts against `code`. One outcome for each, in order.
///
/// The program and its tests are in two sandboxes; this process passes lines between them. What the
/// tests' process reports can be believed, since the program never runs in it: printing, exiting,
/// patching `assert` and reading the tests all happen in the other one. A program that a test has
/// handed values to is replaced by a fresh one for the next test.
pub(crate) async fn run_asserts(
    sandbox: &Sandbox,
    interpreter: &[String],
    code: &str,
    tests: &Tests,
) -> Result<Vec<Outcome>, ProgramFailure> {
    let mut outcomes = Vec::new();
    while outcomes.len() < tests.asserts.len() {
        let rest = &tests.asserts[outcomes.len()..];
        let run = run_once(sandbox, interpreter, code, rest, &tests.entry_points).await?;
        outcomes.extend(run);
    }

    Ok(outcomes)
}

/// Runs asserts up to the first one after which the program must be replaced; at least one.
async fn run_once(
    sandbox: &Sandbox,
    interpreter: &[String],
    code: &str,
    asserts: &[String],
    entry_points: &[String],
) -> Result<Vec<Outcome>, ProgramFailure> {
    let (solution, to_solution, from_solution) =
        sandbox.start(script(interpreter, SOLUTION)).await?;
    let (mut tester, to_tester, from_tester) = sandbox.start(script(interpreter, TESTER)).await?;
    let roots = [&solution, &tester].into_iter().filter_map(Running::root).collect();

    // They outlive the talk: a tester that saw its pipe close would take the program for ended, not
    // for late.
    let mut to_solution = Some(to_solution);
    let mut to_tester = Some(to_tester);
    let program = json!(code).to_string();
    let task = json!({"tests": asserts, "entry_points": entry_points}).to_string();
    let talk = async {
        tokio::select! {
            ended = tester.ended() => ended,
            never = pass_on(program, from_tester, &mut to_solution) => never,
            never = pass_on(task, from_solution, &mut to_tester) => never,
        }
    };
    let in_time = limited(sandbox, roots, pin!(talk)).await?;

    // The tester first: what it has reported by now is not that the program was ended.
    let (tester_begun, said) = tester.end().await?;
    let (begun, words) = solution.end().await?;
    if in_time && !begun {
        return Err(ProgramFailure::Sandbox { reason: words });
    }
    if in_time && !tester_begun {
        return Err(ProgramFailure::Sandbox { reason: said });
    }

    outcomes(&said, asserts.len(), in_time)
}

fn script(interpreter: &[String], script: &str) -> Job {
    let program = [interpreter, &["-c".to_owned(), script.to_owned()]].concat();

    Job { program, ..Job::default() }
}

/// Whether `talk` ended in time, where the program is to blame if it did not.
async fn limited(
    sandbox: &Sandbox,
    roots: Vec<Pid>,
    mut talk: Pin<&mut impl Future<Output = io::Result<()>>>,
) -> Result<bool, ProgramFailure> {
    let limit = sandbox.rules().time_limit;
    let start = Instant::now();
    let ended = match timeout(limit, talk.as_mut()).await {
        Ok(ended) => ended,
        Err(_) => {
            match look(roots, start.elapsed(), sandbox.rules().limits.cpu_seconds, talk).await {
                Overdue::Ended(ended) => ended,
                Overdue::AtFault => return Ok(false),
                Overdue::KeptWaiting => {
                    return Err(ProgramFailure::KeptWaiting { seconds: limit.as_secs_f64() });
                }
            }
        }
    };
    ended.map(|()| true).map_err(|error| ProgramFailure::Io(Arc::new(error)))
}

/// Sends a line and then all that `from` says, up to its end. Never returns.
async fn pass_on(
    line: String,
    mut from: ChildStdout,
    to: &mut Option<ChildStdin>,
) -> io::Result<()> {
    // Where a process has ended its pipe breaks, and the tester says what that means.
    let line = line + "\n";
    if let Some(pipe) = to.as_mut()
        && pipe.write_all(line.as_bytes()).await.is_ok()
    {
        let _ = copy(&mut from, pipe).await;
    }
    // The other side must see that no more comes.
    *to = None;
    std::future::pending().await
}

/// What the tester reported. What it did not come to has failed, unless it asked for a fresh
/// program for that.
fn outcomes(said: &str, count: usize, in_time: bool) -> Result<Vec<Outcome>, ProgramFailure> {
    let mut reports = said.lines().filter_map(|line| serde_json::from_str(line).ok());
    if !matches!(reports.next(), Some(Report::Ready { .. })) && in_time {
        return Err(ProgramFailure::Exited { status: format!("the tests were not begun: {said}") });
    }

    let mut outcomes = Vec::new();
    for report in reports {
        match report {
            Report::Test(outcome) => outcomes.push(outcome),
            Report::Fresh { .. } if !outcomes.is_empty() => return Ok(outcomes),
            Report::Fresh { .. } | Report::Ready { .. } => {}
        }
    }

    let why = if in_time { "the tests were stopped" } else { "out of time" };
    outcomes.resize(count, Outcome::Failed(why.to_owned()));
    Ok(outcomes)
}
