//! One token for each of 128 rows of 49,152 bf16 logits, beside eager torch's softmax and
//! multinomial (`peers/torch_kernels.py`).

use benches::measure_peak;
use criterion::{Criterion, criterion_group, criterion_main};
use posttrain::loss::{RowSampling, sample};
use tch::{Device, Kind, Tensor};

fn sampler(criterion: &mut Criterion) {
    let logits = Tensor::randn([128, 49152], (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16);
    let columns = logits.tr().contiguous().tr();
    let plain = RowSampling { uniform: 0.37, ..RowSampling::default() };
    let nucleus = RowSampling { top_p: Some(0.9), ..plain };
    measure_peak("sampler[128]", || drop(sample(&logits, &[plain; 128]).expect("drawn")))
        .expect("memory");
    let mut group = criterion.benchmark_group("sampler");
    for (name, logits, how) in [
        ("sampler[128]", &logits, plain),
        ("sampler[128] columns", &columns, plain),
        ("sampler[128] top_p", &logits, nucleus),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| sample(logits, &[how; 128]).expect("drawn"))
        });
    }
}

criterion_group!(benches, sampler);
criterion_main!(benches);
