//! A GPU computes what the CPU computes.
//!
//! `cargo xtask gpu-check` runs these on the GPU; elsewhere there is nothing to compare, and they
//! say so.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod gpu;

use gpu::{batch, gpu};
use posttrain::lora::{Adapter, LoraConfig};
use posttrain::loss::{
    Head, HeadAdapter, HeadOptions, LossBatch, PolicyObjective, RowSampling, Step, TokenAdvantages,
    sample,
};
use posttrain::model::{Decoder, ExpertsConfig, ModelConfig};
use posttrain::rollout::{Engine, EngineConfig, Request, SamplingParams};
use posttrain::tensor::crossings;
use posttrain::train::{Trainer, TrainerConfig};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Values between -1 and 1, the same everywhere.
fn noise(sizes: &[i64], seed: f64) -> Tensor {
    let places = Tensor::arange(sizes.iter().product::<i64>(), (Kind::Double, Device::Cpu));
    ((places * 12.9898 + seed).sin() * 43_758.547).frac().to_kind(Kind::Float).view(sizes)
}

fn off(got: &Tensor, expected: &Tensor) -> f64 {
    let [got, expected] = [got, expected].map(|t| t.to_device(Device::Cpu).to_kind(Kind::Double));
    (got - &expected).norm().double_value(&[]) / expected.norm().double_value(&[])
}

#[test]
fn a_gpu_draws_the_cpus_tokens() {
    let Some(gpu) = gpu() else { return };
    let kinds: [fn(f64) -> RowSampling; 5] = [
        |uniform| RowSampling { uniform, ..RowSampling::default() },
        |uniform| RowSampling { uniform, temperature: 0.7, ..RowSampling::default() },
        |uniform| RowSampling {
            uniform,
            top_k: Some(20),
            top_p: Some(0.8),
            ..RowSampling::default()
        },
        |uniform| RowSampling { uniform, min_p: Some(0.05), ..RowSampling::default() },
        |uniform| RowSampling { uniform, temperature: 0.0, ..RowSampling::default() },
    ];
    let rows: Vec<_> = (0..100).map(|i| kinds[i % 5]((i as f64 * 0.618).fract())).collect();
    for kind in [Kind::Float, Kind::BFloat16] {
        let logits = (noise(&[100, 49_152], 5.0) * 8.0).to_kind(kind);
        let (ours, theirs) =
            (sample(&logits.to_device(gpu), &rows).unwrap(), sample(&logits, &rows).unwrap());
        assert_eq!(ours.tokens, theirs.tokens, "{kind:?}");
        for (ours, theirs) in ours.logprobs.iter().zip(&theirs.logprobs) {
            assert!((ours - theirs).abs() < 1e-4, "{kind:?}: {ours} {theirs}");
        }
    }
}

#[test]
fn a_gpu_gives_the_cpus_loss_and_gradients_at_the_head() {
    let Some(gpu) = gpu() else { return };
    let (tokens, vocab, width) = (300, 5000, 64);
    let sampling: Vec<f32> = (0..tokens).map(|i| -8.0 - 0.001 * i as f32).collect();
    let batch = LossBatch {
        sampling_logprobs: Some(&sampling),
        advantages: Some(TokenAdvantages::PerSequence(&[1.0, -1.0, 0.5])),
        ..LossBatch::of(&[100, 150, 50])
    };
    let (objective, totals) = (PolicyObjective::default(), batch.totals().unwrap());
    let targets = (noise(&[tokens], 3.0).abs() * vocab as f64)
        .floor()
        .clamp_max((vocab - 1) as f64)
        .to_kind(Kind::Int64);
    for (kind, bound) in [(Kind::Float, 1e-5), (Kind::BFloat16, 0.02)] {
        let on = |device: Device| {
            let tensor = |t: Tensor| t.to_kind(kind).to_device(device);
            let head =
                Head::new(&tensor(noise(&[vocab, width], 1.0)), HeadOptions::default()).unwrap();
            let (a, b) = (
                noise(&[4, width], 6.0).to_device(device),
                noise(&[vocab, 4], 7.0).to_device(device),
            );
            let head = head.with_adapter(HeadAdapter { a, b, scale: 0.5 }).unwrap();
            let step = Step { objective: &objective, batch: &batch, totals: &totals };
            head.step(&tensor(noise(&[tokens, width], 2.0)), &targets.to_device(device), step)
                .unwrap()
        };
        let (ours, theirs) = (on(gpu), on(Device::Cpu));
        let pairs = |s: &posttrain::loss::head::HeadStep| {
            let adapter = s.gradients.adapter.as_ref().unwrap();
            [&s.scores.logprobs, &s.scores.entropy, &s.gradients.hidden, &adapter.a, &adapter.b]
                .map(Tensor::shallow_clone)
        };
        for (place, (ours, theirs)) in pairs(&ours).iter().zip(pairs(&theirs)).enumerate() {
            assert!(off(ours, &theirs) < bound, "{kind:?}, result {place}: {}", off(ours, &theirs));
        }
        let (ours, theirs) = (ours.outcome.loss(), theirs.outcome.loss());
        assert!((ours - theirs).abs() < bound * theirs.abs(), "{kind:?}: {ours} {theirs}");
    }
}

/// Parameters there, tokens there, what was drawn back: nothing else of a decoding step may wait.
#[test]
fn a_decoding_step_crosses_three_times() {
    let Some(gpu) = gpu() else { return };
    let model = Arc::new(Decoder::random(&qwen3(false), 3, Kind::BFloat16, gpu).unwrap());
    let mut engine = Engine::new(model, None, EngineConfig::default()).unwrap();
    let params = SamplingParams { max_tokens: 20, min_tokens: 20, ..SamplingParams::default() };
    engine.submit(Request::new(vec![1, 2, 3], params).samples(8));
    engine.step().unwrap();
    for _ in 0..10 {
        let before = crossings();
        assert!(engine.step().unwrap().is_empty());
        assert_eq!(crossings() - before, 3);
    }
}

fn qwen3(experts: bool) -> ModelConfig {
    let of = ExpertsConfig {
        count: 6,
        a_token: 2,
        intermediate_size: 32,
        normalized: true,
        layers: vec![0, 1],
    };
    ModelConfig {
        head_norms: true,
        num_hidden_layers: 2,
        experts: experts.then_some(of),
        ..ModelConfig::tiny()
    }
}

#[test]
fn steps_on_a_gpu_give_the_cpus_adapter() {
    let Some(gpu) = gpu() else { return };
    for experts in [false, true] {
        let trained = |device: Device| {
            let model = Decoder::random(&qwen3(experts), 3, Kind::Float, device).unwrap();
            let lora = LoraConfig { rank: 4, ..LoraConfig::default() };
            let mut trainer =
                Trainer::new(Arc::new(model), &lora, TrainerConfig::default(), 5).unwrap();
            for step in 0..3 {
                trainer
                    .forward_backward(&batch(4, 20 + step, 60), &PolicyObjective::default())
                    .unwrap();
                let params = trainer.adam_params(1e-3);
                trainer.optim_step(&params).unwrap();
            }
            let read = |adapter: &Adapter| {
                adapter.parameters().into_iter().map(|(n, t)| (n, t.detach().copy())).collect()
            };
            let parameters: Vec<(String, Tensor)> = read(trainer.adapter());
            parameters
        };
        for ((name, ours), (_, theirs)) in trained(gpu).iter().zip(&trained(Device::Cpu)) {
            if theirs.norm().double_value(&[]) > 0.0 {
                assert!(
                    off(ours, theirs) < 1e-3,
                    "experts {experts}, {name}: {}",
                    off(ours, theirs)
                );
            }
        }
    }
}
