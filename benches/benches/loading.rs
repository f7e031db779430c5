//! A model of 4 GB from a safetensors file to tensors, beside a plain read of the same file into
//! memory.

use benches::{HollowModel, measure_peak};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use posttrain::model::Checkpoint;
use tch::{Device, Kind};

fn loading(criterion: &mut Criterion) {
    let model = HollowModel::write(4_000_000_000).expect("a model to load");
    let mut group = criterion.benchmark_group("loading");
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .throughput(Throughput::Bytes(model.bytes));
    let load = || {
        let checkpoint = Checkpoint::open(model.folder()).expect("a configuration");
        checkpoint.decoder(Kind::BFloat16, Device::Cpu).expect("a model")
    };
    let read = || std::fs::read(model.file()).expect("a file");
    measure_peak("load_safetensors[4gb]", || drop(load())).expect("memory");
    measure_peak("read_file[4gb]", || drop(read())).expect("memory");
    group.bench_function("read_file[4gb]", |bencher| bencher.iter_with_large_drop(read));
    group.bench_function("load_safetensors[4gb]", |bencher| bencher.iter_with_large_drop(load));
}

criterion_group!(benches, loading);
criterion_main!(benches);
