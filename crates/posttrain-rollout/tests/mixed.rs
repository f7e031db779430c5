//! Rows of several adapters in one batch, and adapters replaced while the engine runs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use posttrain_model::{Decoder, ModelConfig};
use posttrain_rollout::{
    Engine, EngineConfig, Outcome, PolicySnapshot, Request, RequestError, SamplingParams, Workers,
};
use std::sync::Arc;
use support::{adapter, assert_same, run, sampled};
use tch::{Device, Kind};

fn model(kind: Kind) -> Arc<Decoder> {
    Arc::new(Decoder::random(&ModelConfig::tiny(), 3, kind, Device::Cpu).unwrap())
}

/// Request `i` of a mixture: adapters in turn, prompts and completions of different lengths.
fn request(i: usize, adapters: &[Option<PolicySnapshot>], greedy: bool) -> Request {
    let tokens = 2 + (i * 5) % 13;
    let params =
        SamplingParams { temperature: if greedy { 0.0 } else { 1.0 }, ..sampled(tokens, i as u64) };
    let prompt = (0..1 + i as i64 * 3 % 11).map(|t| (t * 5 + i as i64) % 63 + 1).collect();
    let adapter = i % adapters.len();
    let request = Request::new(prompt, params).samples(1 + i % 2);
    request.policy(adapters[adapter].clone()).client(i as u64 % 3)
}

fn check(kind: Kind) {
    let model = model(kind);
    let adapters =
        [Some(adapter(&model, 1)), None, Some(adapter(&model, 5)), Some(adapter(&model, 9))];
    let places: Vec<usize> = (0..40).collect();
    for greedy in [true, false] {
        let mut alone: Vec<_> = places.iter().map(|_| Vec::new()).collect();
        for number in 0..adapters.len() {
            let own: Vec<_> =
                places.iter().copied().filter(|i| i % adapters.len() == number).collect();
            let requests = own.iter().map(|&i| request(i, &adapters, greedy)).collect();
            own.iter()
                .zip(run(&model, EngineConfig::default(), requests))
                .for_each(|(&i, samples)| alone[i] = samples);
        }
        for (max_rows, workers, prefill_tokens) in
            [(128, 1, 4096), (7, 1, 4096), (128, 2, 4096), (10, 2, 4096), (7, 1, 4), (10, 2, 3)]
        {
            let config = EngineConfig {
                max_rows,
                prefill_tokens,
                workers: Workers::Count(workers),
                ..EngineConfig::default()
            };
            let mixed = run(
                &model,
                config,
                places.iter().map(|&i| request(i, &adapters, greedy)).collect(),
            );
            for (i, (mixed, alone)) in mixed.iter().zip(&alone).enumerate() {
                assert_eq!(mixed.len(), alone.len());
                for (mixed, alone) in mixed.iter().zip(alone) {
                    let what = format!(
                        "{kind:?}, {max_rows} rows, {workers} workers, passes of {prefill_tokens}, request {i}"
                    );
                    assert_same(mixed.as_ref().unwrap(), alone.as_ref().unwrap(), &what);
                }
            }
        }
    }
}

#[test]
fn rows_of_several_adapters_are_each_as_those_of_an_adapter_alone() {
    check(Kind::Float);
}

#[test]
fn the_adapters_differ() {
    let model = model(Kind::Float);
    let tokens = |adapter: Option<PolicySnapshot>| {
        let request = Request::new(vec![3, 4], sampled(12, 4)).policy(adapter);
        run(&model, EngineConfig::default(), vec![request]).remove(0).remove(0).unwrap().tokens
    };
    let all = [tokens(None), tokens(Some(adapter(&model, 1))), tokens(Some(adapter(&model, 5)))];
    assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2], "{all:?}");
}

/// The next version serves the requests that come after it; rows that run keep theirs to the end.
#[test]
fn an_adapter_is_replaced_while_its_rows_run() {
    let model = model(Kind::Float);
    let (first, second) = (adapter(&model, 1), adapter(&model, 5));
    let old = |seed| Request::new(vec![3, 4], sampled(12, seed)).policy(first.clone());
    let new = |seed| Request::new(vec![3, 4], sampled(9, seed)).policy(second.clone());
    let mut engine =
        Engine::new(model.clone(), None, EngineConfig { max_rows: 4, ..EngineConfig::default() })
            .unwrap();
    let (mut done, mut requests): (Vec<Outcome>, _) = (Vec::new(), vec![old(0), old(1), old(2)]);
    for request in &requests {
        engine.submit(request.clone());
    }
    for _ in 0..4 {
        done.extend(engine.step().unwrap());
    }
    assert!(done.is_empty(), "three rows run");
    // The same prompt and seeds, so that only the adapter can make a difference; one more than
    // there are rows.
    for request in [new(0), new(1)] {
        engine.submit(request.clone());
        requests.push(request);
    }
    while !engine.is_idle() {
        done.extend(engine.step().unwrap());
    }
    done.sort_by_key(|outcome| outcome.request);
    assert_eq!(done.len(), 5);
    for (outcome, request) in done.iter().zip(requests) {
        let version = request.policy.as_ref().unwrap().version;
        let alone =
            run(&model, EngineConfig::default(), vec![request]).remove(0).remove(0).unwrap();
        let swapped = outcome.result.as_ref().unwrap();
        assert_eq!(swapped.policy_version, version);
        assert_same(swapped, &alone, &format!("request {}", outcome.request));
    }
    let tokens = |request: usize| &done[request].result.as_ref().unwrap().tokens[..9];
    assert!(tokens(0) != tokens(3), "the versions do not differ");
}

/// Rows move on to the next version at a token's border: what stands is the old one's, what follows
/// the new one's, and every token says whose it is.
#[test]
fn rows_that_follow_go_on_under_the_new_policy() {
    let model = model(Kind::Float);
    let (old, new) = (adapter(&model, 1), adapter(&model, 5));
    let request = |policy: &PolicySnapshot, seed| {
        Request::new(vec![3, 4], sampled(12, seed)).policy(policy.clone())
    };
    let alone = |policy, seed| {
        run(&model, EngineConfig::default(), vec![request(policy, seed)])
            .remove(0)
            .remove(0)
            .unwrap()
    };

    // One row too many, so that one request waits when the policy is replaced.
    let mut engine =
        Engine::new(model.clone(), None, EngineConfig { max_rows: 2, ..EngineConfig::default() })
            .unwrap();
    for seed in 0..3 {
        engine.submit(request(&old, seed));
    }
    engine.submit(Request::new(vec![3, 4], sampled(12, 9)));
    for _ in 0..4 {
        assert!(engine.step().unwrap().is_empty());
    }
    assert_eq!(engine.replace_policy(Some(&old), &new), 3);
    assert_eq!(engine.replace_policy(Some(&old), &new), 0);

    let mut done = Vec::new();
    while !engine.is_idle() {
        done.extend(engine.step().unwrap());
    }
    done.sort_by_key(|outcome| outcome.request);
    let completions: Vec<_> = done.iter().map(|outcome| outcome.result.as_ref().unwrap()).collect();

    // Prefill and four steps drew five tokens.
    let versions = [vec![1; 5], vec![5; 7]].concat();
    for (seed, followed) in (0..2).zip(&completions) {
        assert_eq!((&followed.token_versions, followed.policy_version), (&versions, 1));
        assert_eq!(followed.tokens[..5], alone(&old, seed).tokens[..5]);
        assert!(followed.tokens != alone(&old, seed).tokens, "the new policy changes nothing");
    }
    assert_same(completions[2], &alone(&new, 2), "what waited is the new policy's alone");
    assert_eq!(completions[3].token_versions, vec![0; 12], "the base's row was moved");
}

#[test]
fn a_cancelled_request_leaves_and_the_others_are_as_without_it() {
    let model = model(Kind::Float);
    let policies = [None, Some(adapter(&model, 1)), Some(adapter(&model, 5))];
    let requests: Vec<_> = (0..12).map(|i| request(i, &policies, false).samples(2)).collect();
    let whole = run(&model, EngineConfig::default(), requests.clone());

    let mut engine =
        Engine::new(model, None, EngineConfig { max_rows: 9, ..EngineConfig::default() }).unwrap();
    for request in &requests {
        engine.submit(request.clone());
    }
    let mut done: Vec<Outcome> = engine.step().unwrap();
    let cancelled = [1, 3, 11];
    for request in cancelled {
        let finished = done.iter().filter(|outcome| outcome.request == request).count();
        assert_eq!(engine.cancel(request, &RequestError::Cancelled).unwrap(), 2 - finished);
        assert_eq!(engine.cancel(request, &RequestError::Cancelled).unwrap(), 0);
    }
    while !engine.is_idle() {
        done.extend(engine.step().unwrap());
    }

    assert_eq!(done.len(), 24, "every sample has one outcome");
    for outcome in &done {
        let what = format!("request {} sample {}", outcome.request, outcome.sample);
        match &outcome.result {
            Err(error) => assert!(
                cancelled.contains(&outcome.request) && *error == RequestError::Cancelled,
                "{what}"
            ),
            Ok(completion) => assert_same(
                completion,
                whole[outcome.request][outcome.sample].as_ref().unwrap(),
                &what,
            ),
        }
    }
}

#[test]
fn a_higher_priority_gets_rows_first_and_equals_come_in_order() {
    let model = model(Kind::Float);
    let mut engine =
        Engine::new(model, None, EngineConfig { max_rows: 1, ..EngineConfig::default() }).unwrap();
    for priority in [0, 5, 0, 9, 5] {
        engine.submit(Request::new(vec![1, 2], sampled(3, 0)).priority(priority));
    }
    let mut order = Vec::new();
    while !engine.is_idle() {
        order.extend(engine.step().unwrap().into_iter().map(|outcome| outcome.request));
    }
    assert_eq!(order, [3, 1, 4, 0, 2]);
}

#[test]
fn every_token_is_shown_as_it_is_drawn() {
    let model = model(Kind::Float);
    let mut engine = Engine::new(model, None, EngineConfig::default()).unwrap();
    engine.submit(Request::new(vec![1, 2], sampled(7, 3)).samples(2));
    let mut shown = vec![Vec::new(); 2];
    let mut done = Vec::new();
    while !engine.is_idle() {
        done.extend(
            engine
                .step_with(&mut |token| shown[token.sample].push((token.token, token.logprob)))
                .unwrap(),
        );
    }
    for outcome in done {
        let completion = outcome.result.unwrap();
        let own: Vec<_> = completion.tokens.into_iter().zip(completion.logprobs).collect();
        assert_eq!(own, shown[outcome.sample]);
    }
}
