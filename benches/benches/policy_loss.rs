//! The clipped policy loss of 1,024 sequences of 2,048 tokens with its gradient, beside eager torch
//! (`peers/torch_kernels.py`).

use benches::{floats, measure_peak};
use criterion::{Criterion, criterion_group, criterion_main};
use posttrain::loss::{LossBatch, Objective, PolicyLoss, PolicyObjective, TokenAdvantages};

fn policy_loss(criterion: &mut Criterion) {
    let (sequences, length) = (1024, 2048);
    let old: Vec<f32> = floats(sequences * length).iter().map(|x| -x).collect();
    let weights: Vec<f32> =
        floats(sequences * length).iter().map(|x| if *x < 0.9 { 1.0 } else { 0.0 }).collect();
    let advantages: Vec<f32> = floats(sequences).iter().map(|x| 2.0 * x - 1.0).collect();
    let lengths = vec![length; sequences];
    let batch = LossBatch {
        weights: Some(&weights),
        sampling_logprobs: Some(&old),
        advantages: Some(TokenAdvantages::PerSequence(&advantages)),
        ..LossBatch::of(&lengths)
    };
    let loss = PolicyLoss::PpoClip { clip_low: 0.2, clip_high: 0.2 };
    let objective = PolicyObjective { loss, ..PolicyObjective::default() };
    let run = || {
        let totals = batch.totals().expect("totals");
        objective.evaluate(&batch, &old, None, &totals).expect("a loss")
    };
    measure_peak("policy_loss[1024x2048]", || drop(run())).expect("memory");
    criterion.bench_function("policy_loss[1024x2048]", |bencher| bencher.iter(run));
}

criterion_group!(benches, policy_loss);
criterion_main!(benches);
