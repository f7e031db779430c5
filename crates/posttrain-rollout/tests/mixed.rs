//! Rows of several adapters in one batch, and adapters replaced while the engine runs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use posttrain_lora::AdapterView;
use posttrain_model::{Decoder, ModelConfig};
use posttrain_rollout::{Engine, EngineConfig, Outcome, Request, SamplingParams, Workers};
use std::rc::Rc;
use support::{adapter, assert_same, run, sampled};
use tch::{Device, Kind};

fn model(kind: Kind) -> Decoder {
    Decoder::random(&ModelConfig::tiny(), 3, kind, Device::Cpu).unwrap()
}

/// Request `i` of a mixture: adapters in turn, prompts and completions of different lengths.
fn request(i: usize, adapters: &[Option<Rc<AdapterView>>], greedy: bool) -> Request {
    let tokens = 2 + (i * 5) % 13;
    let params = SamplingParams { temperature: if greedy { 0.0 } else { 1.0 }, ..sampled(tokens, i as u64) };
    let prompt = (0..1 + i as i64 * 3 % 11).map(|t| (t * 5 + i as i64) % 63 + 1).collect();
    let adapter = i % adapters.len();
    Request::new(prompt, params).samples(1 + i % 2).policy(adapters[adapter].clone(), adapter as u64)
}

fn check(kind: Kind) {
    let model = model(kind);
    let adapters = [Some(adapter(&model, 1)), None, Some(adapter(&model, 5)), Some(adapter(&model, 9))];
    let places: Vec<usize> = (0..40).collect();
    for greedy in [true, false] {
        let mut alone: Vec<_> = places.iter().map(|_| Vec::new()).collect();
        for number in 0..adapters.len() {
            let own: Vec<_> = places.iter().copied().filter(|i| i % adapters.len() == number).collect();
            let requests = own.iter().map(|&i| request(i, &adapters, greedy)).collect();
            own.iter().zip(run(&model, EngineConfig::default(), requests)).for_each(|(&i, samples)| alone[i] = samples);
        }
        for (max_rows, workers) in [(128, 1), (7, 1), (128, 2), (10, 2)] {
            let config = EngineConfig { max_rows, workers: Workers::Count(workers), ..EngineConfig::default() };
            let mixed = run(&model, config, places.iter().map(|&i| request(i, &adapters, greedy)).collect());
            for (i, (mixed, alone)) in mixed.iter().zip(&alone).enumerate() {
                assert_eq!(mixed.len(), alone.len());
                for (mixed, alone) in mixed.iter().zip(alone) {
                    let what = format!("{kind:?}, {max_rows} rows, {workers} workers, request {i}");
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
    let tokens = |adapter: Option<Rc<AdapterView>>| {
        let request = Request::new(vec![3, 4], sampled(12, 4)).policy(adapter, 0);
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
    let old = |seed| Request::new(vec![3, 4], sampled(12, seed)).policy(Some(first.clone()), 1);
    let new = |seed| Request::new(vec![3, 4], sampled(9, seed)).policy(Some(second.clone()), 2);
    let mut engine = Engine::new(&model, None, EngineConfig { max_rows: 4, ..EngineConfig::default() }).unwrap();
    let (mut done, mut requests): (Vec<Outcome>, _) = (Vec::new(), vec![old(0), old(1), old(2)]);
    for request in &requests {
        engine.submit(request.clone());
    }
    for _ in 0..4 {
        done.extend(engine.step().unwrap());
    }
    assert!(done.is_empty(), "three rows run");
    // The same prompt and seeds, so that only the adapter can make a difference; one more than there are rows.
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
        let version = request.policy_version;
        let alone = run(&model, EngineConfig::default(), vec![request]).remove(0).remove(0).unwrap();
        let swapped = outcome.result.as_ref().unwrap();
        assert_eq!(swapped.policy_version, version);
        assert_same(swapped, &alone, &format!("request {}", outcome.request));
    }
    let tokens = |request: usize| &done[request].result.as_ref().unwrap().tokens[..9];
    assert!(tokens(0) != tokens(3), "the versions do not differ");
}
