//! Several ranks make one run: the numbers are those of one process up to rounding, the files are
//! one run's, and whatever is not the same everywhere is refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod digits;
mod world;

use posttrain_collective::Threads;
use posttrain_data::Example;
use posttrain_lora::LoraConfig;
use posttrain_loss::preference::Dpo;
use posttrain_loss::{CrossEntropy, ObjectiveConfig};
use posttrain_recipes::lesson::{
    Lesson, OnPolicyDistillation, Preference, Supervised, TeacherConfig,
};
use posttrain_recipes::{
    DynamicSampling, EvaluationConfig, FineTuneConfig, FineTuneRecord, FineTuneRun, GroupOrder,
    MetricsLog, Mode, PromptStyle, Ranks, RecipeError, RlConfig, RunOutcome, Silent, StepRecord,
};
use posttrain_rollout::{EngineConfig, SamplingParams};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use world::{World, config, examples, records, reward};

fn smooth(steps: u64) -> RlConfig {
    // Each rank draws masks of its own: with dropout no number of ranks gives another's numbers.
    let lora = LoraConfig { dropout: 0.0, ..config(1).lora };
    RlConfig { lora, prompts: 5, ..config(steps) }
}

/// Does the same on so many ranks, each a thread.
fn together<T: Send>(
    size: usize,
    work: impl Fn(Ranks) -> Result<T, RecipeError> + Sync,
) -> Vec<Result<T, RecipeError>> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = Threads::of(size, Duration::from_secs(120))
            .into_iter()
            .map(|rank| scope.spawn(move || work(Ranks::new(Arc::new(rank))?)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn train(config: &RlConfig, folder: &Path, ranks: Ranks) -> Result<RunOutcome, RecipeError> {
    let world = World::new();
    let run = world.run(config.clone(), folder, reward()).with_ranks(ranks)?;
    run.train(&examples(0..40), &examples(40..60), &mut Silent)
}

fn same(one: &[StepRecord], other: &[StepRecord]) {
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().zip(other) {
        let norms = (one.grad_norm.unwrap_or(0.0), other.grad_norm.unwrap_or(0.0));
        assert!(
            (norms.0 - norms.1).abs() <= 1e-4 * norms.0.max(1e-6),
            "step {}: {norms:?}",
            one.step
        );
        assert_eq!(one.reward, other.reward, "step {}", one.step);
        assert_eq!(one.validation, other.validation, "step {}", one.step);
        assert_eq!(one.policy_version, other.policy_version);
        let loss = (one.loss, other.loss);
        assert!((loss.0 - loss.1).abs() < 1e-5, "step {}: {loss:?}", one.step);
    }
}

#[test]
fn a_run_is_one_processs_whatever_its_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let asynchronous = RlConfig {
        mode: Mode::Asynchronous,
        group_order: GroupOrder::Fixed,
        max_staleness: 1,
        ..smooth(7)
    };
    let dynamic = RlConfig {
        dynamic_sampling: Some(DynamicSampling::default()),
        optimizer_steps: 2,
        ..smooth(7)
    };
    let recorded = RlConfig {
        engine: EngineConfig { record_mib: 64, ..EngineConfig::default() },
        ..smooth(7)
    };
    let cases = [
        ("plain", smooth(7)),
        ("asynchronous", asynchronous),
        ("dynamic", dynamic),
        ("recorded", recorded),
    ];
    for (name, config) in cases {
        let alone = dir.path().join(format!("{name}-1"));
        train(&config, &alone, Ranks::default()).unwrap();
        let alone = records(&alone);
        for size in [2, 3] {
            let folder = dir.path().join(format!("{name}-{size}"));
            let outcomes = together(size, |ranks| train(&config, &folder, ranks));
            let states: Vec<_> = outcomes.into_iter().map(|outcome| outcome.unwrap()).collect();
            assert!(states.iter().all(|outcome| outcome.complete && outcome.state.step == 7));
            same(&alone, &records(&folder));
            if name == "recorded" {
                assert!(records(&folder).iter().all(|record| record.recorded == 1.0));
            }
        }
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [Mode::OnPolicy, Mode::Asynchronous] {
        let config = RlConfig { mode, ..smooth(6) };
        let whole = dir.path().join(format!("{mode:?}"));
        train(&config, &whole, Ranks::default()).unwrap();
        let folder = dir.path().join(format!("{mode:?}-changing"));
        // Each time one step, until it is asked to stop, by one rank alone.
        for size in [1, 3, 2, 1, 2, 3] {
            let outcomes = together(size, |ranks| {
                let world = World::new();
                let leads = ranks.is_leader();
                let run = world.run(config.clone(), &folder, reward()).with_ranks(ranks)?;
                let stop = run.stop_flag();
                let mut after_a_step = StopAfterStep { stop, leads };
                run.train(&examples(0..40), &examples(40..60), &mut after_a_step)
            });
            assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        }
        same(&records(&whole), &records(&folder));
    }
}

/// Asks the leader alone to stop.
struct StopAfterStep {
    stop: Arc<std::sync::atomic::AtomicBool>,
    leads: bool,
}

impl posttrain_recipes::Observer for StopAfterStep {
    fn see(&mut self, event: &posttrain_recipes::Event) {
        if self.leads && matches!(event, posttrain_recipes::Event::Step { .. }) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn what_differs_among_ranks_is_refused_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let errors = |outcomes: Vec<Result<RunOutcome, RecipeError>>| -> Vec<String> {
        outcomes.into_iter().map(|outcome| outcome.unwrap_err().to_string()).collect()
    };
    let other_config = together(2, |ranks| {
        let learning_rate = if ranks.is_leader() { 1e-3 } else { 2e-3 };
        train(&RlConfig { learning_rate, ..smooth(2) }, &dir.path().join("config"), ranks)
    });
    for error in errors(other_config) {
        assert!(error.contains("rank 1 differs from rank 0 in its configuration"), "{error}");
    }
    let other_data = together(2, |ranks| {
        let last = if ranks.is_leader() { 40 } else { 39 };
        let world = World::new();
        let run = world.run(smooth(2), &dir.path().join("data"), reward()).with_ranks(ranks)?;
        run.train(&examples(0..last), &examples(40..60), &mut Silent)
    });
    for error in errors(other_data) {
        assert!(error.contains("rank 1 differs from rank 0 in its data"), "{error}");
    }
    let streaming = together(2, |ranks| {
        let config = RlConfig { mode: Mode::Streaming, ..smooth(2) };
        train(&config, &dir.path().join("streaming"), ranks)
    });
    for error in errors(streaming) {
        assert!(error.contains("`mode`") && error.contains("streaming"), "{error}");
    }
    // Another process works in the folder: the leader's error is everybody's.
    let folder = dir.path().join("locked");
    let _lock = posttrain_store::lock_folder(&folder).unwrap();
    let locked = errors(together(3, |ranks| train(&smooth(2), &folder, ranks)));
    assert!(locked[1].contains("rank 0 failed") && locked[1].contains("locked"), "{locked:?}");
}

fn lessons() -> FineTuneConfig {
    FineTuneConfig {
        seed: 5,
        epochs: 1,
        batch: 8,
        learning_rate: 5e-3,
        lora: LoraConfig { rank: 4, alpha: 8.0, ..LoraConfig::default() },
        sampling: SamplingParams { max_tokens: 3, ..SamplingParams::default() },
        evaluation: EvaluationConfig { every: 4, ..EvaluationConfig::default() },
        checkpoint_every: 3,
        ..FineTuneConfig::default()
    }
}

fn lesson<L: Lesson>(
    dir: &Path,
    name: &str,
    of: impl Fn(&World) -> L + Sync,
    data: impl Fn(std::ops::Range<u32>) -> Vec<Example> + Sync,
) {
    let learn = |folder: &Path, ranks: Ranks| {
        let world = World::new();
        FineTuneRun::new(world.model.clone(), of(&world), lessons(), folder)?
            .with_ranks(ranks)?
            .with_accuracy(PromptStyle::default(), reward())?
            .train(&data(0..40), &data(40..60), &mut Silent)
    };
    let written = |folder: &Path| -> Vec<FineTuneRecord> {
        MetricsLog::<FineTuneRecord>::open(folder, u64::MAX).unwrap().1
    };
    let alone = dir.join(format!("{name}-1"));
    learn(&alone, Ranks::default()).unwrap();
    let alone = written(&alone);
    assert_eq!(alone.len(), 5);
    for size in [2, 3] {
        let folder = dir.join(format!("{name}-{size}"));
        for outcome in together(size, |ranks| learn(&folder, ranks)) {
            assert!(outcome.unwrap().complete);
        }
        let all = written(&folder);
        assert_eq!(all.len(), alone.len());
        for (one, other) in alone.iter().zip(&all) {
            let step = one.step;
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-4 * a.abs().max(1e-3);
            assert!(near(one.grad_norm, other.grad_norm), "{name}, step {step}: {one:?} {other:?}");
            assert!(near(one.loss, other.loss), "{name}, step {step}: {one:?} {other:?}");
            assert_eq!((one.validation, one.tokens), (other.validation, other.tokens));
        }
    }
}

#[test]
fn lessons_are_one_processs_whatever_its_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let supervised = |world: &World| Supervised {
        model: world.model.clone(),
        style: PromptStyle::default(),
        objective: CrossEntropy::default(),
    };
    lesson(dir.path(), "supervised", supervised, examples);

    let paired = |example: Example| {
        let metadata = json!({"chosen": "7", "rejected": "3"});
        Example { metadata: metadata.as_object().cloned(), ..example }
    };
    let pairs = |range| examples(range).into_iter().map(paired).collect::<Vec<_>>();
    let preference = |world: &World| {
        let objective = ObjectiveConfig::Dpo(Dpo::default());
        Preference::new(world.model.clone(), PromptStyle::default(), objective).unwrap()
    };
    lesson(dir.path(), "preference", preference, pairs);

    let path = dir.path().join("supervised-1/last");
    let distillation = |world: &World| {
        let (model, style) = (world.model.clone(), PromptStyle::default());
        let teacher = TeacherConfig::Adapter { path: path.clone() }.build(&model, &style).unwrap();
        let sampling = SamplingParams { max_tokens: 3, ..SamplingParams::default() };
        OnPolicyDistillation::new(model, style, teacher, (4, sampling)).unwrap()
    };
    lesson(dir.path(), "distillation", distillation, examples);
}
