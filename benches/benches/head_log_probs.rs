//! Log-probabilities of 4,096 tokens through a head of 49,152 words and their gradient by the
//! hidden states, beside eager torch (`peers/torch_kernels.py`).

use benches::measure_peak;
use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use posttrain::loss::{Head, HeadOptions, LossBatch, PolicyObjective, Step, TokenAdvantages};
use tch::{Device, Kind, Tensor};

const TOKENS: i64 = 4096;

fn head_log_probs(criterion: &mut Criterion) {
    let options = (Kind::Float, Device::Cpu);
    let hidden = Tensor::randn([TOKENS, 576], options).to_kind(Kind::BFloat16);
    let weight = (Tensor::randn([49152, 576], options) * 0.02).to_kind(Kind::BFloat16);
    let targets = Tensor::randint(49152, [TOKENS], (Kind::Int64, Device::Cpu));
    let head = Head::new(&weight, HeadOptions::default()).expect("a head");
    let (sampling_logprobs, lengths) = (vec![-10.8f32; TOKENS as usize], [TOKENS as usize]);
    let batch = LossBatch {
        sampling_logprobs: Some(&sampling_logprobs),
        advantages: Some(TokenAdvantages::PerSequence(&[1.0])),
        ..LossBatch::of(&lengths)
    };
    let (objective, totals) = (PolicyObjective::default(), batch.totals().expect("totals"));
    let run = || {
        let step = Step { objective: &objective, batch: &batch, totals: &totals };
        head.step(&hidden, &targets, step).expect("scored")
    };
    measure_peak("head_log_probs[4096]", || drop(run())).expect("memory");
    let mut group = criterion.benchmark_group("head");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function("head_log_probs[4096]", |bencher| bencher.iter(run));
}

criterion_group!(benches, head_log_probs);
criterion_main!(benches);
