//! Exactly 64 tokens for each of 96 sequences, by three adapters of rank 128 in one batch and by
//! one of them alone: what it costs to serve several policies at once.

use benches::{BenchModel, RANK, measure_peak};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

const ROWS: usize = 96;

fn decode_mixed(criterion: &mut Criterion) {
    let model = BenchModel::open().expect("the demonstration model");
    let mut group = criterion.benchmark_group("decode_mixed");
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .throughput(Throughput::Elements(ROWS as u64 * 64));
    for (name, count) in [("decode_adapted[96]", 1), ("decode_mixed[96]", 3)] {
        let adapters = model.adapters(count, RANK).expect("adapters");
        let run = || model.decode_by(&adapters, ROWS, 64).expect("sampled");
        measure_peak(name, || assert_eq!(run().tokens, ROWS * 64)).expect("memory");
        group.bench_function(name, |bencher| bencher.iter(run));
    }
}

criterion_group!(benches, decode_mixed);
criterion_main!(benches);
