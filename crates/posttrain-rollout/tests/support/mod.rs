//! What the engine's tests share.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses a part, and a test fails by panicking"
)]

use posttrain_lora::{Adapter, LoraConfig, LoraPair, ModuleSpec};
use posttrain_model::Decoder;
use posttrain_rollout::{
    Completion, Engine, EngineConfig, PolicySnapshot, Request, RequestError, SamplingParams,
};
use std::sync::Arc;
use tch::Device;

/// Outcomes by request and sample.
pub type Results = Vec<Vec<Result<Completion, RequestError>>>;

/// What comes of requests, by request and sample.
pub fn run(model: &Arc<Decoder>, config: EngineConfig, requests: Vec<Request>) -> Results {
    let mut results: Vec<Vec<_>> =
        requests.iter().map(|r| (0..r.samples.max(1)).map(|_| None).collect()).collect();
    let mut engine = Engine::new(model.clone(), None, config).unwrap();
    requests.into_iter().for_each(|request| {
        engine.submit(request);
    });
    engine
        .run(|o| assert!(results[o.request][o.sample].replace(o.result).is_none(), "given twice"))
        .unwrap();
    results.into_iter().map(|samples| samples.into_iter().flatten().collect()).collect()
}

/// A policy whose adapter does something, as version `seed`.
pub fn adapter(model: &Decoder, seed: u64) -> PolicySnapshot {
    let config = LoraConfig { rank: 2, alpha: 8.0, ..LoraConfig::default() };
    let fresh = Adapter::init(&config, model.modules(), seed, Device::Cpu).unwrap();
    let pair = |m: &ModuleSpec, p: &LoraPair| {
        // B from another seed's A, so that the adapter does something.
        let b = Adapter::init(
            &config,
            &[ModuleSpec::new(m.path.clone(), m.out_features, 1)],
            seed + 1,
            Device::Cpu,
        );
        let b = b.unwrap().pair(0).unwrap().a.detach().transpose(0, 1).contiguous();
        LoraPair { a: p.a.detach().copy(), b, scale: p.scale }
    };
    let pairs = fresh.layers().map(|(m, p)| Some(pair(m, p))).collect();
    let adapter = Adapter::from_pairs(config.clone(), model.modules(), pairs).unwrap();
    PolicySnapshot::new(adapter.snapshot(model.kind()).unwrap(), seed)
}

/// Exactly so many tokens, drawn with a seed.
pub fn sampled(tokens: usize, seed: u64) -> SamplingParams {
    SamplingParams { max_tokens: tokens, min_tokens: tokens, seed, ..SamplingParams::default() }
}

/// The same tokens, and log-probabilities that differ by rounding alone.
pub fn assert_same(one: &Completion, other: &Completion, what: &str) {
    assert_eq!(one.tokens, other.tokens, "{what}");
    assert_eq!(
        (one.finish_reason, one.policy_version),
        (other.finish_reason, other.policy_version),
        "{what}"
    );
    let near = one.logprobs.iter().zip(&other.logprobs).all(|(a, b)| (a - b).abs() < 1e-4);
    assert!(near, "{what}: {:?} {:?}", one.logprobs, other.logprobs);
}
