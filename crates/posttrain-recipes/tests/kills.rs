//! Runs whose process is killed at random moments, inside of a save as well: no state is torn, no
//! line of the metrics is lost or doubled, and the end is that of a run that was left alone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(unix)]

mod digits;
mod world;

use posttrain_recipes::{GroupOrder, Mode, RlConfig, Silent};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use world::{World, config, examples, records, reward};

const FOLDER: &str = "POSTTRAIN_KILLS_FOLDER";
const MODE: &str = "POSTTRAIN_KILLS_MODE";
/// How often each mode's run is killed; more of them by this variable.
const KILLS: &str = "POSTTRAIN_KILLS";

fn run_config(mode: &str) -> RlConfig {
    let config = RlConfig { checkpoint_every: 1, ..config(12) };
    match mode {
        "on_policy" => config,
        "streaming" => RlConfig { mode: Mode::Streaming, ..config },
        "ahead" => RlConfig { mode: Mode::Asynchronous, max_staleness: 2, ..config },
        "arrival" => RlConfig {
            mode: Mode::Asynchronous,
            max_staleness: 2,
            group_order: GroupOrder::Arrival,
            ..config
        },
        other => unreachable!("{other}"),
    }
}

#[test]
#[ignore = "it is the process that the test below kills"]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let mode = std::env::var(MODE).unwrap();
    let run = World::new().run(run_config(&mode), Path::new(&folder), reward());
    run.train(&examples(0..40), &examples(40..60), &mut Silent).unwrap();
}

fn start(mode: &str, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored"])
        .env(FOLDER, folder)
        .env(MODE, mode)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills runs at moments drawn from the time that a whole one took, until one gets to its end.
fn run_with_kills(mode: &str, folder: &Path, whole: Duration, kills: usize) -> usize {
    let mut seed = 7u64;
    let mut killed = 0;
    loop {
        let mut child = start(mode, folder);
        if killed < kills {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let part = (seed >> 33) as f64 / (1u64 << 31) as f64;
            std::thread::sleep(whole.mul_f64(part));
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                child.wait().unwrap();
                killed += 1;
                continue;
            }
        }
        assert!(child.wait().unwrap().success(), "{mode}: the run failed after {killed} kills");
        return killed;
    }
}

#[test]
fn a_process_that_is_killed_at_any_moment_loses_and_doubles_nothing() {
    let kills = std::env::var(KILLS).ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let dir = tempfile::tempdir().unwrap();
    for mode in ["on_policy", "streaming", "ahead", "arrival"] {
        let whole = dir.path().join(format!("{mode}-whole"));
        let started = Instant::now();
        assert!(start(mode, &whole).wait().unwrap().success());
        let took = started.elapsed();

        // A run that got to its end is begun anew, until there were enough kills.
        let mut killed = 0;
        for round in 0.. {
            let folder = dir.path().join(format!("{mode}-{round}"));
            killed += run_with_kills(mode, &folder, took, kills - killed);
            let steps: Vec<u64> = records(&folder).iter().map(|record| record.step).collect();
            assert_eq!(steps, (1..=12).collect::<Vec<_>>(), "{mode}");
            if mode != "arrival" {
                assert_eq!(records(&folder), records(&whole), "{mode}");
                for file in ["best", "last", "checkpoints/step-000012/adapter"] {
                    let adapter = |root: &Path| {
                        std::fs::read(root.join(file).join("adapter_model.safetensors")).unwrap()
                    };
                    assert!(adapter(&folder) == adapter(&whole), "{mode}: {file}");
                }
            }
            std::fs::remove_dir_all(&folder).unwrap();
            if killed >= kills {
                break;
            }
        }
        println!("{mode}: {killed} kills, a whole run takes {took:?}");
    }
}
