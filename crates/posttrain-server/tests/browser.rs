//! The page in a real browser: headless Chromium, from `POSTTRAIN_CHROMIUM` or the path; skipped
//! where there is none.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Client, Running, learn, wait_until};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

fn chromium() -> Option<PathBuf> {
    let named = std::env::var_os("POSTTRAIN_CHROMIUM").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut programs = std::env::split_paths(&path).map(|folder| folder.join("chromium"));
    let program = named.or_else(|| programs.find(|program| program.is_file()));
    if program.is_none() {
        println!(
            "SKIPPED: no browser: `chromium` is not on the path, and POSTTRAIN_CHROMIUM names none"
        );
    }
    program
}

#[test]
fn the_page_shows_what_is_there_and_complains_of_nothing() {
    let Some(chromium) = chromium() else { return };
    let running = Running::start(&[]);
    let client = Client::new(&running.url);
    let model = client.create_model(&client.session(), 0, &running.model());
    for step in 0..3 {
        client.pass(&model, 2 * step + 1, false);
        client.step(&model, i64::from(2 * step + 2));
    }
    client.save(&model, 100, "a-checkpoint");

    shows(&chromium, &running.url, &[model.as_str(), "a-checkpoint", "<polyline", "Download"]);
}

#[test]
fn the_operators_page_shows_what_was_decided_and_complains_of_nothing() {
    let Some(chromium) = chromium() else { return };
    let (_folder, path) = learn(2);
    let running = Running::start(&["--learn", &path]);
    let client = Client::new(&running.url);
    for score in [0.0, 1.0] {
        let body = json!({ "model": "ours", "prompt": "ab", "max_tokens": 3 });
        let (_, answer) = client.post("/v1/completions", &body);
        client.post("/feedback", &json!({ "id": answer["id"], "score": score }));
    }
    let decided = || client.get("/traffic.json").1["decisions"].as_array().unwrap().len() == 1;
    wait_until(decided);
    let shown = ["Version 0 serves", "undecided", "0.000 [0.000", "<circle", "<rect", "2 (100%)"];
    shows(&chromium, &format!("{}/traffic", running.url), &shown);
}

/// A page has these texts once its scripts have run, and says nothing on the console.
fn shows(chromium: &Path, url: &str, texts: &[&str]) {
    let profile = tempfile::tempdir().unwrap();
    let flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
                 --disable-background-networking --disable-component-update --disable-sync \
                 --enable-logging=stderr --virtual-time-budget=3000 --dump-dom";
    let mut command = Command::new(chromium);
    command.args(flags.split_whitespace());
    command.arg(format!("--user-data-dir={}", profile.path().display())).arg(url);
    let output = command.output().unwrap();

    let page = String::from_utf8_lossy(&output.stdout);
    for text in texts {
        assert!(page.contains(text), "{text}: {page}");
    }
    let log = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(said.is_empty(), "{said:?}");
}
