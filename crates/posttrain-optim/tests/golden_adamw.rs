//! AdamW and gradient clipping against torch's, step by step (`fixtures/adamw`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_optim::{AdamParams, AdamW, AdamWConfig};
use posttrain_tensor::read_tensors;
use std::path::Path;
use tch::Tensor;

#[test]
fn ten_steps_plain_and_clipped_are_torchs() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/adamw/expected.safetensors");
    let golden = read_tensors(&path).unwrap();
    for (name, max_grad_norm) in [("plain", 0.0), ("clipped", 1.0)] {
        let leaves: Vec<_> = (0..3)
            .map(|i| golden[&format!("initial.{i}")].copy().set_requires_grad(true))
            .collect();
        let parameters =
            leaves.iter().enumerate().map(|(i, l)| (i.to_string(), l.shallow_clone())).collect();
        let config = AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() };
        let params = AdamParams { max_grad_norm, ..config.params(1e-2) };
        let mut optimizer = AdamW::new(parameters).unwrap();
        for step in 1..=10 {
            for (i, leaf) in leaves.iter().enumerate() {
                (leaf * &golden[&format!("grad.{step}.{i}")]).sum(tch::Kind::Float).backward();
            }
            let norm = optimizer.step(&params).unwrap().grad_norm;
            let expected = golden[&format!("{name}.norms")].double_value(&[step - 1]);
            assert!(
                (norm - expected).abs() <= 1e-5 * expected.max(1e-3),
                "{name} {step}: {norm} {expected}"
            );
            for (i, leaf) in leaves.iter().enumerate() {
                let error = largest_difference(leaf, &golden[&format!("{name}.param.{step}.{i}")]);
                assert!(error < 1e-6, "{name} step {step} tensor {i}: {error}");
            }
        }
    }
}

#[test]
fn a_saved_optimizer_goes_on_exactly_and_refuses_what_does_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("optimizer.safetensors");
    let run = |steps: std::ops::Range<i64>, start: &Tensor, load: Option<u64>| {
        let leaf = start.copy().set_requires_grad(true);
        let mut optimizer = AdamW::new(vec![("x".into(), leaf.shallow_clone())]).unwrap();
        if let Some(done) = load {
            optimizer.load(&file, done).unwrap();
        }
        for step in steps {
            (&leaf * (step as f64).sin()).sum(tch::Kind::Float).backward();
            optimizer.step(&AdamParams { learning_rate: 0.1, ..AdamParams::default() }).unwrap();
        }
        optimizer.save(&file).unwrap();
        leaf.detach()
    };
    let start = Tensor::from_slice(&[1f32, -2.0, 3.0]);
    let whole = run(0..8, &start, None);
    let half = run(0..4, &start, None);
    assert_eq!(run(4..8, &half, Some(4)), whole);

    let other = Tensor::from_slice(&[0f32; 5]).set_requires_grad(true);
    let mut optimizer = AdamW::new(vec![("x".into(), other)]).unwrap();
    assert!(optimizer.load(&file, 8).unwrap_err().to_string().contains("x.exp_avg"));
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}
