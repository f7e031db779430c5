//! Forward, backward and optimizer step on 128 sampled completions of at most 64 tokens, rank 128
//! on every linear layer.

use benches::{BenchModel, TrainedPolicy, measure_peak};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use posttrain::train::DeadGroups;

fn train_step(criterion: &mut Criterion) {
    let model = BenchModel::open().expect("the demonstration model");
    let mut policy = TrainedPolicy::new(&model, DeadGroups::Compute).expect("a policy");
    let rollout = policy.sample(16, 8, 0..=64).expect("sampled");
    measure_peak("train_step", || policy.train(&rollout).expect("trained")).expect("memory");
    let mut thrifty = TrainedPolicy::checkpointing(&model, DeadGroups::Compute).expect("a policy");
    let mut group = criterion.benchmark_group("train_step");
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .throughput(Throughput::Elements(rollout.tokens as u64));
    group.bench_function("train_step", |bencher| {
        bencher.iter(|| policy.train(&rollout).expect("trained"))
    });
    group.bench_function("train_step checkpointing", |bencher| {
        bencher.iter(|| thrifty.train(&rollout).expect("trained"));
    });
}

criterion_group!(benches, train_step);
criterion_main!(benches);
