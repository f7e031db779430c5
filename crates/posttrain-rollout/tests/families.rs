//! Greedy decoding of a small random model of each family is transformers', token for token: the
//! cache, the norms of heads and the experts on the path that samples.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../posttrain-model/tests/device/mod.rs"]
mod device;

use device::{cases, device};
use posttrain_model::Checkpoint;
use posttrain_rollout::{Engine, EngineConfig, Request, SamplingParams, Workers};
use posttrain_tensor::read_tensors;
use std::path::Path;
use std::sync::Arc;
use tch::Kind;

const CASES: [&str; 6] = ["qwen3", "qwen3_yarn", "qwen2", "llama3", "qwen3_moe", "qwen3_moe_mixed"];

#[test]
fn greedy_completions_are_transformers_in_one_batch_and_on_two_workers() {
    for case in cases(&CASES) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../posttrain-model/tests/fixtures/families")
            .join(case);
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let model = Arc::new(checkpoint.decoder(Kind::Float, device()).unwrap());
        let golden = read_tensors(&folder.join("expected.safetensors")).unwrap();
        let tokens =
            |key: &str, i: usize| Vec::<i64>::try_from(&golden[&format!("{key}.{i}")]).unwrap();
        for workers in [1, 2] {
            let config =
                EngineConfig { workers: Workers::Count(workers), ..EngineConfig::default() };
            let mut engine = Engine::new(model.clone(), None, config).unwrap();
            for i in 0..3 {
                // transformers was told not to stop at an end token.
                let params =
                    SamplingParams { max_tokens: 12, min_tokens: 12, ..SamplingParams::default() };
                engine.submit(Request::new(tokens("tokens", i), params.greedy()));
            }
            let mut seen = 0;
            let check = |outcome: posttrain_rollout::Outcome| {
                assert_eq!(
                    outcome.result.unwrap().tokens,
                    tokens("greedy", outcome.request),
                    "{case}"
                );
                seen += 1;
            };
            engine.run(check).unwrap();
            assert_eq!(seen, 3);
        }
    }
}
