//! Which groups a step samples and trains on: others in the place of those that teach nothing, a
//! curriculum, penalties near the token limit, groups of too few rewards, several optimizer steps.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod digits;
mod world;

use posttrain_data::Example;
use posttrain_lora::LoraConfig;
use posttrain_loss::PolicyObjective;
use posttrain_recipes::{
    CurriculumConfig, DynamicSampling, GroupOrder, Mode, OverlongPenalty, RlConfig, RunState,
    Silent, SolveRateConfig, StepRecord, TruncatedCompletions,
};
use posttrain_reward::{Reward, RewardError, Sample, Score, from_fn};
use posttrain_rollout::SamplingParams;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use world::{DieAt, World, config, examples, records, reward};

fn train(
    world: &World,
    config: RlConfig,
    folder: &Path,
    reward: Arc<dyn Reward>,
) -> Vec<StepRecord> {
    let run = world.run(config, folder, reward);
    assert!(run.train(&examples(0..40), &[], &mut Silent).unwrap().complete);
    records(folder)
}

/// What a reward was asked: the ids of the examples, in the order of their first completion.
fn asked() -> (Arc<dyn Reward>, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let own = seen.clone();
    let score = move |sample: &Sample| {
        let mut seen = own.lock().unwrap();
        if seen.last() != Some(&sample.id) {
            seen.push(sample.id.clone());
        }
        Ok(Score::binary(sample.response.contains('7')))
    };
    (Arc::new(from_fn("asked", score)), seen)
}

/// Only examples whose number is even can be solved at all: the others' groups teach nothing.
fn solved_if_even(sample: &Sample) -> Result<Score, RewardError> {
    let even = sample.id.parse::<u32>().unwrap().is_multiple_of(2);
    Ok(Score::binary(even && sample.response.split(' ').next().unwrap() > "4"))
}

fn even() -> Arc<dyn Reward> {
    Arc::new(from_fn("even", solved_if_even))
}

fn dynamic(max_batches: u64) -> Option<DynamicSampling> {
    Some(DynamicSampling { max_batches, ..DynamicSampling::default() })
}

#[test]
fn groups_that_teach_nothing_are_replaced_within_the_budget() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let small = RlConfig { learning_rate: 1e-6, ..config(6) };
    let plain = train(&world, small.clone(), &dir.path().join("plain"), even());
    assert!(plain.iter().any(|record| record.groups_with_signal < 0.75), "{plain:?}");
    assert!(plain.iter().all(|record| record.replaced_groups.is_none()));

    let streaming = RlConfig { mode: Mode::Streaming, ..small.clone() };
    let arrival = RlConfig { group_order: GroupOrder::Arrival, ..streaming.clone() };
    let ahead = RlConfig { mode: Mode::Asynchronous, max_staleness: 1, ..arrival.clone() };
    for (name, config) in
        [("on_policy", small), ("streaming", streaming), ("arrival", arrival), ("ahead", ahead)]
    {
        let config = RlConfig { dynamic_sampling: dynamic(40), ..config };
        let records = train(&world, config, &dir.path().join(name), even());
        for record in records {
            let replaced = record.replaced_groups.unwrap();
            // What is told is of everything that was sampled, four completions a group.
            assert_eq!(record.completions, 4 * (4 + replaced), "{name}: {record:?}");
            let taught = record.groups_with_signal * (4 + replaced) as f64;
            assert!((taught - 4.0).abs() < 1e-9, "{name}: {record:?}");
        }
    }
}

#[test]
fn a_budget_that_is_spent_trains_on_what_taught() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let one = RlConfig { dynamic_sampling: dynamic(1), learning_rate: 1e-6, ..config(6) };
    for mode in [Mode::OnPolicy, Mode::Streaming] {
        let config = RlConfig { mode, ..one.clone() };
        let folder = dir.path().join(format!("{mode:?}"));
        for record in train(&world, config, &folder, even()) {
            let replaced = record.replaced_groups.unwrap();
            assert_eq!(record.completions, 16);
            let taught = record.groups_with_signal * 4.0;
            // Where nothing taught, all of it is looked at, and no step taken.
            let expected = if taught == 0.0 { 4 } else { 4 - replaced };
            assert!(taught == 0.0 || taught == expected as f64, "{record:?}");
            assert_eq!(record.grad_norm.is_some(), taught > 0.0, "{record:?}");
        }
    }
}

/// Cut completions are not trained on: their tokens are in no sum, be it the entropy's.
#[test]
fn what_is_excluded_has_no_weight() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let exclude = |max_tokens: usize, min_tokens: usize| RlConfig {
        truncated: TruncatedCompletions::Exclude,
        sampling: SamplingParams { max_tokens, min_tokens, ..config(3).sampling },
        objective: PolicyObjective { entropy_coefficient: 0.1, ..PolicyObjective::default() },
        ..config(3)
    };
    // All of them are cut, and nothing is learned, in whatever mode.
    for mode in [Mode::OnPolicy, Mode::Streaming] {
        let config = RlConfig { mode, ..exclude(2, 2) };
        for record in train(&world, config, &dir.path().join(format!("{mode:?}")), even()) {
            assert_eq!((record.truncated, record.grad_norm), (1.0, None), "{record:?}");
            assert!(record.loss == 0.0 && record.logprob_gap == 0.0, "{record:?}");
        }
    }
    let records = train(&world, exclude(3, 0), &dir.path().join("some"), even());
    assert!(records.iter().any(|r| r.truncated > 0.0 && r.truncated < 1.0), "{records:?}");
    assert!(records.iter().all(|record| record.loss.is_finite()), "{records:?}");
}

/// A group that hardly teaches is no better than one that teaches nothing.
#[test]
fn the_range_of_advantages_is_a_gate() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let length = |sample: &Sample| Score::new(sample.response.len() as f64 / 100.0);
    let reward: Arc<dyn Reward> = Arc::new(from_fn("length", length));
    let gate = |min_advantage_range| {
        let dynamic = DynamicSampling { max_batches: 1, min_advantage_range };
        RlConfig {
            dynamic_sampling: Some(dynamic),
            advantage: posttrain_loss::AdvantageConfig::GroupMean {},
            ..config(1)
        }
    };
    let open = train(&world, gate(0.0), &dir.path().join("open"), reward.clone());
    let shut = train(&world, gate(0.5), &dir.path().join("shut"), reward);
    assert!(open[0].grad_norm.is_some() && open[0].replaced_groups.unwrap() < 4, "{open:?}");
    assert_eq!(shut[0].replaced_groups, Some(0), "nothing passes: all of it is looked at");
    assert!((open[0].reward - shut[0].reward).abs() < 1e-12, "what is told is of all of it");
}

#[test]
fn a_domain_of_twice_the_weight_comes_twice_as_often() {
    let domains: Vec<Example> = examples(0..40)
        .into_iter()
        .enumerate()
        .map(|(i, e)| Example { domain: ["a", "b"][i % 2].to_owned(), ..e })
        .collect();
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let (reward, seen) = asked();
    let weights = [("a".to_owned(), 2.0)].into();
    let curriculum = CurriculumConfig { weights, solve_rate: None };
    let config = RlConfig { curriculum, learning_rate: 1e-6, ..config(60) };
    let run = world.run(config.clone(), dir.path(), reward);
    run.train(&domains, &[], &mut Silent).unwrap();

    let domain = |id: &String| domains.iter().find(|e| e.id == *id).unwrap().domain.clone();
    let seen: Vec<String> = seen.lock().unwrap().iter().map(domain).collect();
    let a = seen.iter().filter(|domain| *domain == "a").count() as f64 / seen.len() as f64;
    assert!((0.58..0.75).contains(&a), "{a}");

    let unknown = [("art".to_owned(), 2.0)].into();
    let curriculum = CurriculumConfig { weights: unknown, solve_rate: None };
    let run = world.run(RlConfig { curriculum, ..config }, &dir.path().join("other"), even());
    let error = run.train(&domains, &[], &mut Silent).unwrap_err().to_string();
    assert!(error.contains("`curriculum.weights`") && error.contains("art"), "{error}");
}

#[test]
fn what_is_solved_or_hopeless_comes_less_often_and_the_rates_survive_a_kill() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let solve_rate = SolveRateConfig { revisit: 0.1, ..SolveRateConfig::default() };
    let curriculum = CurriculumConfig { solve_rate: Some(solve_rate), ..Default::default() };
    let config = RlConfig { curriculum, learning_rate: 1e-6, ..config(30) };
    let whole = dir.path().join("whole");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let own = seen.clone();
    // Every other answer to an even question is right, and none to an odd one.
    let reward: Arc<dyn Reward> = Arc::new(from_fn("half", move |sample: &Sample| {
        let id = sample.id.parse::<u32>().unwrap();
        own.lock().unwrap().push(id);
        let half = sample.response.bytes().map(u32::from).sum::<u32>().is_multiple_of(2);
        Ok(Score::binary(id.is_multiple_of(2) && half))
    }));
    let written = train(&world, config.clone(), &whole, reward.clone());

    // Four completions of each example: an epoch gives each a rate, and odd ones, of which none is
    // ever solved, then come a tenth as often. Without that they were half of all.
    let later = seen.lock().unwrap()[4 * 40..].to_vec();
    let odd = later.iter().filter(|id| !id.is_multiple_of(2)).count() as f64 / later.len() as f64;
    assert!(odd < 0.35, "{odd}");
    let state = RunState::peek(&whole).unwrap().unwrap();
    assert!(state.curriculum.drawn > 120 && state.curriculum.solve_rates.len() >= 38);

    for death in [5, 15] {
        let folder = dir.path().join(death.to_string());
        let run = world.run(config.clone(), &folder, reward.clone());
        let killed = AssertUnwindSafe(|| run.train(&examples(0..40), &[], &mut DieAt(death)));
        assert!(catch_unwind(killed).is_err());
        assert_eq!(train(&world, config.clone(), &folder, reward.clone()), written, "{death}");
    }
}

#[test]
fn a_default_curriculum_brings_each_example_once_an_epoch() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let (reward, seen) = asked();
    train(&world, config(10), dir.path(), reward);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 40);
    assert!(RunState::peek(dir.path()).unwrap().unwrap().curriculum.solve_rates.is_empty());
}

#[test]
fn completions_near_the_limit_lose_reward_and_groups_of_too_few_rewards_teach_nothing() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    // The reward itself is the same for all: what teaches is the penalty.
    let same: Arc<dyn Reward> = Arc::new(from_fn("same", |_: &Sample| Ok(Score::binary(true))));
    let penalty = OverlongPenalty { tokens: 3, factor: 1.0 };
    let penalized = RlConfig { overlong_penalty: Some(penalty), ..config(4) };
    for mode in [Mode::OnPolicy, Mode::Streaming] {
        let config = RlConfig { mode, ..penalized.clone() };
        let folder = dir.path().join(format!("{mode:?}"));
        let records = train(&world, config, &folder, same.clone());
        assert!(records.iter().any(|record| record.groups_with_signal > 0.0), "{records:?}");
        assert!(records.iter().all(|record| record.reward == 1.0), "what is told is the reward");
    }
    let plain = train(&world, config(4), &dir.path().join("plain"), same);
    assert!(plain.iter().all(|record| record.groups_with_signal == 0.0));

    // Half of the rewards fail: a group of four has two left.
    let failing = |sample: &Sample| {
        if sample.response.len().is_multiple_of(2) {
            return Err(RewardError::failed("half", "away", std::io::Error::other("away")));
        }
        Ok(Score::binary(sample.response.contains('7')))
    };
    let half: Arc<dyn Reward> = Arc::new(from_fn("half", failing));
    let lenient = RlConfig { max_reward_failures: 1.0, ..config(4) };
    let all = RlConfig { smallest_group: 4, ..lenient.clone() };
    let some = train(&world, lenient, &dir.path().join("some"), half.clone());
    let none = train(&world, all, &dir.path().join("all"), half);
    let signal = |records: &[StepRecord]| records.iter().map(|r| r.groups_with_signal).sum::<f64>();
    assert!(signal(&none) < signal(&some), "{none:?} {some:?}");
}

#[test]
fn several_optimizer_steps_are_as_many_versions_and_the_same_in_parts() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let plain =
        |config: RlConfig| RlConfig { lora: LoraConfig { dropout: 0.0, ..config.lora }, ..config };
    let many = RlConfig { optimizer_steps: 2, ..plain(config(6)) };
    let whole = train(&world, many.clone(), &dir.path().join("whole"), reward());
    let versions: Vec<u64> = whole.iter().map(|record| record.policy_version).collect();
    assert!(versions.windows(2).all(|pair| pair[1] - pair[0] <= 2), "{versions:?}");
    assert!(versions[5] > 5, "{versions:?}");
    let one = train(&world, plain(config(6)), &dir.path().join("one"), reward());
    assert_eq!(one[0].reward, whole[0].reward);
    assert_ne!(one[1].grad_norm, whole[1].grad_norm);

    // The second of a step's optimizer steps is off-policy: the ratio leaves 1.
    let one_ratio = &one[0].ratio_range;
    let moved = whole[0].ratio_range[1] - whole[0].ratio_range[0];
    assert!(moved > 10.0 * (one_ratio[1] - one_ratio[0]).max(1e-6), "{whole:?}");

    let streamed = RlConfig { mode: Mode::Streaming, ..many.clone() };
    let parts = train(&world, streamed, &dir.path().join("parts"), reward());
    let near = |one: f64, other: f64| (one - other).abs() <= 1e-4 * other.abs() + 1e-7;
    assert!(near(parts[0].grad_norm.unwrap(), whole[0].grad_norm.unwrap()), "{parts:?} {whole:?}");
    assert!(near(parts[0].loss, whole[0].loss), "{} {}", parts[0].loss, whole[0].loss);

    // Asynchronously the last of a step's versions keeps the bound, too.
    let ahead = RlConfig { mode: Mode::Asynchronous, max_staleness: 3, ..many };
    assert_eq!(ahead.steps_ahead(), 1);
    let records = train(&world, ahead, &dir.path().join("ahead"), reward());
    let most = records.iter().map(|record| record.staleness_max.unwrap()).max();
    assert_eq!(most, Some(3), "{records:?}");
}

#[test]
fn what_does_not_go_together_is_refused_by_field() {
    let ahead = RlConfig { mode: Mode::Asynchronous, max_staleness: 2, ..config(4) };
    let penalty = OverlongPenalty { tokens: 2, factor: 1.0 };
    let weights = [("a".to_owned(), -1.0)].into();
    let rate = SolveRateConfig { low: 0.9, high: 0.1, revisit: 0.5 };
    let never = SolveRateConfig { revisit: 0.0, ..SolveRateConfig::default() };
    let curriculum = |solve_rate| CurriculumConfig { solve_rate, ..CurriculumConfig::default() };
    let cases = [
        (RlConfig { dynamic_sampling: dynamic(2), ..ahead.clone() }, "`dynamic_sampling`"),
        (RlConfig { dynamic_sampling: dynamic(0), ..config(4) }, "`dynamic_sampling.max_batches`"),
        (RlConfig { optimizer_steps: 2, ..ahead }, "2 · `optimizer_steps` − 1"),
        (RlConfig { optimizer_steps: 5, ..config(4) }, "`optimizer_steps` must be at most"),
        (RlConfig { smallest_group: 5, ..config(4) }, "`smallest_group`"),
        (
            RlConfig {
                overlong_penalty: Some(penalty),
                truncated: TruncatedCompletions::Exclude,
                ..config(4)
            },
            "`overlong_penalty`",
        ),
        (
            RlConfig {
                overlong_penalty: Some(OverlongPenalty { tokens: 9, ..penalty }),
                ..config(4)
            },
            "`overlong_penalty.tokens`",
        ),
        (
            RlConfig { curriculum: CurriculumConfig { weights, solve_rate: None }, ..config(4) },
            "`curriculum.weights`",
        ),
        (RlConfig { curriculum: curriculum(Some(rate)), ..config(4) }, "low at most high"),
        (RlConfig { curriculum: curriculum(Some(never)), ..config(4) }, "revisit"),
    ];
    for (config, expected) in cases {
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}
