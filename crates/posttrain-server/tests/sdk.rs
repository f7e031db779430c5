//! The server driven by Tinker's own SDK, and by OpenAI's and Anthropic's own clients, which `cargo xtask test
//! --servers` installs. Without them the tests say that they are skipped.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Running, learn};
use std::path::Path;
use std::process::Command;

/// The Python that has all of them installed.
const PYTHON: &str = "POSTTRAIN_SDK_PYTHON";

const KEY: &str = "tml-of-the-tests-alone";

/// Runs a script of `tests/sdk` against a server, whose last line has to be `OK`.
fn drive(script: &str) {
    drive_with(script, 1.0, KEY, &[]);
}

/// [`drive`], against a server of a model that can be so much surer, with a file of this key and
/// with further arguments.
fn drive_with(script: &str, sharper: f64, key: &str, arguments: &[&str]) {
    let Ok(python) = std::env::var(PYTHON) else {
        println!(
            "SKIPPED: {script}: `cargo xtask test --servers` installs what it needs ({PYTHON})"
        );
        return;
    };
    // With a key, which the addresses of files that are given out do without.
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), key).unwrap();
    let keyed = [&["--keys", keys.path().to_str().unwrap()], arguments].concat();
    let running = Running::start_sharper(sharper, &keyed);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(script);
    let mut command = Command::new(python);
    command.arg(&script).args([running.url.as_str(), KEY]).env("NO_PROXY", "127.0.0.1,localhost");
    command.env("HF_HUB_OFFLINE", "1").env("TINKER_TELEMETRY", "0");
    let output = command.output().unwrap();

    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert!(output.status.success(), "{}: {said}\n{complained}", script.display());
    assert_eq!(said.lines().last(), Some("OK"), "{complained}");
}

#[test]
fn the_sdk_trains_samples_and_saves() {
    drive("drive.py");
}

#[test]
fn every_public_method_of_the_sdk_works_or_is_refused_in_words() {
    drive("methods.py");
}

#[test]
fn openais_client_chats_streams_and_is_refused_in_words() {
    drive("openai_client.py");
}

#[test]
fn anthropics_client_says_streams_calls_and_is_refused_in_words() {
    drive("anthropic_client.py");
}

#[test]
fn an_agent_program_of_openais_client_is_captured_token_for_token() {
    drive("gateway.py");
}

#[test]
fn an_agent_program_is_trained_as_it_is() {
    // A model that can be as sure as learning makes it.
    drive_with("train_agent.py", 8.0, KEY, &[]);
}

#[test]
fn what_openais_client_is_answered_can_be_spoken_of() {
    let (_folder, path) = learn(8);
    // What the operator's page shows is an operator's.
    let operator = format!("operator {KEY}");
    drive_with("traffic.py", 1.0, &operator, &["--learn", &path]);
}
