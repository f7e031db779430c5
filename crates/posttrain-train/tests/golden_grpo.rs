//! Advantages and losses against TRL's `GRPOTrainer._compute_loss`, with gradients
//! (`fixtures/grpo`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_loss::kl::KlEstimator;
use posttrain_loss::{
    AdvantageConfig, Aggregation, KlPenalty, LossBatch, Objective, PolicyLoss, PolicyObjective,
    TokenAdvantages,
};
use posttrain_tensor::read_tensors;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Kind, Tensor};

fn golden() -> BTreeMap<String, Tensor> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/grpo/expected.safetensors");
    read_tensors(&path).unwrap()
}

fn floats(t: &Tensor) -> Vec<f32> {
    Vec::try_from(t.to_kind(Kind::Float).reshape([-1])).unwrap()
}

fn close(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= 1e-5 * e.abs().max(1.0), "{what} [{i}]: {g} {e}");
    }
}

#[test]
fn advantages_are_trls() {
    let golden = golden();
    let rewards: Vec<Option<f32>> =
        floats(&golden["rewards"]).into_iter().map(|r| (!r.is_nan()).then_some(r)).collect();
    for (config, name) in [
        (AdvantageConfig::GroupNormalized { epsilon: 1e-4 }, "group"),
        (AdvantageConfig::GroupMean {}, "none"),
        (AdvantageConfig::BatchNormalized { epsilon: 1e-4 }, "batch"),
    ] {
        let got = config.advantages(&rewards, &[3; 4]).unwrap().values;
        // TRL makes a missing reward's advantage NaN; here it is 0 and counted.
        let expected = floats(&golden[&format!("advantages.{name}")])
            .into_iter()
            .map(|a| if a.is_nan() { 0.0 } else { a });
        close(&got, &expected.collect::<Vec<_>>(), name);
    }
}

#[test]
fn losses_and_gradients_are_trls() {
    let golden = golden();
    let clip = |high| PolicyLoss::PpoClip { clip_low: 0.2, clip_high: high };
    let kl = Some(KlPenalty { estimator: KlEstimator::K3, coefficient: 0.04 });
    let cases = [
        ("dapo", clip(0.2), Aggregation::TokenMean {}, None),
        ("dapo_clip_higher", clip(0.28), Aggregation::TokenMean {}, None),
        ("dapo_kl", clip(0.2), Aggregation::TokenMean {}, kl),
        ("grpo", clip(0.2), Aggregation::SequenceMean {}, None),
        ("dr_grpo", clip(0.2), Aggregation::ConstantLength { tokens: 6 }, None),
    ];
    let weights = floats(&golden["mask"]);
    let advantages = floats(&golden["advantages.group"])
        .into_iter()
        .map(|a| if a.is_nan() { 0.0 } else { a })
        .collect::<Vec<_>>();
    for (name, loss, aggregation, kl) in cases {
        let objective = PolicyObjective { loss, aggregation, kl, ..PolicyObjective::default() };
        let (old, reference) =
            (floats(&golden["old_logprobs"]), floats(&golden["reference_logprobs"]));
        let batch = LossBatch {
            weights: Some(&weights),
            sampling_logprobs: Some(&old),
            advantages: Some(TokenAdvantages::PerSequence(&advantages)),
            reference_logprobs: kl.map(|_| reference.as_slice()),
            ..LossBatch::of(&[6; 12])
        };
        let outcome = objective
            .evaluate(&batch, &floats(&golden["logprobs"]), None, &batch.totals().unwrap())
            .unwrap();
        // TRL's `grpo` and `dr_grpo` divide by every row, the empty one too; here an empty row
        // counts in neither's mean.
        let rows = if name == "grpo" {
            batch.totals().unwrap().trained_sequences as f64 / 12.0
        } else {
            1.0
        };
        close(&[(outcome.loss() * rows) as f32], &floats(&golden[&format!("{name}.loss")]), name);
        let denominator = outcome.denominator / rows;
        let gradient: Vec<f32> =
            outcome.gradient.iter().map(|g| (f64::from(*g) / denominator) as f32).collect();
        close(&gradient, &floats(&golden[&format!("{name}.grad")]), name);
    }
}
