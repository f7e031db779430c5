//! Prompts that begin like what was read before, such as the turns of a conversation: what was read
//! is not read again, and nobody can tell from what comes out.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use futures::executor::block_on_stream;
use posttrain_model::{Decoder, ModelConfig};
use posttrain_rollout::service::{
    SampleEvent, SampleRequest, SamplingService, SamplingServiceConfig,
};
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

/// A branch of a long text, cut off by copying, and a budget that the long one nearly fills.
#[test]
fn a_branch_of_a_long_text_is_kept_within_the_budget() {
    let model = model();
    let config =
        EngineConfig { keep_tokens: 220, workers: Workers::Count(1), ..EngineConfig::default() };
    let mut engine = Engine::new(model.clone(), None, config).unwrap();
    let long = questions(200, 1).remove(0).prompt;
    engine.complete([Request::new(long.clone(), sampled(2, 1))]).unwrap();

    for (cut, kept) in [(110, 110), (110, 140), (60, 60), (60, 90)] {
        let before = engine.stats().kept_tokens;
        let own: Vec<i64> = (0..40).map(|t| (t * 13 + cut as i64) % 63 + 1).collect();
        let branch = Request::new(
            [&long[..cut], &own[..30], &own[..kept - cut + 1]].concat(),
            sampled(4, 3),
        );
        let alone = run(&model, EngineConfig::default(), vec![branch.clone()]).remove(0).remove(0);
        let completions = engine.complete([branch]).unwrap();
        assert_same(&completions[0][0], &alone.unwrap(), "a branch");
        let found = engine.stats().kept_tokens - before;
        assert!(found >= kept, "{found} of {kept} tokens were found behind a cut at {cut}");
    }
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
fn a_services_engines_read_for_each_other() {
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
            let turn = SampleRequest::new(request.clone());
            let outcome = client.submit_blocking(turn).unwrap().wait().remove(0);
            let alone =
                run(&model, EngineConfig::default(), vec![request]).remove(0).remove(0).unwrap();
            let completion = outcome.result.unwrap();
            assert_same(&completion, &alone, "a turn");
            prompt.extend(completion.tokens);
            prompt.push(11);
        }
    }
    // What a turn adds, its last sampled token and one more, is computed; the first turns whole.
    let stats = client.stats();
    assert_eq!(stats.sampled_tokens, 9 * 3 * 5);
    assert_eq!(stats.prompt_tokens + stats.kept_tokens, 9 * (20 + 26 + 32));
    assert!(stats.kept_tokens >= 9 * (24 + 30), "{stats:?}");

    // As many requests as there are engines run at a time, so that each goes to another one.
    let prompt: Vec<i64> = (0..40).map(|t| t % 9 + 50).collect();
    let request = Request::new(prompt, sampled(60, 1));
    let first = client.submit_blocking(SampleRequest::new(request.clone()).with_tokens()).unwrap();
    let mut first = block_on_stream(first);
    assert!(matches!(first.next(), Some(SampleEvent::Token(_))));
    let others: Vec<_> = (0..2)
        .map(|_| client.submit_blocking(SampleRequest::new(request.clone())).unwrap())
        .collect();
    for other in others {
        other.wait().remove(0).result.unwrap();
    }
    first.for_each(drop);
    let after = client.stats();
    assert_eq!(after.prompt_tokens - stats.prompt_tokens, 40 + 2);
    assert_eq!(after.kept_tokens - stats.kept_tokens, 2 * 39);
    assert!(after.busy > stats.busy);
}

/// Questions behind one system message, in the order in which they come.
fn questions(system: usize, count: usize) -> Vec<Request> {
    let system: Vec<i64> = (0..system as i64).map(|t| (t * 11 + 5) % 63 + 1).collect();
    let question = |which: usize| {
        let own = (0..4 + which as i64 % 5).map(|t| (t * 3 + which as i64 * 17) % 63 + 1);
        let prompt = system.iter().copied().chain(own).collect();
        Request::new(prompt, sampled(3 + which % 4, which as u64)).samples(1 + which % 2)
    };
    (0..count).map(question).collect()
}

#[test]
fn a_system_message_is_read_once_whenever_its_questions_come() {
    let model = model();
    let policy = adapter(&model, 1);
    // A short message, which every prompt has a copy of, and a long one, which they share.
    for system in [40, 150] {
        let config = EngineConfig {
            keep_tokens: 400,
            workers: Workers::Count(1),
            ..EngineConfig::default()
        };
        let mut engine = Engine::new(model.clone(), None, config).unwrap();
        let mut rest = 0;

        for (which, request) in questions(system, 12).into_iter().enumerate() {
            let request = request.policy((which % 3 == 0).then(|| policy.clone()));
            let alone = run(&model, EngineConfig::default(), vec![request.clone()]).remove(0);
            rest += request.prompt.len() - system;

            let samples = request.samples;
            engine.submit(request);
            let mut outcomes = Vec::new();
            while !engine.is_idle() {
                outcomes.extend(engine.step().unwrap());
            }
            outcomes.sort_by_key(|outcome| outcome.sample);
            assert_eq!(outcomes.len(), samples);
            for (outcome, alone) in outcomes.iter().zip(&alone) {
                let (one, other) = (outcome.result.as_ref().unwrap(), alone.as_ref().unwrap());
                assert_same(one, other, &format!("question {which} behind {system} tokens"));
            }
        }
        // Once by the base and once by the adapter; what questions begin with in common may be
        // found, too.
        let stats = engine.stats();
        assert!(stats.prompt_tokens <= 2 * system + rest, "{stats:?}");
        assert!(stats.kept_tokens >= 10 * system, "{stats:?}");
    }
}

#[test]
fn prompts_that_begin_with_what_is_kept_are_computed_together() {
    let model = model();
    let config =
        EngineConfig { keep_tokens: 2000, workers: Workers::Count(1), ..EngineConfig::default() };
    let mut engine = Engine::new(model.clone(), None, config).unwrap();
    let mut requests = questions(90, 9);
    let first = requests.remove(0);
    engine.complete([first]).unwrap();
    let before = engine.stats();

    // Some begin with what is kept, some do not; two begin alike behind it.
    let mut other = requests[0].prompt[50..].to_vec();
    other.push(3);
    requests.push(Request::new(other, sampled(5, 5)));
    for own in [1, 2] {
        let prompt = [&requests[0].prompt[..90], &[7; 20], &[own]].concat();
        requests.push(Request::new(prompt, sampled(4, 40 + own as u64)));
    }
    let together = engine.complete(requests.clone()).unwrap();
    for (completions, request) in together.iter().zip(&requests) {
        let alone = run(&model, EngineConfig::default(), vec![request.clone()]).remove(0);
        for (completion, alone) in completions.iter().zip(alone) {
            assert_same(completion, &alone.unwrap(), "one of many");
        }
    }

    let stats = engine.stats();
    assert!(stats.kept_tokens - before.kept_tokens >= 10 * 90, "{stats:?}");
    let own: usize = requests[..8].iter().map(|request| request.prompt.len() - 90).sum();
    let computed = stats.prompt_tokens - before.prompt_tokens;
    assert!(computed <= own + requests[8].prompt.len() + 20 + 2, "{computed}");
}

#[test]
fn an_adapter_that_nobody_samples_by_any_more_is_freed() {
    let model = model();
    let config =
        EngineConfig { keep_tokens: 1000, workers: Workers::Count(1), ..EngineConfig::default() };
    let mut engine = Engine::new(model.clone(), None, config).unwrap();
    let policy = adapter(&model, 1);
    let freed = Arc::downgrade(&policy.adapter);
    engine.complete([questions(30, 1).remove(0).policy(policy)]).unwrap();
    assert!(freed.upgrade().is_none(), "what it read keeps it");
}
