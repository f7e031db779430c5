//! Sampling exactly 64 tokens for each of 16 to 256 sequences, beside `transformers` generate
//! (`peers/hf_generate.py`).

use benches::{BenchModel, measure_peak};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

fn decode(criterion: &mut Criterion) {
    let model = BenchModel::open().expect("the demonstration model");
    let mut group = criterion.benchmark_group("decode");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for rows in [16, 64, 128, 256] {
        let run = || model.decode(rows, 64).expect("sampled");
        measure_peak(&format!("decode[{rows}]"), || assert_eq!(run().tokens, rows * 64))
            .expect("memory");
        group.throughput(Throughput::Elements(rows as u64 * 64));
        group.bench_function(format!("decode[{rows}]"), |bencher| bencher.iter(run));
    }
}

criterion_group!(benches, decode);
criterion_main!(benches);
