//! The page in a real browser: headless Chromium, from `POSTTRAIN_CHROMIUM` or the path; skipped
//! where there is none.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Client, Running};
use std::path::PathBuf;
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

    let profile = tempfile::tempdir().unwrap();
    let flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
                 --disable-background-networking --disable-component-update --disable-sync \
                 --enable-logging=stderr --virtual-time-budget=3000 --dump-dom";
    let mut command = Command::new(chromium);
    command.args(flags.split_whitespace());
    command.arg(format!("--user-data-dir={}", profile.path().display())).arg(&running.url);
    let output = command.output().unwrap();

    let page = String::from_utf8_lossy(&output.stdout);
    for shown in [model.as_str(), "a-checkpoint", "<polyline", "Download"] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    let log = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(said.is_empty(), "{said:?}");
}
