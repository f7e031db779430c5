//! A whole step of reinforcement learning: 4 to 64 prompts × 8 completions of at most 64 tokens
//! sampled, scored, trained on. `rl_step` is the work of TRL's step (`peers/trl_grpo.py`): 16
//! prompts, and every completion is computed. `rl_step[n]` leaves out what has no advantage, as the
//! trainer does by default.

use benches::{BenchModel, TrainedPolicy, measure_peak};
use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use posttrain::train::DeadGroups;

fn rl_step(criterion: &mut Criterion) {
    let model = BenchModel::open().expect("the demonstration model");
    let mut group = criterion.benchmark_group("rl_step");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    let cases = [
        (16, DeadGroups::Compute),
        (4, DeadGroups::Skip),
        (16, DeadGroups::Skip),
        (64, DeadGroups::Skip),
    ];
    for (prompts, dead_groups) in cases {
        let name = match dead_groups {
            DeadGroups::Compute => "rl_step".to_owned(),
            DeadGroups::Skip => format!("rl_step[{}]", prompts * 8),
        };
        let mut policy = TrainedPolicy::recording(&model, dead_groups).expect("a policy");
        let mut step = || {
            let rollout = policy.sample(prompts, 8, 0..=64).expect("sampled");
            policy.train(&rollout).expect("trained");
        };
        measure_peak(&name, &mut step).expect("memory");
        group.bench_function(name, |bencher| bencher.iter(&mut step));
    }
}

criterion_group!(benches, rl_step);
criterion_main!(benches);
