//! The experiment's promises on a small random model: both sides see the same, the routed answers
//! are the specialists', a killed run ends in the report of an uninterrupted one, and the death of
//! an arm is that arm's alone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use posttrain_experiment::{
    Arm, ExperimentError, Lines, Parallel, PartStatus, Slot, TestAnswers, assemble, plan,
    with_seeds,
};
use posttrain_recipes::{Event, Observer, Silent};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use world::{World, config, reproducible};

fn whole(folder: &Path) -> serde_json::Value {
    let world = World::new();
    assert_eq!(world.experiment(config(folder), folder).run_silently().unwrap(), PartStatus::Done);
    reproducible(folder)
}

#[test]
fn a_run_keeps_the_contract_of_its_report() {
    let dir = tempfile::tempdir().unwrap();
    whole(dir.path());
    let report = serde_json::to_value(assemble(dir.path()).unwrap()).unwrap();
    for place in [
        "/config/rl/steps",
        "/data/per_domain/low/train",
        "/data/examples_seen/generalist",
        "/models/low/steps",
        "/models/low/seconds",
        "/models/low/best_step",
        "/models/low/validation/0/1",
        "/models/low/dynamics/mean_abs_step_change",
        "/models/generalist/dynamics/reward_std",
        "/models/generalist/test/high/low",
        "/models/generalist/test_greedy/high/n",
        "/base/test/low/accuracy",
        "/router/keywords/accuracy",
        "/router/likelihood/confusion/0/0",
        "/router/hidden/ece",
        "/routing_errors/cost",
        "/head_to_head/routed/accuracy",
        "/head_to_head/oracle/accuracy",
        "/head_to_head/generalist/accuracy",
        "/head_to_head/difference",
        "/head_to_head/mcnemar_p",
        "/wall_clock/generalist_s",
        "/wall_clock/specialists_total_s",
        "/wall_clock/specialists_critical_path_s",
        "/wall_clock/ratio",
        "/samples/29/response",
    ] {
        assert!(
            report.pointer(place).is_some_and(|value| !value.is_null()),
            "{place} is not there"
        );
    }
    assert_eq!(report["judge"], serde_json::Value::Null);
    let seen = &report["data"]["examples_seen"];
    assert_eq!(
        (&seen["low"], &seen["high"], &seen["generalist"]),
        (&16.into(), &16.into(), &32.into())
    );
    let steps = |model: &str| report["models"][model]["steps"].as_u64().unwrap();
    assert_eq!((steps("low"), steps("high"), steps("generalist")), (4, 4, 8));
}

#[test]
fn routed_answers_are_the_specialists_own() {
    let dir = tempfile::tempdir().unwrap();
    whole(dir.path());
    let answers = |name: &str| TestAnswers::read(&dir.path().join(name)).unwrap().unwrap();
    let routing: serde_json::Value = serde_json::from_str(
        &std::fs::read_to_string(dir.path().join("routing/keywords.json")).unwrap(),
    )
    .unwrap();
    let specialists: BTreeMap<String, TestAnswers> =
        ["high", "low"].map(|name| (name.to_owned(), answers(name))).into();
    let routed = answers("routed");
    let mut chosen = BTreeMap::new();
    for (place, decision) in routing["decisions"].as_array().unwrap().iter().enumerate() {
        let label =
            routing["labels"][decision["label"].as_u64().unwrap() as usize].as_str().unwrap();
        *chosen.entry(label).or_insert(0) += 1;
        for drawing in
            [|a: &TestAnswers| a.sampled.clone(), |a: &TestAnswers| a.greedy.clone().unwrap()]
        {
            assert_eq!(drawing(&routed)[place], drawing(&specialists[label])[place]);
        }
    }
    assert_eq!(chosen.len(), 2, "the test sees one specialist only: {chosen:?}");
}

#[test]
fn a_seed_of_its_own_gives_an_outcome_of_its_own() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    whole(one.path());
    let world = World::new();
    let mut other = config(two.path());
    other.seed = 6;
    world.experiment(other, two.path()).run_silently().unwrap();
    for folder in [&one, &two] {
        posttrain_experiment::write_report(folder.path(), &assemble(folder.path()).unwrap())
            .unwrap();
    }
    let joined = with_seeds(assemble(one.path()).unwrap(), &[two.path()]).unwrap();
    let seeds: Vec<u64> = joined.seeds.iter().map(|outcome| outcome.seed).collect();
    assert_eq!(seeds, [5, 6]);
    // Neither the same run once more, nor another experiment.
    let error = with_seeds(assemble(one.path()).unwrap(), &[one.path()]).unwrap_err().to_string();
    assert!(error.contains("seed 5 is there already"), "{error}");
    let mut report = assemble(one.path()).unwrap();
    report.config["rl"]["learning_rate"] = 1.0.into();
    let error = with_seeds(report, &[two.path()]).unwrap_err().to_string();
    assert!(error.contains("`rl.learning_rate` differs"), "{error}");
    assert_ne!(reproducible(one.path())["models"], reproducible(two.path())["models"]);
}

#[test]
fn the_configurations_of_the_examples_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/configs");
    for name in ["demo", "full-cpu", "ramp"] {
        let config =
            posttrain_experiment::ExperimentConfig::read(&folder.join(format!("{name}.toml")))
                .unwrap();
        let config = config.resolved();
        config.validate().unwrap();
        config.reward.build().unwrap();
        // What is kept in a run's folder is read again by the report.
        let kept: posttrain_experiment::ExperimentConfig =
            toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(kept, config, "{name}");
        if name != "ramp" {
            assert_eq!(plan(&config).unwrap().1.len(), 4, "{name}");
        }
    }
}

#[test]
fn another_configuration_and_an_unknown_arm_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new();
    let experiment = world.experiment(config(dir.path()), dir.path());
    let error = experiment.run_arm("none", &mut Silent).unwrap_err();
    assert_eq!(error.to_string(), "there is no arm `none`; there are: high, low, generalist");
    let mut other = config(dir.path());
    other.rl.learning_rate = 1.0;
    let Err(error) =
        posttrain_experiment::Experiment::new(other, world.model(), "random", dir.path())
    else {
        panic!("accepted");
    };
    assert!(matches!(error, ExperimentError::OtherRun { .. }), "{error}");
    assert!(error.to_string().contains("learning_rate` was 0.005"), "{error}");
}

/// Dies at an event, as a killed process does: nothing is saved on the way out.
struct DieAt(usize);

impl Observer for DieAt {
    fn see(&mut self, _: &Event) {
        assert!(self.0 > 0, "killed");
        self.0 -= 1;
    }
}

struct Count(usize);

impl Observer for Count {
    fn see(&mut self, _: &Event) {
        self.0 += 1;
    }
}

#[test]
fn a_run_that_dies_at_any_moment_ends_in_the_same_report() {
    let (calm, troubled) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let world = World::new();
    let mut count = Count(0);
    world.experiment(config(calm.path()), calm.path()).run(&mut count).unwrap();
    // Ten moments all over the run: after a death less is left, so that later ones come sooner.
    let config = config(troubled.path());
    let mut deaths = 0;
    for death in 0..10 {
        let die = || {
            world
                .experiment(config.clone(), troubled.path())
                .run(&mut DieAt(count.0 * (death + 1) / 13))
        };
        deaths += usize::from(std::panic::catch_unwind(std::panic::AssertUnwindSafe(die)).is_err());
    }
    assert!(deaths >= 5, "it died {deaths} times only");
    assert_eq!(world.experiment(config, troubled.path()).run_silently().unwrap(), PartStatus::Done);
    let mut there = reproducible(troubled.path());
    there["config"]["data"]["dataset"] =
        reproducible(calm.path())["config"]["data"]["dataset"].clone();
    assert_eq!(there, reproducible(calm.path()));
}

/// What a process of an arm does; `PT_FOLDER` names the run's folder, `PT_ARM` the arm, or
/// everything where it is empty. `PT_DIE` is the arm that dies: once where a file `died` can be
/// made, always where that is a folder.
#[test]
#[ignore = "the process that other tests start and kill"]
fn worker() {
    let Ok(folder) = std::env::var("PT_FOLDER") else { return };
    let (folder, arm) = (Path::new(&folder), std::env::var("PT_ARM").unwrap());
    if std::env::var("PT_DIE").is_ok_and(|dying| !dying.is_empty() && dying == arm)
        && !folder.join("died").is_file()
    {
        let _ = std::fs::write(folder.join("died"), "");
        std::process::abort();
    }
    let world = World::new();
    let experiment = world.experiment(config(folder), folder);
    match arm.as_str() {
        "" => experiment.run_silently().unwrap(),
        arm => experiment.run_arm(arm, &mut Silent).unwrap(),
    };
}

fn worker_command(folder: &Path, arm: &str, dying: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "worker", "--ignored", "--nocapture"]);
    command
        .env("PT_FOLDER", folder)
        .env("PT_ARM", arm)
        .env("PT_DIE", dying)
        .env("OMP_NUM_THREADS", "1");
    command
}

#[test]
fn a_process_that_is_killed_goes_on_to_the_same_report() {
    let (calm, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut kills, mut wait) = (0, 300);
    while kills < 10 {
        let mut child = worker_command(killed.path(), "", "")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        if child.try_wait().unwrap().is_some_and(|status| status.success()) {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        // Moments that no step's length divides.
        wait = 300 + (wait * 7919) % 700;
    }
    assert!(kills >= 1, "it ended before it could be killed");
    assert!(
        worker_command(killed.path(), "", "").stdout(Stdio::null()).status().unwrap().success()
    );
    assert!(worker_command(calm.path(), "", "").stdout(Stdio::null()).status().unwrap().success());
    let mut there = reproducible(killed.path());
    there["config"]["data"]["dataset"] =
        reproducible(calm.path())["config"]["data"]["dataset"].clone();
    assert_eq!(there, reproducible(calm.path()));
}

/// Runs every arm in a process of its own, one of which dies; the ends, by arm, and what was
/// printed.
fn in_processes(folder: &Path, dying: &str) -> (BTreeMap<String, (bool, usize)>, Vec<String>) {
    let (_, arms) = plan(&config(folder).resolved()).unwrap();
    let parallel = Parallel { at_a_time: 2, cores: 2, gpus: 0, retries: 1 };
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = lines.clone();
    let command = |arm: &Arm, _: &Slot| worker_command(folder, &arm.name, dying);
    let line: Lines =
        Arc::new(move |arm: &str, line: &str| kept.lock().unwrap().push(format!("{arm}: {line}")));
    let ends = parallel.run(&arms, &command, &AtomicBool::new(false), &line).unwrap();
    let lines = lines.lock().unwrap().clone();
    (ends.into_iter().map(|end| (end.arm, (end.ok, end.starts))).collect(), lines)
}

#[test]
fn an_arm_that_dies_once_is_started_again() {
    let (calm, parallel) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ends, lines) = in_processes(parallel.path(), "low");
    let expected = [("generalist", (true, 1)), ("high", (true, 1)), ("low", (true, 2))];
    assert_eq!(ends, expected.map(|(arm, end)| (arm.to_owned(), end)).into(), "{lines:#?}");
    assert!(
        lines.iter().any(|line| line.starts_with("low: died") && line.ends_with("started again")),
        "{lines:?}"
    );
    // Joined, the arms give the report that one process gives.
    assert!(
        worker_command(parallel.path(), "", "").stdout(Stdio::null()).status().unwrap().success()
    );
    assert!(worker_command(calm.path(), "", "").stdout(Stdio::null()).status().unwrap().success());
    let mut there = reproducible(parallel.path());
    there["config"]["data"]["dataset"] =
        reproducible(calm.path())["config"]["data"]["dataset"].clone();
    assert_eq!(there, reproducible(calm.path()));
}

#[test]
fn an_arm_that_always_dies_leaves_the_others_alone_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("died")).unwrap();
    let (ends, lines) = in_processes(dir.path(), "low");
    let expected = [("generalist", (true, 1)), ("high", (true, 1)), ("low", (false, 2))];
    assert_eq!(ends, expected.map(|(arm, end)| (arm.to_owned(), end)).into(), "{lines:#?}");
    let report = assemble(dir.path()).unwrap();
    let missing: Vec<&str> = report.missing.iter().map(|missing| missing.model.as_str()).collect();
    assert_eq!((missing, report.models.len(), report.head_to_head), (vec!["low"], 2, None));
}
