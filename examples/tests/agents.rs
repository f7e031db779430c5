//! The examples of policies in environments, each from its repository's configuration to the summary, with
//! a random model and little to do.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::TinyModel;
use toml::Table;

/// The program, which `cargo test` builds before it runs any test; `cargo test --test` does not.
fn program(name: &str) -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let profile: PathBuf = test.parent().unwrap().parent().unwrap().into();
    let program = profile.join("examples").join(name);
    if !program.exists() {
        tests::skipped(&format!("the example `{name}` is not built: run `cargo test`"));
    }
    program.exists().then_some(program)
}

/// Every letter, digit and sign that a keyboard has.
fn characters() -> String {
    (' '..='~').chain(['\n']).collect()
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(into)), toml::Value::Table(from)) => merge(into, from),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// Two demonstrations, one step of two episodes, two tests.
const SHORT: &str = r#"
    seeds = [1]
    tasks = { train = 2, validation = 1, test = 2 }
    warm_start = { demonstrations = 2, epochs = 1, batch = 4 }
    [model]
    path = "model"
    device = "cpu"
    kind = "f32"
    [agent]
    steps = 1
    tasks = 1
    group_size = 2
    [agent.episode.sampling]
    max_tokens = 8
"#;

/// What an example told, and its summary: of the repository's configuration, as far as `differing` and
/// [`SHORT`] leave it. Run twice, it says the same at once.
fn played(name: &str, differing: &str) -> Option<(String, Value)> {
    let program = program(name)?;
    let dir = tempfile::tempdir().unwrap();
    let characters = characters();
    TinyModel { characters: &characters, context: 8192, sharper: 1.0 }
        .write(&dir.path().join("model"));

    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let text = std::fs::read_to_string(configs.join(format!("{name}.toml"))).unwrap();
    let mut config: Table = text.parse().unwrap();
    merge(&mut config, SHORT.parse().unwrap());
    merge(&mut config, differing.parse().unwrap());
    std::fs::write(dir.path().join("config.toml"), toml::to_string(&config).unwrap()).unwrap();

    let run = || {
        let output = Command::new(&program)
            .current_dir(dir.path())
            .env("OMP_WAIT_POLICY", "PASSIVE")
            .args(["--config", "config.toml", "--out", "out"])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {told}");
        let summary = std::fs::read_to_string(dir.path().join("out/summary.json")).unwrap();
        (told, serde_json::from_str::<Value>(&summary).unwrap())
    };
    let (told, summary) = run();
    let (again, same) = run();
    assert_eq!(same, summary, "{name}, started again");
    assert!(shown(&again).is_empty(), "{name} was done anew: {again}");
    let page = std::fs::read_to_string(dir.path().join("out/report.html")).unwrap();
    assert!(page.contains(", step 1, "), "{name}: no conversation on the page");
    Some((told, summary))
}

/// What the scripts earned, arm by arm.
fn shown(told: &str) -> Vec<f64> {
    let warm =
        told.lines().filter_map(|line| line.split_once("demonstrations, reward ")?.1.parse().ok());
    warm.collect()
}

fn has(summary: &Value, fields: &[&str]) {
    for field in fields {
        assert!(summary.get(field).is_some(), "`{field}` is missing: {summary}");
    }
}

#[test]
fn a_calculator_is_called_and_believed() {
    let Some((told, summary)) = played("tool_use", "") else { return };
    assert_eq!(shown(&told), [1.0], "{told}");
    has(&summary, &["seeds", "warm_start", "accuracy", "gained", "low", "high"]);
}

#[test]
fn a_searcher_that_prunes_finds_more_than_its_context_holds() {
    // Tokens are characters here.
    let longer = "environment = { search = { soft = 480, hard = 330 } }\n\
        agent = { episode = { budget = { context_tokens = 1000 } } }";
    let Some((told, summary)) = played("search_agent", longer) else { return };
    let earned = shown(&told);
    // All is found in seven turns, or a part of it.
    assert!((earned[0] - 1.43).abs() < 0.011, "{earned:?}: {told}");
    assert!(earned[1] > 0.3 && earned[1] < earned[0] - 0.3, "{earned:?}: {told}");
    has(
        &summary,
        &[
            "seeds",
            "recall",
            "recall_without_prune",
            "low",
            "high",
            "prune_accuracy",
            "tool_removed",
        ],
    );
}

#[test]
fn a_swarm_answers_by_its_helpers() {
    let Some((told, summary)) = played("swarm", "") else { return };
    // What the arms are shown that ask as they like, and the one that asks one by one.
    assert_eq!(shown(&told), [1.0, 1.0], "{told}");
    let fields = [
        "seeds",
        "critical_steps",
        "critical_steps_serial",
        "accuracy",
        "accuracy_serial",
        "low",
        "high",
    ];
    has(&summary, &fields);
}

#[test]
fn a_team_writes_functions_that_pass() {
    if Command::new("python3").arg("--version").output().is_err() {
        tests::skipped("`team` runs functions in python3, which is not here");
        return;
    }
    let Some((told, summary)) = played("team", "") else { return };
    assert_eq!(shown(&told), [1.0, 1.0], "{told}");
    has(&summary, &["seeds", "trained", "untrained", "single", "low", "high"]);
}

#[test]
fn whoever_remembers_what_is_where_knows_it_at_the_end() {
    let Some((told, summary)) = played("summaries", "environment = { token_cost = 0.0 }") else {
        return;
    };
    assert_eq!(shown(&told), [1.0], "{told}");
    has(
        &summary,
        &["seeds", "error", "error_prompted", "tokens", "tokens_prompted", "low", "high"],
    );
}
