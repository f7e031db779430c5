//! An adapter on the head: PEFT's logits and gradients, in the trainer and in the engine.
//!
//! `posttrain-model/tests/fixtures/families/generate.py` wrote the adapter and what a float64
//! reference and PEFT compute.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../posttrain-model/tests/device/mod.rs"]
mod device;

use device::device;
use posttrain_lora::{Adapter, load_peft, save_peft};
use posttrain_loss::PolicyObjective;
use posttrain_model::{Checkpoint, Decoder};
use posttrain_rollout::{Engine, EngineConfig, PolicySnapshot, Request, SamplingParams};
use posttrain_tensor::read_tensors;
use posttrain_train::{Datum, GradientCheckpointing, Trainer, TrainerConfig, score_texts};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../posttrain-model/tests/fixtures/families/qwen3_yarn")
}

fn model() -> Decoder {
    Checkpoint::open(&folder()).unwrap().decoder(Kind::Float, device()).unwrap()
}

fn adapter(model: &Decoder) -> Adapter {
    load_peft(&folder().join("head_adapter"), model.modules(), device()).unwrap()
}

fn golden() -> BTreeMap<String, Tensor> {
    read_tensors(&folder().join("head_adapter/expected.safetensors")).unwrap()
}

fn texts() -> Vec<Vec<i64>> {
    let tokens = read_tensors(&folder().join("expected.safetensors")).unwrap();
    (0..3).map(|i| Vec::try_from(&tokens[&format!("tokens.{i}")]).unwrap()).collect()
}

/// `log p(token | those before it)` of a text's tokens but the first, from its golden logits.
fn logprobs(logits: &Tensor, text: &[i64]) -> Vec<f32> {
    let next = Tensor::from_slice(&text[1..]).unsqueeze(1);
    let all = logits.log_softmax(-1, Kind::Float).narrow(0, 0, text.len() as i64 - 1);
    Vec::try_from(all.gather(1, &next, false).squeeze_dim(1)).unwrap()
}

fn assert_near(got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{got} {expected}");
    }
}

#[test]
fn scores_are_pefts_and_the_engines_own() {
    let (model, golden) = (Arc::new(model()), golden());
    let policy = PolicySnapshot::new(adapter(&model).snapshot(Kind::Float).unwrap(), 0);
    let view = &*policy.adapter;
    for (i, text) in texts().into_iter().enumerate().filter(|(_, text)| text.len() > 1) {
        let scores = score_texts(&model, Some(view), std::slice::from_ref(&text)).unwrap();
        assert_near(&scores[0].logprobs, &logprobs(&golden[&format!("adapted.{i}")], &text));
    }
    // One row with the adapter and one without, in a batch: each is scored as it was sampled.
    let mut engine = Engine::new(model.clone(), None, EngineConfig::default()).unwrap();
    for adapter in [Some(policy.clone()), None] {
        let params =
            SamplingParams { max_tokens: 10, min_tokens: 10, seed: 3, ..SamplingParams::default() };
        engine.submit(Request::new(texts()[1].clone(), params).policy(adapter));
    }
    let mut sampled = Vec::new();
    engine.run(|outcome| sampled.push((outcome.request, outcome.result.unwrap()))).unwrap();
    sampled.sort_by_key(|(request, _)| *request);
    for ((_, completion), adapter) in sampled.iter().zip([Some(view), None]) {
        let text = [texts()[1].clone(), completion.tokens.clone()].concat();
        let scores = score_texts(&model, adapter, &[text]).unwrap();
        assert_near(&completion.logprobs, &scores[0].logprobs[texts()[1].len() - 1..]);
    }
    assert_ne!(sampled[0].1.logprobs, sampled[1].1.logprobs);
}

#[test]
fn gradients_are_pefts_and_the_adapter_is_written_in_its_keys() {
    let (model, golden) = (Arc::new(model()), golden());
    for checkpointing in [GradientCheckpointing::Off, GradientCheckpointing::Blocks] {
        let config = TrainerConfig { checkpointing, ..TrainerConfig::default() };
        let mut trainer = Trainer::with_adapter(model.clone(), adapter(&model), config, 1).unwrap();
        let datum = |(i, text): (usize, Vec<i64>)| {
            let sampling = logprobs(&golden[&format!("adapted.{i}")], &text);
            Datum::completion(&text[..1], &text[1..])
                .with_sampling_logprobs(sampling)
                .with_advantage(1.0)
        };
        let datums: Vec<_> =
            texts().into_iter().enumerate().filter(|(_, t)| t.len() > 1).map(datum).collect();
        let tokens: usize = datums.iter().map(|datum| datum.targets.len()).sum();
        trainer.forward_backward(&datums, &PolicyObjective::default()).unwrap();
        let parameters = trainer.adapter().parameters();
        assert!(parameters.iter().any(|(name, _)| name == "lm_head.lora_A.weight"));
        for (name, leaf) in parameters {
            // With ratios of one the loss's gradient is that of −Σ log p, over the tokens.
            let (got, expected) = (
                leaf.grad().to_device(Device::Cpu) * -(tokens as f64),
                &golden[&format!("grad.{name}")],
            );
            let off = (got - expected).abs().max().double_value(&[])
                / expected.abs().max().double_value(&[]);
            assert!(off < 1e-4, "{name}: {off}");
        }
        trainer.adapter().check_gradients().unwrap();
        let dir = tempfile::tempdir().unwrap();
        save_peft(trainer.adapter(), dir.path(), "base").unwrap();
        let keys = |dir: &Path| {
            let tensors = read_tensors(&dir.join("adapter_model.safetensors")).unwrap();
            tensors.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(keys(dir.path()), keys(&folder().join("head_adapter")));
    }
}

#[test]
fn merged_it_gives_the_same_and_what_cannot_be_computed_is_refused() {
    let mut model = model();
    let adapter = adapter(&model);
    let text = texts().remove(2);
    let expected = logprobs(&golden()["adapted.2"], &text);
    model.merge(&adapter).unwrap();
    assert_near(
        &score_texts(&model, None, std::slice::from_ref(&text)).unwrap()[0].logprobs,
        &expected,
    );
    model.unmerge();
    let base = score_texts(&model, None, std::slice::from_ref(&text)).unwrap();
    assert!(
        base[0].logprobs.iter().zip(&expected).any(|(base, adapted)| (base - adapted).abs() > 0.1)
    );

    let mut config = adapter.config().clone();
    config.dropout = 0.1;
    let error = Trainer::new(Arc::new(model), &config, TrainerConfig::default(), 1)
        .unwrap_err()
        .to_string();
    assert!(error.contains("lora.dropout") && error.contains("head"), "{error}");

    // A head that is the embedding has no adapter.
    let tied = Checkpoint::open(&folder().with_file_name("qwen3"))
        .unwrap()
        .decoder(Kind::Float, device())
        .unwrap();
    let error = load_peft(&folder().join("head_adapter"), tied.modules(), device())
        .unwrap_err()
        .to_string();
    assert!(error.contains("lm_head"), "{error}");
}
