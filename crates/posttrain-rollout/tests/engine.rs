//! The engine's promises on the tiny Llamas whose continuations transformers has given.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use posttrain_lora::{Adapter, LoraConfig};
use posttrain_model::{Checkpoint, Decoder};
use posttrain_rollout::{
    Engine, EngineConfig, FinishReason, PolicySnapshot, Request, RequestError, RolloutError,
    SamplingParams, Workers,
};
use posttrain_tensor::read_tensors;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::{adapter, assert_same, run, sampled};
use tch::{Device, Kind};

fn fixture(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../posttrain-model/tests/fixtures").join(case)
}

fn open(case: &str) -> Arc<Decoder> {
    Arc::new(Checkpoint::open(&fixture(case)).unwrap().decoder(Kind::Float, Device::Cpu).unwrap())
}

#[test]
fn greedy_decoding_through_the_cache_is_transformers_token_for_token() {
    for case in ["llama_tiny", "llama_untied"] {
        let (model, golden) =
            (open(case), read_tensors(&fixture(case).join("expected.safetensors")).unwrap());
        let tokens = |name: String| Vec::<i64>::try_from(&golden[&name]).unwrap();
        let params = sampled(16, 0).greedy();
        let requests =
            (0..3).map(|i| Request::new(tokens(format!("tokens.{i}")), params.clone())).collect();
        for (i, results) in run(&model, EngineConfig::default(), requests).into_iter().enumerate() {
            assert_eq!(
                results[0].as_ref().unwrap().tokens,
                tokens(format!("greedy.{i}")),
                "{case} {i}"
            );
        }
    }
}

#[test]
fn a_sample_is_the_same_whatever_else_is_in_the_batch() {
    let model = open("llama_tiny");
    let requests = || -> Vec<Request> {
        let request = |i: i64| {
            Request::new(
                (0..=i % 7).map(|t| (t * 13 + i) % 256).collect(),
                sampled(3 + (i % 5) as usize * 4, i as u64),
            )
        };
        (0..9).map(|i| request(i).samples(3)).collect()
    };
    let wide = run(&model, EngineConfig::default(), requests());
    let narrow = EngineConfig {
        max_rows: 4,
        prefill_tokens: 5,
        workers: Workers::Count(1),
        record_mib: 0,
        ..EngineConfig::default()
    };
    let narrow = run(&model, narrow, requests());
    let divided = [2, 3, 50].map(|n| {
        run(
            &model,
            EngineConfig { workers: Workers::Count(n), ..EngineConfig::default() },
            requests(),
        )
    });
    let alone: Vec<_> = requests()
        .into_iter()
        .flat_map(|r| run(&model, EngineConfig::default(), vec![r]))
        .collect();
    // A draw on the border between two tokens falls to either side by rounding, once in some hundred
    // thousand; what was drawn before it is the same all the same.
    let mut borders = 0;
    for (i, results) in wide.iter().enumerate() {
        assert_eq!(results.len(), 3);
        for (s, result) in results.iter().enumerate() {
            let wide = result.as_ref().unwrap();
            let mut border = false;
            for other in divided.iter().map(|d| &d[i][s]).chain([&narrow[i][s], &alone[i][s]]) {
                let other = other.as_ref().unwrap();
                let same = wide.tokens.iter().zip(&other.tokens).take_while(|(a, b)| a == b);
                let same = same.count();
                border |= same < wide.tokens.len().max(other.tokens.len());
                let logprobs = wide.logprobs.iter().zip(&other.logprobs).take(same);
                assert!(
                    logprobs.into_iter().all(|(a, b)| (a - b).abs() < 1e-4),
                    "request {i} sample {s}"
                );
            }
            borders += usize::from(border);
        }
        assert_ne!(results[0].as_ref().unwrap().tokens, results[1].as_ref().unwrap().tokens);
    }
    assert!(borders <= 1, "{borders} of 27 samples differ");
}

#[test]
fn rows_of_several_adapters_in_one_batch_are_each_as_alone() {
    let model = open("llama_tiny");
    let adapters = [None, Some(adapter(&model, 1)), Some(adapter(&model, 9))];
    let request =
        |i: usize| Request::new(vec![5, 6, 7], sampled(12, 4)).policy(adapters[i % 3].clone());
    let mixed = run(&model, EngineConfig::default(), (0..6).map(request).collect());
    let divided = EngineConfig { workers: Workers::Count(2), ..EngineConfig::default() };
    let divided = run(&model, divided, (0..6).map(request).collect());
    for i in 0..mixed.len() {
        let alone =
            run(&model, EngineConfig::default(), vec![request(i)]).remove(0).remove(0).unwrap();
        for mixed in [&mixed, &divided] {
            let mixed = mixed[i][0].as_ref().unwrap();
            let version = [0, 1, 9][i % 3];
            assert_eq!((&mixed.tokens, mixed.policy_version), (&alone.tokens, version));
            assert!(
                mixed.token_versions.iter().all(|v| *v == version)
                    && mixed.token_versions.len() == mixed.tokens.len()
            );
        }
    }
    let tokens = |i: usize| &mixed[i][0].as_ref().unwrap().tokens;
    assert!(tokens(0) != tokens(1) && tokens(1) != tokens(2), "the adapters do nothing");
}

#[test]
fn a_policy_that_has_diverged_fails_alone() {
    let model = open("llama_tiny");
    let lora = LoraConfig { rank: 2, ..LoraConfig::default() };
    let broken = Adapter::init(&lora, model.modules(), 1, Device::Cpu).unwrap();
    for (_, leaf) in broken.parameters() {
        let _ = tch::no_grad(|| leaf.shallow_clone().fill_(f64::NAN));
    }
    let broken = PolicySnapshot::new(broken.snapshot(Kind::Float).unwrap(), 3);
    let whole = Some(adapter(&model, 1));
    let request = |i: usize| {
        let policy = if i == 1 { Some(broken.clone()) } else { whole.clone() };
        Request::new(vec![5, 6, 7], sampled(12, 4)).samples(2).policy(policy)
    };
    // What is kept of texts is not theirs to spoil either.
    let config = EngineConfig { keep_tokens: 64, ..EngineConfig::default() };
    let results = run(&model, config, (0..3).map(request).collect());
    let alone = run(&model, EngineConfig::default(), vec![request(0)]);
    for result in &results[1] {
        let error = result.as_ref().unwrap_err();
        assert!(matches!(error, RequestError::Diverged { .. }), "{error}");
    }
    for i in [0, 2] {
        for (ours, alone) in results[i].iter().zip(&alone[0]) {
            assert_eq!(ours.as_ref().unwrap().tokens, alone.as_ref().unwrap().tokens);
        }
    }

    let mut engine = Engine::new(model, None, EngineConfig::default()).unwrap();
    let error = engine.complete((0..3).map(request)).unwrap_err();
    assert!(matches!(error, RolloutError::Request { request: 1, .. }), "{error}");
}

#[test]
fn a_bad_prompt_is_refused_alone_and_in_words() {
    let model = open("llama_tiny");
    let context = model.config().max_position_embeddings as usize;
    let bad = [vec![], vec![1; context], vec![1, 2, 9999], vec![-1]];
    let mut requests: Vec<_> = bad.into_iter().map(|p| Request::new(p, sampled(2, 0))).collect();
    requests.push(Request::new(vec![1], SamplingParams { temperature: f64::NAN, ..sampled(2, 0) }));
    requests
        .push(Request::new(vec![1], SamplingParams { stop: vec!["x".into()], ..sampled(2, 0) }));
    requests.push(Request::new(vec![1, 2, 3], sampled(2, 0)));
    let results = run(&model, EngineConfig::default(), requests);
    let error = |i: usize| results[i][0].as_ref().unwrap_err().to_string();
    assert!(
        error(0).contains("empty") && error(1).contains("context") && error(2).contains("9999")
    );
    assert!(
        error(3).contains("-1")
            && error(4).contains("temperature")
            && error(5).contains("tokenizer")
    );
    assert_eq!(results[6][0].as_ref().unwrap().tokens.len(), 2);
}

#[test]
fn groups_come_back_complete_and_in_order_whatever_else_was_submitted() {
    let model = open("llama_tiny");
    let request =
        |i: i64| Request::new(vec![i + 1, 5, 6], sampled(2 + i as usize * 3, i as u64)).samples(3);
    for workers in [1, 3] {
        let config = EngineConfig {
            max_rows: 4,
            workers: Workers::Count(workers),
            ..EngineConfig::default()
        };
        let expected = run(&model, config.clone(), (0..4).map(request).collect());
        let mut engine = Engine::new(model.clone(), None, config).unwrap();
        let before = engine.submit(request(9));
        let refused = engine.submit(Request::new(vec![], sampled(1, 0)));

        let groups = engine.complete((0..4).map(request)).unwrap();
        assert_eq!(groups.len(), expected.len());
        for (group, expected) in groups.iter().zip(&expected) {
            assert_eq!(group.len(), 3);
            let expected = expected.iter().map(|result| result.as_ref().unwrap());
            group.iter().zip(expected).for_each(|(one, other)| assert_same(one, other, "a group"));
        }

        let mut others: Vec<_> = engine
            .step()
            .unwrap()
            .into_iter()
            .map(|o| (o.request, o.sample, o.result.is_ok()))
            .collect();
        others.sort_unstable();
        assert_eq!(
            others,
            [(before, 0, true), (before, 1, true), (before, 2, true), (refused, 0, false)]
        );
        assert!(engine.is_idle());
    }
}

#[test]
fn a_group_that_cannot_be_sampled_is_named_before_any_is() {
    let model = open("llama_tiny");
    let mut engine = Engine::new(model, None, EngineConfig::default()).unwrap();
    let requests = [vec![1, 2], vec![1, 9999]].map(|prompt| Request::new(prompt, sampled(2, 0)));
    let error = engine.complete(requests).unwrap_err();
    assert_eq!(error.to_string(), "request 1 cannot be served");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("9999"));
    assert!(engine.is_idle());
    assert_eq!(engine.stats().sampled_tokens, 0);
}

#[test]
fn a_completion_ends_at_the_context_and_at_its_stop_tokens() {
    let model = open("llama_tiny");
    let context = model.config().max_position_embeddings as usize;
    let long = SamplingParams {
        max_tokens: 10 * context,
        min_tokens: 10 * context,
        ..SamplingParams::default()
    };
    let completion =
        run(&model, EngineConfig::default(), vec![Request::new(vec![1; context - 3], long)])
            .remove(0)
            .remove(0)
            .unwrap();
    assert_eq!((completion.tokens.len(), completion.finish_reason), (3, FinishReason::Length));

    let every_token = SamplingParams {
        stop_token_ids: (0..256).collect(),
        max_tokens: 5,
        ..SamplingParams::default()
    };
    let completion = run(&model, EngineConfig::default(), vec![Request::new(vec![1], every_token)])
        .remove(0)
        .remove(0)
        .unwrap();
    assert_eq!((completion.tokens.len(), completion.finish_reason), (1, FinishReason::Stop));
}

#[test]
fn completions_stream_out_as_they_finish() {
    let model = open("llama_tiny");
    let mut engine = Engine::new(model, None, EngineConfig::default()).unwrap();
    for tokens in [9, 2, 5] {
        engine.submit(Request::new(vec![1, 2], sampled(tokens, 0)));
    }
    let mut order = Vec::new();
    let mut steps = Vec::new();
    while !engine.is_idle() {
        let step = engine.stats().steps;
        order.extend(engine.step().unwrap().into_iter().map(|o| {
            steps.push(step);
            o.request
        }));
    }
    assert_eq!(order, [1, 2, 0]);
    assert!(steps[0] < steps[1] && steps[1] < steps[2]);
}

#[test]
fn recorded_logprobs_are_those_of_a_forward_pass_at_any_temperature() {
    let model = open("llama_tiny");
    for temperature in [0.5, 1.0, 1.7] {
        let params = SamplingParams { temperature, ..sampled(12, 3) };
        let completion =
            run(&model, EngineConfig::default(), vec![Request::new(vec![5, 6, 7], params)])
                .remove(0)
                .remove(0)
                .unwrap();
        let text = [vec![5, 6, 7], completion.tokens.clone()].concat();
        let packing = posttrain_model::Packing::new(&[posttrain_model::Sequence {
            prompt: text,
            completions: vec![],
        }])
        .unwrap();
        let mut attention = posttrain_model::PackedAttention::new(&packing, &model).unwrap();
        let input = packing.input(Device::Cpu).unwrap();
        let hidden =
            model.forward(&input, &mut attention, &posttrain_lora::RowAdapters::none()).unwrap();
        let logprobs = (model.logits(&hidden, &posttrain_lora::RowAdapters::none()).unwrap()
            / temperature)
            .log_softmax(-1, Kind::Float);
        for (place, (&token, &recorded)) in
            completion.tokens.iter().zip(&completion.logprobs).enumerate()
        {
            let expected = logprobs.double_value(&[2 + place as i64, token]);
            assert!(
                (f64::from(recorded) - expected).abs() < 1e-4,
                "T {temperature} token {place}: {recorded} {expected}"
            );
        }
    }
}

#[test]
fn many_short_samples_through_few_rows_all_come_out() {
    let model = open("llama_tiny");
    let requests = (0..40)
        .map(|i| {
            Request::new(vec![i % 200 + 1; 1 + i as usize % 30], sampled(1 + i as usize % 9, 1))
                .samples(2)
        })
        .collect();
    let results = run(
        &model,
        EngineConfig {
            max_rows: 3,
            prefill_tokens: 40,
            workers: Workers::Count(2),
            record_mib: 0,
            ..EngineConfig::default()
        },
        requests,
    );
    for (i, samples) in results.iter().enumerate() {
        assert!(samples.iter().all(|s| s.as_ref().unwrap().tokens.len() == 1 + i % 9));
        assert_eq!(samples.len(), 2);
    }
}
