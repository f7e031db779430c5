//! Training on the activations that sampling recorded gives what training on computed ones gives.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_lora::LoraConfig;
use posttrain_loss::PolicyObjective;
use posttrain_model::{AttentionBias, Decoder, ExpertsConfig, ModelConfig};
use posttrain_rollout::{Completion, Engine, EngineConfig, Request, SamplingParams};
use posttrain_train::{Datum, DeadGroups, ForwardBackward, Trainer, TrainerConfig, Workers};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Every kind of block that records: plain, with norms of heads, with biases.
fn models() -> Vec<Arc<Decoder>> {
    let plain = ModelConfig { num_hidden_layers: 3, ..ModelConfig::tiny() };
    let normed = ModelConfig { head_norms: true, ..plain.clone() };
    let biased = ModelConfig { attention_bias: AttentionBias::QueryKeyValue, ..plain.clone() };
    let model =
        |c: &ModelConfig| Arc::new(Decoder::random(c, 3, Kind::Float, Device::Cpu).unwrap());
    [plain, normed, biased].iter().map(model).collect()
}

fn step(trainer: &mut Trainer) {
    let params = trainer.adam_params(1e-1);
    trainer.optim_step(&params).unwrap();
}

fn trainer(model: &Arc<Decoder>, config: TrainerConfig, dropout: f64) -> Trainer {
    let lora = LoraConfig { rank: 4, dropout, ..LoraConfig::default() };
    let mut trainer = Trainer::new(model.clone(), &lora, config, 5).unwrap();
    // A step away from the start, where B is zero and A has no gradient.
    let completion = |advantage: f32| {
        Datum::completion(&[1, 2], &[4, 9])
            .with_sampling_logprobs(vec![-4.1; 2])
            .with_advantage(advantage)
    };
    trainer
        .forward_backward(&[completion(1.0), completion(-0.5)], &PolicyObjective::default())
        .unwrap();
    step(&mut trainer);
    trainer
}

/// Prompts some of which begin alike, long enough for the beginning to be shared.
fn prompts() -> Vec<Vec<i64>> {
    let beginning: Vec<i64> = (0..20).map(|i| (i * 11 + 2) % 60 + 1).collect();
    let end = |i: i64| (0..3 + i % 4).map(move |t| (t * 17 + i * 5) % 60 + 1);
    (0..7)
        .map(|i| {
            if i % 3 == 2 {
                end(i).collect()
            } else {
                beginning.iter().copied().chain(end(i)).collect()
            }
        })
        .collect()
}

/// Four completions of each prompt, of 1 to 12 tokens, in the order of their samples.
fn sampled(
    model: &Arc<Decoder>,
    trainer: &Trainer,
    engine: EngineConfig,
) -> Vec<(Vec<i64>, Vec<Completion>)> {
    let policy = trainer.snapshot().unwrap();
    let mut engine = Engine::new(model.clone(), None, engine).unwrap();
    let mut groups: Vec<_> = prompts().into_iter().map(|prompt| (prompt, vec![None; 4])).collect();
    for (index, (prompt, _)) in groups.iter().enumerate() {
        let max_tokens = 1 + index * 11 / 6;
        let stop_token_ids = (0..6).map(|i| i * 9 + 4).collect();
        let params = SamplingParams {
            max_tokens,
            stop_token_ids,
            seed: index as u64,
            ..SamplingParams::default()
        };
        let request = Request::new(prompt.clone(), params).samples(4);
        engine.submit(request.policy(policy.clone()));
    }
    engine.run(|o| groups[o.request].1[o.sample] = Some(o.result.unwrap())).unwrap();
    groups
        .into_iter()
        .map(|(prompt, c)| (prompt, c.into_iter().map(Option::unwrap).collect()))
        .collect()
}

fn batch(groups: &[(Vec<i64>, Vec<Completion>)], keep: impl Fn(usize) -> bool) -> Vec<Datum> {
    let mut datums = Vec::new();
    for (group, (prompt, completions)) in groups.iter().enumerate() {
        for (index, completion) in completions.iter().enumerate() {
            let sampled = Datum::sampled(prompt, completion, [1.0, -0.7, 0.0, 0.4][index]);
            datums.push(Datum {
                recording: sampled.recording.clone().filter(|_| keep(group)),
                ..sampled
            });
        }
    }
    datums
}

fn gradients(trainer: &mut Trainer, batch: &[Datum]) -> (ForwardBackward, Vec<(String, Tensor)>) {
    let outcome = trainer.forward_backward(batch, &PolicyObjective::default()).unwrap();
    let gradients = trainer
        .adapter()
        .parameters()
        .into_iter()
        .map(|(name, leaf)| (name, leaf.grad().copy()))
        .collect();
    // The next call is a step's first again, whose dropout masks are then the same.
    trainer.clear_gradients();
    (outcome, gradients)
}

fn assert_same(what: &str, one: &[(String, Tensor)], other: &[(String, Tensor)]) {
    for ((name, one), (_, other)) in one.iter().zip(other) {
        let off = ((one - other).norm() / (other.norm() + 1e-9)).double_value(&[]);
        assert!(other.norm().double_value(&[]) > 0.0 && off < 1e-4, "{what}, {name}: off by {off}");
    }
}

fn recording(max_rows: usize, workers: usize) -> EngineConfig {
    EngineConfig {
        max_rows,
        prefill_tokens: 60,
        workers: Workers::Count(workers),
        record_mib: 64,
        ..EngineConfig::default()
    }
}

#[test]
fn the_gradient_is_that_of_computed_activations() {
    for (number, model) in models().iter().enumerate() {
        for (max_rows, workers, micro_batch_tokens, dead_groups) in [
            (64, 1, 10_000, DeadGroups::Compute),
            (5, 1, 100, DeadGroups::Skip),
            (9, 2, 60, DeadGroups::Skip),
        ] {
            let config = TrainerConfig {
                micro_batch_tokens,
                dead_groups,
                workers: Workers::Count(workers),
                ..TrainerConfig::default()
            };
            let mut trainer = trainer(model, config, 0.0);
            let groups = sampled(model, &trainer, recording(max_rows, workers));
            let (recorded, from_recorded) = gradients(&mut trainer, &batch(&groups, |_| true));
            let (computed, from_computed) = gradients(&mut trainer, &batch(&groups, |_| false));
            let what = format!("model {number}, {max_rows} rows, {workers} workers");
            assert_same(&what, &from_recorded, &from_computed);
            assert_eq!(recorded.recorded_tokens, recorded.computed_tokens, "{what}");
            assert_eq!(
                (computed.recorded_tokens, computed.computed_tokens),
                (0, recorded.computed_tokens),
                "{what}"
            );
            assert!((recorded.loss() - computed.loss()).abs() < 1e-5, "{what}");
            assert!(recorded.metrics.policy.logprob_gap().unwrap() < 1e-5, "{what}");
        }
    }
}

#[test]
fn what_is_recorded_in_part_is_computed_in_part() {
    let model = &models()[1];
    let mut trainer =
        trainer(model, TrainerConfig { micro_batch_tokens: 50, ..TrainerConfig::default() }, 0.0);
    let groups = sampled(model, &trainer, recording(64, 1));
    let (some, from_some) = gradients(&mut trainer, &batch(&groups, |group| group % 2 == 0));
    let (_, from_none) = gradients(&mut trainer, &batch(&groups, |_| false));
    assert!(0 < some.recorded_tokens && some.recorded_tokens < some.computed_tokens, "{some:?}");
    assert_same("in part", &from_some, &from_none);
}

#[test]
fn another_policys_activations_are_not_used() {
    let model = &models()[0];
    let mut trainer = trainer(model, TrainerConfig::default(), 0.0);
    let groups = sampled(model, &trainer, recording(64, 1));
    gradients(&mut trainer, &batch(&groups, |_| true));
    trainer.forward_backward(&batch(&groups, |_| true), &PolicyObjective::default()).unwrap();
    step(&mut trainer);
    let (stale, from_stale) = gradients(&mut trainer, &batch(&groups, |_| true));
    let (_, from_computed) = gradients(&mut trainer, &batch(&groups, |_| false));
    assert_eq!(stale.recorded_tokens, 0);
    assert!(stale.metrics.policy.logprob_gap().unwrap() > 1e-3, "the policy has not moved");
    assert_same("stale", &from_stale, &from_computed);
}

/// Two adapters of one version are two policies: a recording is known by the adapter that made it,
/// not by a number.
#[test]
fn another_adapter_of_the_same_version_is_another_policy() {
    let model = &models()[0];
    let first = trainer(model, TrainerConfig::default(), 0.0);
    let mut second = trainer(model, TrainerConfig::default(), 0.0);
    assert_eq!(first.policy_version(), second.policy_version());
    let groups = sampled(model, &first, recording(64, 1));
    let (outcome, from_other) = gradients(&mut second, &batch(&groups, |_| true));
    let (_, computed) = gradients(&mut second, &batch(&groups, |_| false));
    assert_eq!(outcome.recorded_tokens, 0);
    assert_same("another adapter", &from_other, &computed);
}

#[test]
fn dropout_is_computed() {
    let model = &models()[0];
    let mut trainer = trainer(model, TrainerConfig::default(), 0.5);
    let groups = sampled(model, &trainer, recording(64, 1));
    let (dropped, gradient) = gradients(&mut trainer, &batch(&groups, |_| true));
    let (_, computed) = gradients(&mut trainer, &batch(&groups, |_| false));
    assert_eq!(dropped.recorded_tokens, 0);
    assert_same("dropout", &gradient, &computed);
}

#[test]
fn a_budget_that_is_spent_leaves_the_rest_to_the_trainer() {
    let model = &models()[0];
    let mut trainer = trainer(model, TrainerConfig::default(), 0.0);
    let policy = trainer.snapshot().unwrap();
    let config = EngineConfig {
        record_mib: 1,
        workers: Workers::Count(1),
        max_rows: 16,
        ..EngineConfig::default()
    };
    let mut engine = Engine::new(model.clone(), None, config).unwrap();
    // Long ones first: those behind them find nothing left.
    for (index, max_tokens) in [2, 120, 4].into_iter().enumerate() {
        let params = SamplingParams {
            max_tokens,
            min_tokens: max_tokens,
            seed: index as u64,
            ..SamplingParams::default()
        };
        let request = Request::new(vec![index as i64 + 1; 5], params).samples(8);
        engine.submit(request.policy(policy.clone()));
    }
    let mut groups: Vec<_> = (1..4).map(|token| (vec![token; 5], Vec::new())).collect();
    engine.run(|o| groups[o.request].1.push(o.result.unwrap())).unwrap();
    let recorded: Vec<usize> =
        groups.iter().map(|(_, c)| c.iter().filter(|c| c.recording.is_some()).count()).collect();
    assert_eq!(
        (recorded[0], recorded[1]),
        (8, 0),
        "the first are short, the second over the budget"
    );
    groups.iter_mut().for_each(|(_, completions)| completions.truncate(4));
    let (some, from_some) = gradients(&mut trainer, &batch(&groups, |_| true));
    let (_, from_none) = gradients(&mut trainer, &batch(&groups, |_| false));
    assert!(some.recorded_tokens < some.computed_tokens);
    assert_same("over the budget", &from_some, &from_none);
}

#[test]
fn experts_do_not_record() {
    let experts = ExpertsConfig {
        count: 4,
        a_token: 2,
        intermediate_size: 8,
        normalized: true,
        layers: vec![0],
    };
    let config =
        ModelConfig { num_hidden_layers: 2, experts: Some(experts), ..ModelConfig::tiny() };
    let model = Arc::new(Decoder::random(&config, 3, Kind::Float, Device::Cpu).unwrap());
    let mut engine = Engine::new(model, None, recording(8, 1)).unwrap();
    engine.submit(Request::new(
        vec![1, 2],
        SamplingParams { max_tokens: 3, ..SamplingParams::default() },
    ));
    engine.run(|o| assert!(o.result.unwrap().recording.is_none())).unwrap();
}
