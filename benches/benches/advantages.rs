//! Group-normalized advantages of 65,536 groups of 16 rewards, beside eager torch
//! (`peers/torch_kernels.py`).

use benches::{floats, measure_peak};
use criterion::{Criterion, criterion_group, criterion_main};
use posttrain::loss::AdvantageConfig;

fn advantages(criterion: &mut Criterion) {
    let rewards = floats(65536 * 16);
    let config = AdvantageConfig::default();
    let run = || config.dense(&rewards, 16).expect("advantages");
    measure_peak("advantages[65536x16]", || drop(run())).expect("memory");
    criterion.bench_function("advantages[65536x16]", |bencher| bencher.iter(run));
}

criterion_group!(benches, advantages);
criterion_main!(benches);
