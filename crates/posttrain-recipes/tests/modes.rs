//! The promises of the ways in which sampling and training take turns: streaming is on-policy
//! training in parts; asynchronous training keeps its bound; both repeat and resume to the same
//! numbers, where groups are trained on in a fixed order.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod digits;
mod world;

use posttrain_data::Example;
use posttrain_lora::LoraConfig;
use posttrain_loss::AdvantageConfig;
use posttrain_recipes::{
    AsynchronousConfig, EvaluationMode, Event, GroupOrder, Mode, Observer, RecipeError, RlConfig,
    Silent, StaleGroups, StepRecord,
};
use posttrain_reward::{Reward, RewardError, Sample, Score, ScorerConfig, from_fn};
use posttrain_rollout::EngineConfig;
use posttrain_rollout::service::Transition;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use world::{DieAt, World, config, examples, records, reward};

fn streaming(steps: u64) -> RlConfig {
    RlConfig { mode: Mode::Streaming, ..config(steps) }
}

fn asynchronous(steps: u64, max_staleness: u64) -> RlConfig {
    RlConfig { mode: Mode::Asynchronous, max_staleness, ..config(steps) }
}

/// Without dropout, which the sampler does not apply.
fn without_dropout(config: RlConfig) -> RlConfig {
    RlConfig { lora: LoraConfig { dropout: 0.0, ..config.lora }, ..config }
}

fn train(world: &World, config: RlConfig, folder: &Path) -> Vec<StepRecord> {
    let run = world.run(config, folder, reward());
    assert!(run.train(&examples(0..40), &examples(40..60), &mut Silent).unwrap().complete);
    records(folder)
}

/// The same groups by the same policy: the gradient of the parts is that of the whole, and so is
/// everything that is told of it.
#[test]
fn a_streamed_step_is_the_step_in_parts() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let whole = train(&world, without_dropout(config(1)), &dir.path().join("whole"));
    for order in [GroupOrder::Fixed, GroupOrder::Arrival] {
        let config = RlConfig { group_order: order, ..without_dropout(streaming(1)) };
        let parts = train(&world, config, &dir.path().join(format!("{order:?}")));
        let (whole, parts) = (&whole[0], &parts[0]);
        assert_eq!(
            (parts.reward, parts.groups_with_signal, parts.completion_tokens, parts.completions),
            (whole.reward, whole.groups_with_signal, whole.completion_tokens, whole.completions)
        );
        let near = |one: f64, other: f64| (one - other).abs() <= 1e-5 * other.abs() + 1e-7;
        assert!(near(parts.grad_norm.unwrap(), whole.grad_norm.unwrap()), "{parts:?} {whole:?}");
        assert!(near(parts.loss, whole.loss), "{} {}", parts.loss, whole.loss);
    }
}

#[test]
fn every_mode_learns_and_tells_how_stale_it_was() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let by_arrival = RlConfig { group_order: GroupOrder::Arrival, ..asynchronous(30, 2) };
    let cases = [
        ("streaming", streaming(20), None),
        ("ahead-1", asynchronous(20, 1), Some(1)),
        ("ahead-3", asynchronous(30, 3), Some(3)),
        ("arrival", by_arrival, Some(2)),
    ];
    for (name, config, bound) in cases {
        let folder = dir.path().join(name);
        let config = without_dropout(config);
        let run = world.run(config.clone(), &folder, reward());
        let evaluate = |adapter: Option<&Path>| {
            let mode = EvaluationMode::Sampled;
            run.evaluate("held out", adapter, &examples(40..60), mode, &mut Silent)
        };
        let before = evaluate(None).unwrap().sampled.share;
        let records = train(&world, config, &folder);
        let after = evaluate(Some(&folder.join("best"))).unwrap().sampled.share;
        assert!(after > before + 0.3, "{name}: {before} {after}");

        let most = records.iter().filter_map(|record| record.staleness_max).max();
        match bound {
            None => assert_eq!(most, None, "{name}"),
            // The bound is kept, and used.
            Some(bound) => assert!(most.is_some_and(|most| 1 <= most && most <= bound), "{name}"),
        }
    }
}

#[test]
fn a_fixed_order_repeats_and_resumes_to_the_same_numbers() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let cases = [
        ("streaming", streaming(8)),
        ("ahead-1", asynchronous(8, 1)),
        ("ahead-3", asynchronous(8, 3)),
    ];
    for (name, config) in cases {
        let whole = dir.path().join(name);
        train(&world, config.clone(), &whole);
        for death in [1, 4, 7] {
            let folder = dir.path().join(format!("{name}-{death}"));
            let run = world.run(config.clone(), &folder, reward());
            let killed = AssertUnwindSafe(|| {
                run.train(&examples(0..40), &examples(40..60), &mut DieAt(death))
            });
            assert!(catch_unwind(killed).is_err());
            train(&world, config.clone(), &folder);

            assert_eq!(records(&folder), records(&whole), "{name}, killed at step {death}");
            for file in [
                "best/adapter_model.safetensors",
                "last/adapter_model.safetensors",
                "samples.jsonl",
            ] {
                let bytes = |root: &Path| std::fs::read(root.join(file)).unwrap();
                assert!(bytes(&folder) == bytes(&whole), "{name}: {file}, killed at step {death}");
            }
        }
    }
}

/// Where no order is kept, no number is promised; but no step is lost or doubled, and no example
/// that was under way.
#[test]
fn a_run_by_arrival_goes_on_where_it_was_killed() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let stale = [StaleGroups::Drop, StaleGroups::Requeue, StaleGroups::Keep];
    for (case, stale_groups) in stale.into_iter().enumerate() {
        let transition = if case == 1 { Transition::Follow } else { Transition::Finish };
        let asynchronous_config =
            AsynchronousConfig { stale_groups, transition, queued_groups: Some(10) };
        let config = RlConfig {
            group_order: GroupOrder::Arrival,
            asynchronous: asynchronous_config,
            ..asynchronous(8, 1)
        };
        let folder = dir.path().join(case.to_string());
        let run = world.run(config.clone(), &folder, reward());
        let killed =
            AssertUnwindSafe(|| run.train(&examples(0..40), &examples(40..60), &mut DieAt(5)));
        assert!(catch_unwind(killed).is_err());

        let saved = posttrain_recipes::RunState::peek(&folder).unwrap().unwrap();
        // Ten groups are under way; the rest of a batch of the data may stand behind them.
        assert!(saved.step == 4 && (10..14).contains(&saved.in_flight.len()), "{saved:?}");
        let records = train(&world, config, &folder);
        let steps: Vec<u64> = records.iter().map(|record| record.step).collect();
        assert_eq!(steps, (1..=8).collect::<Vec<_>>());
    }
}

/// A process that dies between a validation and the next saved state leaves a `best` of steps that
/// no run by arrival will repeat.
#[test]
fn a_best_step_that_was_lost_is_not_kept_by_arrival() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let cases = [
        (GroupOrder::Arrival, asynchronous(8, 1), true),
        (GroupOrder::Fixed, asynchronous(8, 1), false),
        (GroupOrder::Arrival, streaming(8), true),
    ];
    for (order, config, lost) in cases {
        let folder = dir.path().join(format!("{order:?} {:?}", config.mode));
        let config = RlConfig { group_order: order, ..config };
        let run = world.run(config, &folder, reward());
        let killed =
            AssertUnwindSafe(|| run.train(&examples(0..40), &examples(40..60), &mut DieAt(5)));
        assert!(catch_unwind(killed).is_err());
        let kept = posttrain_recipes::RunState::peek(&folder).unwrap().unwrap();
        assert_eq!(kept.best.unwrap().step, 3);
        std::fs::write(folder.join("best.json"), r#"{"step": 6, "accuracy": 1.0}"#).unwrap();

        let mut notes = Notes::default();
        let outcome = run.train(&examples(0..40), &examples(40..60), &mut notes).unwrap();
        assert_eq!(notes.0.iter().any(|note| note.contains("of step 6, which was lost")), lost);
        assert!(!lost || outcome.state.best.unwrap().step > 4);
    }
}

#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn see(&mut self, event: &Event) {
        if let Event::Note { text } = event {
            self.0.push((*text).to_owned());
        }
    }
}

#[test]
fn a_failing_reward_ends_every_mode_in_words() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let broken = |_: &Sample| -> Result<Score, RewardError> {
        Err(RewardError::failed("broken", "no_answer", std::io::Error::other("it is away")))
    };
    let by_arrival = RlConfig { group_order: GroupOrder::Arrival, ..asynchronous(4, 1) };
    for (case, config) in [streaming(4), asynchronous(4, 2), by_arrival].into_iter().enumerate() {
        let reward: Arc<dyn Reward> = Arc::new(from_fn("broken", broken));
        let folder = dir.path().join(case.to_string());
        let error = world.run(config, &folder, reward).train(&examples(0..40), &[], &mut Silent);
        let error = error.unwrap_err();
        assert!(
            matches!(&error, RecipeError::RewardFailures { step: 1, failed: 16, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("no_answer 16"), "{error}");
    }
}

#[test]
fn what_a_mode_cannot_keep_is_refused_by_field() {
    let arrival = |config: RlConfig| RlConfig { group_order: GroupOrder::Arrival, ..config };
    let keep = AsynchronousConfig { stale_groups: StaleGroups::Keep, ..Default::default() };
    let few = AsynchronousConfig { queued_groups: Some(3), ..Default::default() };
    let deadline = ScorerConfig { deadline_seconds: Some(9.0), ..ScorerConfig::default() };
    let batch = AdvantageConfig::BatchNormalized { epsilon: 1e-4 };
    let cases = [
        (asynchronous(4, 0), "`max_staleness` must be at least 1"),
        (arrival(config(4)), "`group_order` must be fixed"),
        (RlConfig { advantage: batch, ..streaming(4) }, "`advantage` must be one that needs no"),
        (RlConfig { asynchronous: keep, ..config(4) }, "`asynchronous` must be left out"),
        (RlConfig { asynchronous: keep, ..asynchronous(4, 1) }, "`asynchronous` must be left out"),
        (
            RlConfig { asynchronous: few, ..arrival(asynchronous(4, 1)) },
            "`asynchronous.queued_groups`",
        ),
        (RlConfig { scorer: deadline, ..arrival(asynchronous(4, 1)) }, "`scorer.deadline_seconds`"),
    ];
    for (config, expected) in cases {
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let kept = RlConfig { asynchronous: keep, ..arrival(asynchronous(4, 1)) };
    kept.validate().unwrap();
}

#[test]
fn an_asynchronous_run_says_that_it_does_not_record() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let engine = EngineConfig { record_mib: 8, ..EngineConfig::default() };
    let config = RlConfig { engine, ..without_dropout(asynchronous(2, 1)) };
    let mut notes = Notes::default();
    let run = world.run(config, dir.path(), reward());
    run.train(&examples(0..40), &[], &mut notes).unwrap();
    assert!(notes.0[0].contains("engine.record_mib"), "{:?}", notes.0);
    assert!(records(dir.path()).iter().all(|record| record.recorded == 0.0));
}

/// A question that no context holds ends every mode by its own name, not by that of what it broke.
#[test]
fn a_question_that_cannot_be_asked_is_named_in_every_mode() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let long = Example::new("long", "digits", "1 ".repeat(5000), "7");
    let train: Vec<Example> = vec![long; 4];
    let by_arrival = RlConfig { group_order: GroupOrder::Arrival, ..asynchronous(4, 1) };
    let configs = [config(4), streaming(4), asynchronous(4, 1), by_arrival];
    for (case, config) in configs.into_iter().enumerate() {
        let folder = dir.path().join(case.to_string());
        let error = world.run(config, &folder, reward()).train(&train, &[], &mut Silent);
        let error = error.unwrap_err();
        assert!(
            matches!(&error, RecipeError::Prompt { id, .. } if id == "long"),
            "{case}: {error}"
        );
    }
}

#[test]
fn an_example_that_was_under_way_and_is_gone_is_named() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let config = || RlConfig { group_order: GroupOrder::Arrival, ..asynchronous(8, 1) };
    let run = world.run(config(), dir.path(), reward());
    let killed = AssertUnwindSafe(|| run.train(&examples(0..40), &[], &mut DieAt(5)));
    assert!(catch_unwind(killed).is_err());

    let others: Vec<Example> = examples(100..140);
    let error = world.run(config(), dir.path(), reward()).train(&others, &[], &mut Silent);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("is not in the data"), "{error}");
}
