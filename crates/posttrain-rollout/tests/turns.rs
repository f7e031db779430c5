//! The turns of a conversation: what was read is not read again, and nobody can tell from what
//! comes out.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use posttrain_model::{Decoder, ModelConfig};
use posttrain_rollout::service::{SampleRequest, SamplingService, SamplingServiceConfig};
use posttrain_rollout::{
    Completion, Engine, EngineConfig, PolicySnapshot, Request, SamplingStats, Workers,
};
use std::sync::Arc;
use support::{adapter, assert_same, run, sampled};
use tch::{Device, Kind};

fn model() -> Arc<Decoder> {
    Arc::new(Decoder::random(&ModelConfig::tiny(), 3, Kind::Float, Device::Cpu).unwrap())
}

/// Four turns, each behind all that came before it: the completion before, and three tokens of a
/// tool's.
fn converse(
    engine: &mut Engine,
    policy: Option<&PolicySnapshot>,
    seed: u64,
) -> Vec<(Request, Completion)> {
    let mut turns = Vec::new();
    let mut prompt: Vec<i64> = (0..20).map(|t| (t * 5 + seed as i64) % 63 + 1).collect();
    for turn in 0..4 {
        let request =
            Request::new(prompt.clone(), sampled(6, seed * 10 + turn)).policy(policy.cloned());
        engine.submit(request.clone());
        let mut completion = None;
        while !engine.is_idle() {
            completion = completion.or(engine.step().unwrap().pop());
        }
        let completion = completion.unwrap().result.unwrap();
        prompt.extend(&completion.tokens);
        prompt.extend([7, 8, 9 + turn as i64]);
        turns.push((request, completion));
    }
    turns
}

fn conversations(keep_tokens: usize) -> (Vec<(Request, Completion)>, SamplingStats) {
    let model = model();
    let config =
        EngineConfig { keep_tokens, workers: Workers::Count(1), ..EngineConfig::default() };
    let mut engine = Engine::new(model.clone(), None, config).unwrap();
    let policies = [None, Some(adapter(&model, 1)), Some(adapter(&model, 2))];
    let all = policies
        .iter()
        .zip(1..)
        .flat_map(|(policy, seed)| converse(&mut engine, policy.as_ref(), seed))
        .collect();
    (all, engine.stats())
}

#[test]
fn turns_are_computed_once_and_are_as_if_read_from_the_start() {
    let (kept, stats) = conversations(1000);
    let (anew, nothing) = conversations(0);
    for ((request, kept), (_, anew)) in kept.iter().zip(&anew) {
        assert_same(kept, anew, &format!("a prompt of {} tokens", request.prompt.len()));
    }
    // Of a turn's prompt the last sampled token and the tool's three are new.
    let first = 3 * 20;
    assert_eq!(stats.prompt_tokens, first + 3 * 3 * 4);
    assert_eq!(stats.prompt_tokens + stats.kept_tokens, nothing.prompt_tokens);
    assert_eq!(nothing.kept_tokens, 0);
}

#[test]
fn what_the_budget_does_not_hold_is_read_again() {
    let (small, stats) = conversations(30);
    let (anew, nothing) = conversations(0);
    assert!(small.iter().zip(&anew).all(|((_, a), (_, b))| a.tokens == b.tokens));
    let whole = conversations(1000).1.kept_tokens;
    assert!(
        0 < stats.kept_tokens && stats.kept_tokens < whole,
        "{stats:?}, {whole} with room for all"
    );
    assert_eq!(stats.prompt_tokens + stats.kept_tokens, nothing.prompt_tokens);
}

#[test]
fn another_policy_reads_for_itself() {
    let model = model();
    let config = EngineConfig { keep_tokens: 1000, ..EngineConfig::default() };
    let mut engine = Engine::new(model.clone(), None, config).unwrap();
    let (one, other) = (adapter(&model, 1), adapter(&model, 2));
    let (request, completion) = converse(&mut engine, Some(&one), 1).swap_remove(0);
    let prompt = [request.prompt, completion.tokens, vec![5]].concat();
    let next = Request::new(prompt, sampled(5, 3)).policy(other);
    let before = engine.stats().kept_tokens;
    engine.submit(next.clone());
    let mut done = Vec::new();
    while !engine.is_idle() {
        done.extend(engine.step().unwrap());
    }
    assert_eq!(engine.stats().kept_tokens, before);
    let alone = run(&model, EngineConfig::default(), vec![next]).remove(0).remove(0).unwrap();
    assert_same(done[0].result.as_ref().unwrap(), &alone, "the other policy's");
}

#[test]
fn a_services_conversations_stay_with_their_engine() {
    let model = model();
    let engine =
        EngineConfig { keep_tokens: 2000, workers: Workers::Count(3), ..EngineConfig::default() };
    let config = SamplingServiceConfig { engine, ..SamplingServiceConfig::default() };
    let service = SamplingService::start(model.clone(), None, config).unwrap();
    let client = service.client();
    for conversation in 0..9 {
        let mut prompt: Vec<i64> =
            (0..20).map(|t| (t * 3 + conversation as i64) % 63 + 1).collect();
        for turn in 0..3 {
            let request = Request::new(prompt.clone(), sampled(5, turn));
            let turn = SampleRequest::new(request.clone()).conversation(conversation);
            let outcome = client.submit_blocking(turn).unwrap().wait().remove(0);
            let alone =
                run(&model, EngineConfig::default(), vec![request]).remove(0).remove(0).unwrap();
            let completion = outcome.result.unwrap();
            assert_same(&completion, &alone, "a turn");
            prompt.extend(completion.tokens);
            prompt.push(11);
        }
    }
}
