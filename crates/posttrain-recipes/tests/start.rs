//! Runs that begin with what another run has taught.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod digits;
mod world;

use posttrain_data::Example;
use posttrain_lora::LoraConfig;
use posttrain_loss::preference::Dpo;
use posttrain_loss::{CrossEntropy, KlPenalty, ObjectiveConfig, PolicyObjective};
use posttrain_recipes::lesson::{Lesson, Preference, Supervised};
use posttrain_recipes::{
    EvaluationMode, Event, FineTuneConfig, FineTuneRecord, FineTuneRun, MetricsLog, Observer,
    PromptStyle, RlConfig, Silent,
};
use serde_json::json;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use world::{World, examples, records, reward};

const SAMPLED: EvaluationMode = EvaluationMode::Sampled;

fn lora() -> LoraConfig {
    LoraConfig { rank: 4, alpha: 8.0, dropout: 0.0, ..LoraConfig::default() }
}

fn config(adapter: Option<PathBuf>) -> FineTuneConfig {
    FineTuneConfig {
        seed: 5,
        epochs: 2,
        batch: 8,
        learning_rate: 5e-3,
        adapter,
        lora: lora(),
        checkpoint_every: 3,
        ..FineTuneConfig::default()
    }
}

fn run<L: Lesson>(world: &World, lesson: L, config: FineTuneConfig, dir: &Path) -> FineTuneRun<L> {
    let run = FineTuneRun::new(world.model.clone(), lesson, config, dir).unwrap();
    run.with_accuracy(PromptStyle::default(), reward()).unwrap()
}

/// An adapter that answers 7, and how often it does.
fn taught(world: &World, dir: &Path) -> (PathBuf, f64) {
    let lesson = Supervised {
        model: world.model.clone(),
        style: PromptStyle::default(),
        objective: CrossEntropy::default(),
    };
    let folder = dir.join("taught");
    let run = run(world, lesson, config(None), &folder);
    run.train(&examples(0..40), &[], &mut Silent).unwrap();

    let last = folder.join("last");
    let share = |adapter: Option<&Path>| {
        run.evaluate("", adapter, &examples(40..60), SAMPLED, &mut Silent).unwrap().sampled.share
    };
    assert!(share(None) < 0.5 && share(Some(&last)) > 0.8);
    let share = share(Some(&last));
    (last, share)
}

struct DieAt(u64);

impl Observer for DieAt {
    fn see(&mut self, event: &Event<'_>) {
        if let Event::FineTuneStep { record, .. } = event {
            assert!(record.step < self.0, "killed");
        }
    }
}

#[test]
fn preferences_begin_with_what_was_taught_and_measure_from_there() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let (taught, right) = taught(&world, dir.path());
    let paired = |example: Example| {
        let metadata = json!({"chosen": "7", "rejected": "3"});
        Example { metadata: metadata.as_object().cloned(), ..example }
    };
    let pairs: Vec<Example> = examples(0..40).into_iter().map(paired).collect();
    let preference = |adapter: &Path, folder: &Path| {
        let objective = ObjectiveConfig::Dpo(Dpo::default());
        let lesson =
            Preference::new(world.model.clone(), PromptStyle::default(), objective).unwrap();
        run(&world, lesson, config(Some(adapter.to_owned())), folder)
    };
    let written = |folder: &Path| {
        let (_, records) = MetricsLog::<FineTuneRecord>::open(folder, u64::MAX).unwrap();
        records.iter().map(FineTuneRecord::reproducible).collect::<Vec<_>>()
    };

    let whole = dir.path().join("whole");
    let own = preference(&taught, &whole);
    let begun = own.evaluate("", None, &examples(40..60), SAMPLED, &mut Silent).unwrap();
    assert_eq!(begun.sampled.share, right);
    own.train(&pairs, &[], &mut Silent).unwrap();
    // Policy and reference are one at first: neither answer has gained anything.
    let steps = written(&whole);
    assert!((steps[0].loss - 2f64.ln()).abs() < 1e-6, "{}", steps[0].loss);
    assert!(steps[9].metrics["preference/margin"] > 0.1);

    // Killed, it goes on when the adapter that it began with is gone.
    let handed = dir.path().join("handed");
    std::fs::create_dir(&handed).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(taught.join(file), handed.join(file)).unwrap();
    }
    let folder = dir.path().join("killed");
    let killed = preference(&handed, &folder);
    let killed = AssertUnwindSafe(|| killed.train(&pairs, &[], &mut DieAt(5)));
    assert!(catch_unwind(killed).is_err());
    std::fs::remove_dir_all(&handed).unwrap();
    preference(&handed, &folder).train(&pairs, &[], &mut Silent).unwrap();
    assert_eq!(written(&folder), steps);
}

#[test]
fn reinforcement_begins_with_what_was_taught_and_is_held_to_it() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let (taught, _) = taught(&world, dir.path());
    let objective =
        PolicyObjective { kl: Some(KlPenalty::default()), ..PolicyObjective::default() };
    let adapter = Some(taught.clone());
    let config = RlConfig { adapter, lora: lora(), objective, ..world::config(3) };

    let folder = dir.path().join("rl");
    let run = world.run(config, &folder, reward());
    let share = |adapter: Option<&Path>| {
        run.evaluate("", adapter, &examples(40..60), SAMPLED, &mut Silent).unwrap().sampled.share
    };
    assert_eq!(share(None), share(Some(&taught)));
    run.train(&examples(0..40), &examples(40..60), &mut Silent).unwrap();
    let steps = records(&folder);
    assert!(steps[0].reward > 0.8, "{}", steps[0].reward);
    let moved = steps.iter().map(|step| step.reference_kl.unwrap()).collect::<Vec<_>>();
    assert!(moved[0].abs() < 1e-6 && moved[2] > 1e-6, "{moved:?}");
}

#[test]
fn an_adapter_that_is_not_what_the_configuration_says_is_refused() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let (taught, _) = taught(&world, dir.path());
    let refused = |lora: LoraConfig, adapter: PathBuf| {
        let config = RlConfig { adapter: Some(adapter), lora, ..world::config(1) };
        let folder = dir.path().join("refused");
        let run = world.run(config, &folder, reward());
        let error = run.train(&examples(0..8), &examples(8..10), &mut Silent).unwrap_err();
        assert!(!folder.join("start").exists(), "something was written");
        format!(
            "{error}: {}",
            std::error::Error::source(&error).map_or(String::new(), |e| e.to_string())
        )
    };
    // Dropout is how it is trained, not what it is.
    let folder = dir.path().join("dropout");
    let lora_with_dropout = LoraConfig { dropout: 0.1, ..lora() };
    let config =
        RlConfig { adapter: Some(taught.clone()), lora: lora_with_dropout, ..world::config(1) };
    world.run(config, &folder, reward()).train(&examples(0..8), &[], &mut Silent).unwrap();

    let error = refused(LoraConfig { alpha: 16.0, ..lora() }, taught.clone());
    assert!(
        error.contains("`adapter`") && error.contains("scale 2 ") && error.contains("scale 4"),
        "{error}"
    );
    let error = refused(LoraConfig { rank: 2, ..lora() }, taught);
    assert!(error.contains("rank 4") && error.contains("rank 2"), "{error}");
    let error = refused(lora(), dir.path().join("nowhere"));
    assert!(error.contains("nowhere"), "{error}");
}

#[test]
fn another_adapter_is_taken_until_a_state_is_saved_and_the_first_one_from_then_on() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let (taught, right) = taught(&world, dir.path());
    let other = dir.path().join("taught/first");
    let first = FineTuneConfig { steps: Some(1), ..config(None) };
    let lesson = || Supervised {
        model: world.model.clone(),
        style: PromptStyle::default(),
        objective: CrossEntropy::default(),
    };
    run(&world, lesson(), first, &other).train(&examples(0..40), &[], &mut Silent).unwrap();

    let folder = dir.path().join("run");
    let begun = |adapter: &Path| {
        let run = run(&world, lesson(), config(Some(adapter.to_owned())), &folder);
        let share =
            run.evaluate("", None, &examples(40..60), SAMPLED, &mut Silent).unwrap().sampled.share;
        (run, share)
    };
    assert!(begun(&other.join("last")).1 < right);
    let (own, share) = begun(&taught);
    assert_eq!(share, right);
    own.train(&examples(0..40), &[], &mut Silent).unwrap();

    let kept = std::fs::read(folder.join("start/adapter_model.safetensors")).unwrap();
    assert_eq!(begun(&other.join("last")).1, right);
    assert!(std::fs::read(folder.join("start/adapter_model.safetensors")).unwrap() == kept);
    std::fs::remove_dir_all(folder.join("start")).unwrap();
    let error = begun_error(&world, lesson(), &taught, &folder);
    assert!(error.contains("`adapter`") && error.contains("saved states"), "{error}");
}

fn begun_error<L: Lesson>(world: &World, lesson: L, adapter: &Path, folder: &Path) -> String {
    let run = run(world, lesson, config(Some(adapter.to_owned())), folder);
    run.train(&examples(0..40), &[], &mut Silent).unwrap_err().to_string()
}
