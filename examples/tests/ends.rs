//! What the shell hears when a program ends.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(unix)]

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Set in the process that is interrupted.
const INTERRUPTED: &str = "POSTTRAIN_TEST_INTERRUPTED";

/// Does nothing but wait, in a process of its own.
fn wait_for_interrupts() -> ! {
    let stop = Arc::new(AtomicBool::new(false));
    examples::stop_on_interrupt(stop).unwrap();
    eprintln!("ready");
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

#[test]
fn a_second_interrupt_ends_with_130() {
    if std::env::var_os(INTERRUPTED).is_some() {
        wait_for_interrupts();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_second_interrupt_ends_with_130", "--nocapture"])
        .env(INTERRUPTED, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut next = |expected: &str| {
        let line = told.by_ref().map_while(Result::ok).find(|line| line.contains(expected));
        assert!(line.is_some(), "{expected}");
    };
    next("ready");
    kill_process(pid, Signal::INT).unwrap();
    next("stopping after this step");
    kill_process(pid, Signal::INT).unwrap();
    next("stopped at once");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// A program of `examples/`, which `cargo test` builds before it runs any test; `cargo test --test`
/// does not.
fn program(name: &str) -> Option<Command> {
    let test = std::env::current_exe().unwrap();
    let profile: PathBuf = test.parent().unwrap().parent().unwrap().into();
    let program = profile.join("examples").join(name);
    program.exists().then(|| Command::new(program))
}

#[test]
fn a_judge_that_judged_nothing_fails_and_says_why() {
    let Some(mut judge) = program("judge") else {
        println!("SKIPPED: the example `judge` is not built: run `cargo test`, without `--test`");
        return;
    };
    // A port that was free a moment ago, and that nobody listens at.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut child = judge
        .args(["--url", &format!("http://127.0.0.1:{port}/v1"), "--model", "m", "--seconds", "5"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let line = r#"{"question": "2 + 2?", "reference": "4", "response": "4"}"#;
    child.stdin.take().unwrap().write_all(format!("{line}\nno json\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().filter(|line| line.contains("\"error\"")).count(), 2, "{lines}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("error: ") && !told.contains("stack backtrace"), "{told}");
}
