//! Asserts about a program, decided where the program cannot reach.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;

use rustix::process::Pid;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncWriteExt, copy};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::time::timeout;

use super::test_case::Tests;
use crate::ProgramFailure;
use crate::sandbox::{Job, Overdue, Running, Sandbox, look};

const SOLUTION: &str = include_str!("solution.py");
const TESTER: &str = include_str!("tester.py");

/// What a test said.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "outcome", content = "note", rename_all = "snake_case")]
pub(crate) enum Outcome {
    Passed(String),
    Failed(String),
    /// The test is not Python: the data's mistake.
    Broken(String),
    /// The test hands the program what cannot be sent to another process.
    Unsupported(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Report {
    Ready {
        #[serde(rename = "ready")]
        _ready: bool,
    },
    Test(Outcome),
}

/// Runs the tests' asserts against `code`. One outcome for each, in order.
///
/// The program and its tests are in two sandboxes; this process passes lines between them. What the tests' process reports
/// can be believed, since the program never runs in it: printing, exiting, patching `assert` and reading the tests all
/// happen in the other one.
pub(crate) async fn run_asserts(
    sandbox: &Sandbox,
    interpreter: &[String],
    code: &str,
    tests: &Tests,
) -> Result<Vec<Outcome>, ProgramFailure> {
    let job =
        |script: &str| Job { program: [interpreter, &["-c".to_owned(), script.to_owned()]].concat(), ..Job::default() };
    let (solution, to_solution, from_solution) = sandbox.start(job(SOLUTION)).await?;
    let (mut tester, to_tester, from_tester) = sandbox.start(job(TESTER)).await?;
    let roots = [&solution, &tester].into_iter().filter_map(Running::root).collect();
    let program = json!(code).to_string();
    let task = json!({"tests": tests.asserts, "entry_points": tests.entry_points}).to_string();
    let talk = async {
        tokio::select! {
            ended = tester.ended() => ended,
            never = pass_on(program, from_tester, to_solution) => never,
            never = pass_on(task, from_solution, to_tester) => never,
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
    outcomes(&said, tests.asserts.len(), in_time)
}

/// Whether `talk` ended in time, where the program is to blame if it did not.
async fn limited(
    sandbox: &Sandbox,
    roots: Vec<Pid>,
    mut talk: Pin<&mut impl Future<Output = io::Result<()>>>,
) -> Result<bool, ProgramFailure> {
    let limit = sandbox.rules().time_limit;
    let ended = match timeout(limit, talk.as_mut()).await {
        Ok(ended) => ended,
        Err(_) => match look(roots, sandbox.rules().limits.cpu_seconds, talk).await {
            Overdue::Ended(ended) => ended,
            Overdue::AtFault => return Ok(false),
            Overdue::KeptWaiting => return Err(ProgramFailure::KeptWaiting { seconds: limit.as_secs_f64() }),
        },
    };
    ended.map(|()| true).map_err(|error| ProgramFailure::Io(Arc::new(error)))
}

/// Sends a line and then all that `from` says, up to its end. Never returns.
async fn pass_on(line: String, mut from: ChildStdout, mut to: ChildStdin) -> io::Result<()> {
    // Where a process has ended its pipe breaks, and the tester says what that means.
    let line = line + "\n";
    if to.write_all(line.as_bytes()).await.is_ok() {
        let _ = copy(&mut from, &mut to).await;
    }
    // The other side must see that no more comes.
    drop(to);
    std::future::pending().await
}

/// What the tester reported; what it did not come to has failed.
fn outcomes(said: &str, count: usize, in_time: bool) -> Result<Vec<Outcome>, ProgramFailure> {
    let mut reports = said.lines().filter_map(|line| serde_json::from_str(line).ok());
    if !matches!(reports.next(), Some(Report::Ready { .. })) && in_time {
        return Err(ProgramFailure::Exited { status: format!("the tests were not begun: {said}") });
    }
    let mut outcomes: Vec<_> =
        reports.filter_map(|report| if let Report::Test(test) = report { Some(test) } else { None }).collect();
    let why = if in_time { "the tests were stopped" } else { "out of time" };
    outcomes.resize(count, Outcome::Failed(why.to_owned()));
    Ok(outcomes)
}
