//! Prompts that begin alike are computed together, and nobody can tell from what comes out.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use posttrain_model::{Decoder, ModelConfig};
use posttrain_rollout::{Engine, EngineConfig, PolicySnapshot, Request, SamplingParams, Workers};
use std::sync::Arc;
use support::{adapter, assert_same, run, sampled};
use tch::{Device, Kind};

/// The first `shared` tokens of one beginning, then `own`.
fn prompt(beginning: i64, shared: i64, own: &[i64]) -> Vec<i64> {
    (0..shared).map(|t| (t * t + beginning * 7) % 63 + 1).chain(own.iter().copied()).collect()
}

/// Alike in 40 tokens or in 20, one the beginning of another, identical ones, and a stranger.
fn prompts() -> Vec<Vec<i64>> {
    vec![
        prompt(1, 40, &[5, 6]),
        prompt(1, 40, &[7]),
        prompt(2, 30, &[1, 2, 3, 4]),
        prompt(1, 40, &[]),
        prompt(1, 40, &[7]),
        prompt(1, 40, &[7, 7, 8, 9, 10, 11]),
        prompt(1, 20, &[60, 61]),
        prompt(2, 30, &[9]),
        prompt(3, 5, &[9]),
    ]
}

fn requests(adapters: &[Option<PolicySnapshot>], params: &SamplingParams) -> Vec<Request> {
    let request = |(place, prompt): (usize, Vec<i64>)| {
        let params = SamplingParams { seed: place as u64, ..params.clone() };
        let adapter = adapters[place % adapters.len()].clone();
        Request::new(prompt, params).samples(1 + place % 3).policy(adapter)
    };
    prompts().into_iter().cycle().take(27).enumerate().map(request).collect()
}

fn check(kind: Kind, tokens: usize) {
    let model = Arc::new(Decoder::random(&ModelConfig::tiny(), 5, kind, Device::Cpu).unwrap());
    let adapters = [None, Some(adapter(&model, 1)), Some(adapter(&model, 9))];
    let configs = [
        EngineConfig::default(),
        EngineConfig {
            max_rows: 3,
            prefill_tokens: 150,
            workers: Workers::Count(1),
            record_mib: 0,
            ..EngineConfig::default()
        },
        EngineConfig { workers: Workers::Count(2), ..EngineConfig::default() },
    ];
    for (adapters, params) in
        [(&adapters[..], sampled(tokens, 0)), (&adapters[..1], sampled(tokens, 0).greedy())]
    {
        let alone: Vec<_> = requests(adapters, &params)
            .into_iter()
            .flat_map(|request| run(&model, EngineConfig::default(), vec![request]))
            .collect();
        for config in &configs {
            let together = run(&model, config.clone(), requests(adapters, &params));
            for (request, (alone, together)) in alone.iter().zip(&together).enumerate() {
                assert_eq!(alone.len(), together.len());
                for (alone, together) in alone.iter().zip(together) {
                    let what = format!("{kind:?} {config:?} request {request}");
                    assert_same(alone.as_ref().unwrap(), together.as_ref().unwrap(), &what);
                }
            }
        }
    }
}

#[test]
fn completions_are_those_of_each_prompt_alone() {
    check(Kind::Float, 9);
}

#[test]
fn the_beginning_is_computed_once() {
    let model =
        Arc::new(Decoder::random(&ModelConfig::tiny(), 5, Kind::Float, Device::Cpu).unwrap());
    let computed = |config: EngineConfig, adapters: &[Option<PolicySnapshot>]| {
        let mut engine = Engine::new(model.clone(), None, config).unwrap();
        for own in 0..20 {
            let adapter = adapters[own as usize % adapters.len()].clone();
            engine.submit(
                Request::new(prompt(1, 45, &[own + 1, 1, 2]), sampled(4, 0)).policy(adapter),
            );
        }
        engine.run(|outcome| assert_eq!(outcome.result.unwrap().tokens.len(), 4)).unwrap();
        engine.stats().prompt_tokens
    };
    let one = EngineConfig { workers: Workers::Count(1), ..EngineConfig::default() };
    assert_eq!(computed(one.clone(), &[None]), 45 + 20 * 3);
    // Those that wait for a row are computed with those that have one.
    assert_eq!(computed(EngineConfig { max_rows: 2, ..one }, &[None]), 45 + 20 * 3);
    // Ten prompts of 48 tokens a pass.
    assert_eq!(computed(EngineConfig { prefill_tokens: 480, ..one }, &[None]), 2 * 45 + 20 * 3);
    // Each adapter has keys and values of its own.
    let adapters = [Some(adapter(&model, 1)), Some(adapter(&model, 2))];
    assert_eq!(computed(one, &adapters), 2 * 45 + 20 * 3);
    assert_eq!(
        computed(EngineConfig { workers: Workers::Count(2), ..EngineConfig::default() }, &adapters),
        2 * 45 + 20 * 3
    );
}
