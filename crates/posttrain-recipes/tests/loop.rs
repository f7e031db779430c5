//! The loop's promises on a small random model with a vocabulary of digits: same seed, same
//! numbers; killed and resumed, the same as uninterrupted.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod digits;
mod world;

use posttrain_lora::LoraConfig;
use posttrain_recipes::{
    EvaluationMode, Event, GroupSampler, Observer, Phase, RlConfig, RolloutRequest, RunState,
    Silent,
};
use posttrain_reward::{Reward, RewardError, Sample, Score, from_fn};
use posttrain_rollout::{EngineConfig, SamplingParams};
use std::path::Path;
use std::sync::Arc;
use world::{DieAt, World, config, examples, records, reward};

#[test]
fn the_same_seed_gives_the_same_numbers_and_it_learns() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let (train, held_out) = (examples(0..40), examples(40..60));
    let mut before = 0.0;
    // Without dropout, which the sampler does not apply, trainer and sampler agree to f32's
    // rounding.
    let config = || RlConfig { lora: LoraConfig { dropout: 0.0, ..config(1).lora }, ..config(20) };
    for name in ["a", "b"] {
        let run = world.run(config(), &dir.path().join(name), reward());
        before = run
            .evaluate("base", None, &held_out, EvaluationMode::Sampled, &mut Silent)
            .unwrap()
            .sampled
            .share;
        assert!(run.train(&train, &held_out, &mut Silent).unwrap().complete);
    }
    let (a, b) = (records(&dir.path().join("a")), records(&dir.path().join("b")));
    assert_eq!(a, b);
    assert_eq!(a.len(), 20);
    let run = world.run(config(), &dir.path().join("a"), reward());
    let best = dir.path().join("a/best");
    let after =
        run.evaluate("best", Some(&best), &held_out, EvaluationMode::Sampled, &mut Silent).unwrap();
    assert!(after.sampled.share > before + 0.3, "{before} {after:?}");
    assert!(a.iter().all(|r| r.logprob_gap < 1e-4), "sampler and trainer disagree in f32");
}

/// The same run with the sampler's activations kept: it records all, learns the same, and repeats.
#[test]
fn a_run_that_records_learns_what_one_that_does_not_learns() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let (train, held_out) = (examples(0..40), examples(40..60));
    let run = |name: &str, record_mib| {
        let lora = LoraConfig { dropout: 0.0, ..config(1).lora };
        let engine = EngineConfig { record_mib, ..EngineConfig::default() };
        let folder = dir.path().join(name);
        world
            .run(RlConfig { lora, engine, ..config(6) }, &folder, reward())
            .train(&train, &held_out, &mut Silent)
            .unwrap();
        records(&folder)
    };
    let (recorded, again, computed) = (run("recorded", 64), run("again", 64), run("computed", 0));
    assert_eq!(recorded, again);
    assert!(
        recorded.iter().all(|r| r.recorded == 1.0) && computed.iter().all(|r| r.recorded == 0.0)
    );
    for (recorded, computed) in recorded.iter().zip(&computed) {
        assert_eq!(recorded.reward, computed.reward, "step {}", computed.step);
        let (one, other) = (recorded.grad_norm.unwrap_or(0.0), computed.grad_norm.unwrap_or(0.0));
        assert!((one - other).abs() <= 1e-3 * other, "step {}: {one} for {other}", computed.step);
    }
}

#[test]
fn killed_at_any_step_and_resumed_it_is_as_if_it_had_not_been() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let (train, held_out) = (examples(0..40), examples(40..60));
    let whole = dir.path().join("whole");
    world.run(config(8), &whole, reward()).train(&train, &held_out, &mut Silent).unwrap();
    for death in [1, 4, 7] {
        let folder = dir.path().join(format!("killed-{death}"));
        let run = world.run(config(8), &folder, reward());
        let killed =
            std::panic::AssertUnwindSafe(|| run.train(&train, &held_out, &mut DieAt(death)));
        assert!(std::panic::catch_unwind(killed).is_err());
        let outcome =
            world.run(config(8), &folder, reward()).train(&train, &held_out, &mut Silent).unwrap();
        assert!(outcome.complete);
        assert_eq!(records(&folder), records(&whole), "killed at step {death}");
        for file in
            ["best/adapter_model.safetensors", "last/adapter_model.safetensors", "samples.jsonl"]
        {
            let bytes = |root: &Path| std::fs::read(root.join(file)).unwrap();
            assert!(bytes(&folder) == bytes(&whole), "{file} after a death at step {death}");
        }
    }
}

#[test]
fn a_run_that_is_asked_to_stop_saves_and_goes_on() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let (train, held_out) = (examples(0..40), examples(40..60));
    let run = world.run(config(5), &dir.path().join("stopped"), reward());
    run.stop_flag().store(true, std::sync::atomic::Ordering::Relaxed);
    let outcome = run.train(&train, &held_out, &mut Silent).unwrap();
    assert!(!outcome.complete && outcome.state.step == 0);
    let outcome = world.run(config(5), &dir.path().join("stopped"), reward()).train(
        &train,
        &held_out,
        &mut Silent,
    );
    assert_eq!(outcome.unwrap().state.step, 5);
}

/// Keeps the notes that it is told.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn see(&mut self, event: &Event) {
        if let Event::Note { text } = event {
            self.0.push((*text).to_owned());
        }
    }
}

/// A state that says that a run is at its end has that end's adapter beside it.
#[test]
fn the_last_adapter_is_there_before_the_state_that_says_so() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let train = examples(0..40);
    let folder = dir.path().join("run");
    let start = || world.run(config(2), &folder, reward()).train(&train, &[], &mut Silent);

    // Where the adapter cannot be put in place, nothing says that the run has come to its end.
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("last.old"), "in the way").unwrap();
    start().unwrap_err();
    assert_eq!(RunState::peek(&folder).unwrap(), None);

    std::fs::remove_file(folder.join("last.old")).unwrap();
    assert!(start().unwrap().complete);
    let weights = |name: &str| std::fs::read(folder.join(name).join("adapter_model.safetensors"));
    assert!(weights("last").unwrap() == weights("checkpoints/step-000002/adapter").unwrap());
}

#[test]
fn what_a_killed_run_left_between_two_names_is_put_back_and_what_is_lost_is_told() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let (train, held_out) = (examples(0..40), examples(40..60));
    let folder = dir.path().join("run");
    let start = |notes: &mut Notes| {
        world.run(config(3), &folder, reward()).train(&train, &held_out, notes).unwrap()
    };
    let mut notes = Notes::default();
    assert!(start(&mut notes).complete && notes.0.is_empty());

    for name in ["best", "last", "checkpoints/step-000003"] {
        std::fs::rename(folder.join(name), folder.join(format!("{name}.old"))).unwrap();
    }
    std::fs::create_dir(folder.join(".writing-half")).unwrap();
    std::fs::remove_file(folder.join("metrics.jsonl")).unwrap();
    assert!(start(&mut notes).complete);

    for name in ["best", "last", "checkpoints/step-000003"] {
        assert!(folder.join(name).is_dir() && !folder.join(format!("{name}.old")).exists());
    }
    assert!(!folder.join(".writing-half").exists());
    assert_eq!(notes.0.len(), 1);
    assert!(notes.0[0].contains("metrics.jsonl: has 0 of the 3 steps"), "{}", notes.0[0]);
}

#[test]
fn another_configuration_in_the_same_folder_is_refused_by_field() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let train = examples(0..40);
    world.run(config(2), dir.path(), reward()).train(&train, &[], &mut Silent).unwrap();
    let other = RlConfig { learning_rate: 0.5, ..config(2) };
    let error = world
        .run(other, dir.path(), reward())
        .train(&train, &[], &mut Silent)
        .unwrap_err()
        .to_string();
    assert!(error.contains("`learning_rate` was 0.005, is now 0.5"), "{error}");
}

#[test]
fn failed_rewards_leave_the_baseline_and_too_many_end_the_run() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let failing = |share: usize| -> Arc<dyn Reward> {
        let counter = std::sync::atomic::AtomicUsize::new(0);
        Arc::new(from_fn("flaky", move |s: &Sample| {
            let n = counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if n % 4 < share {
                return Err(RewardError::failed(
                    "flaky",
                    "broken",
                    std::io::Error::other("no answer"),
                ));
            }
            Ok(Score::binary(s.response.contains('7')))
        }))
    };
    let train = examples(0..40);
    world
        .run(config(2), &dir.path().join("some"), failing(1))
        .train(&train, &[], &mut Silent)
        .unwrap();
    let some = records(&dir.path().join("some"));
    assert_eq!(some[0].reward_failures["broken"], 4); // of 16
    let error = world
        .run(config(2), &dir.path().join("most"), failing(3))
        .train(&train, &[], &mut Silent)
        .unwrap_err();
    assert!(
        error.to_string().contains("12 of 16") && error.to_string().contains("broken 12"),
        "{error}"
    );
}

#[test]
fn a_reward_is_told_how_many_tokens_a_completion_has() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    // In this vocabulary a word is a token, and the end is one that is not seen.
    let counted = |s: &Sample| {
        let end = usize::from(!s.termination.is_truncated());
        match s.tokens {
            Some(tokens) if tokens == s.response.split_whitespace().count() + end => {
                Ok(Score::binary(tokens > 2))
            }
            _ => Err(RewardError::failed(
                "counted",
                "miscounted",
                std::io::Error::other(format!("{s:?}")),
            )),
        }
    };
    let train = examples(0..40);
    world
        .run(config(2), dir.path(), Arc::new(from_fn("counted", counted)))
        .train(&train, &[], &mut Silent)
        .unwrap();
    assert!(records(dir.path()).iter().all(|record| record.reward_failures.is_empty()));
}

#[test]
fn what_would_bias_the_ratio_is_refused() {
    for sampling in [
        SamplingParams { top_p: Some(0.9), ..config(1).sampling },
        SamplingParams { top_k: Some(5), ..config(1).sampling },
        SamplingParams { temperature: 0.0, ..config(1).sampling },
    ] {
        assert!(RlConfig { sampling, ..config(1) }.validate().is_err());
    }
}

#[test]
fn activations_without_dropout_are_not_recorded_for_training_with_it() {
    let engine = EngineConfig { record_mib: 8, ..EngineConfig::default() };
    let error =
        RlConfig { engine: engine.clone(), ..config(1) }.validate().unwrap_err().to_string();
    assert!(error.contains("engine.record_mib") && error.contains("dropout"), "{error}");
    let lora = LoraConfig { dropout: 0.0, ..config(1).lora };
    RlConfig { engine, lora, ..config(1) }.validate().unwrap();
}

#[test]
fn a_rollout_that_leaves_an_example_out_is_refused() {
    let world = World::new();
    let sampler = GroupSampler::new(world.model, reward()).unwrap();
    let examples = examples(0..3);
    for (policies, sampling, field) in [(2, 3, "policies"), (3, 2, "sampling")] {
        let request = RolloutRequest {
            examples: &examples,
            policies: vec![None; policies],
            completions: 2,
            sampling: vec![SamplingParams::default(); sampling],
            phase: Phase::Evaluating,
        };
        let error = sampler.rollout(request, &mut Silent).unwrap_err().to_string();
        assert_eq!(error, format!("config: `{field}` must be one for each example, got 2"));
    }
}
