//! One layer's attention over 1,200 packed tokens, four groups of a prompt and eight completions,
//! in SmolLM2-135M's shape: the native kernel beside libtorch and its autograd.

use criterion::{Criterion, criterion_group, criterion_main};
use posttrain::kernel::{Heads, PackedStep, PackedText, attend_packed, attend_packed_backward};
use posttrain::model::{
    Attend, Decoder, ModelConfig, PackedAttention, Packing, Projected, Rotation, Sequence,
};
use tch::{Device, Kind, Tensor};

const HEADS: Heads = Heads { query: 9, key_value: 3, width: 64 };

/// Prompts of 40 tokens, completions of 5 to 60: 300 tokens a group.
fn texts() -> Vec<PackedText> {
    vec![PackedText { prompt: 40, completions: vec![5, 12, 20, 30, 38, 45, 50, 60] }; 4]
}

fn packing() -> Packing {
    let sequence = |text: PackedText| Sequence {
        prompt: vec![1; text.prompt],
        completions: text.completions.into_iter().map(|tokens| vec![1; tokens]).collect(),
    };
    Packing::new(&texts().into_iter().map(sequence).collect::<Vec<_>>()).expect("texts")
}

/// Attention by libtorch, which is what a tensor with a gradient gets.
fn by_libtorch(
    qkv: &Tensor,
    attention: &mut PackedAttention,
    rotation: &Rotation,
) -> (Tensor, Tensor) {
    let leaf = qkv.detach().set_requires_grad(true);
    let projected = Projected { qkv: leaf.shallow_clone(), heads: HEADS, rotation };
    (attention.attend(0, &projected).expect("attended"), leaf)
}

fn packed_attention(criterion: &mut Criterion) {
    tch::set_num_threads(1);
    let packing = packing();
    let positions = Tensor::from_slice(packing.positions());
    let model = Decoder::random(
        &ModelConfig { head_dim: 64, ..ModelConfig::tiny() },
        1,
        Kind::BFloat16,
        Device::Cpu,
    );
    let model = model.expect("a model whose heads are 64 wide");
    let rotation = model.rotation(&positions).expect("a rotation");
    let [cos, sin] = rotation.tables().expect("tables");
    let features = (HEADS.query + 2 * HEADS.key_value) * HEADS.width;
    let random = |width: usize| {
        Tensor::randn([1200, width as i64], (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16)
    };
    let (qkv, gradient) = (random(features), random(HEADS.query * HEADS.width));
    let texts = texts();
    let step = PackedStep { heads: HEADS, qkv: &qkv, cos: &cos, sin: &sin, texts: &texts };
    let mut attention = PackedAttention::new(&packing, &model).expect("attention");
    let mut group = criterion.benchmark_group("packed_attention");
    group.bench_function("forward", |bencher| {
        bencher.iter(|| attend_packed(&step).expect("attended"))
    });
    group.bench_function("forward and backward", |bencher| {
        bencher.iter(|| {
            attend_packed_backward(&step, &attend_packed(&step).expect("attended"), &gradient)
                .expect("back")
        });
    });
    group.bench_function("libtorch forward", |bencher| {
        bencher.iter(|| by_libtorch(&qkv, &mut attention, &rotation));
    });
    group.bench_function("libtorch forward and backward", |bencher| {
        bencher.iter(|| {
            let (out, leaf) = by_libtorch(&qkv, &mut attention, &rotation);
            (out * &gradient).sum(Kind::BFloat16).backward();
            leaf.grad()
        });
    });
}

criterion_group!(benches, packed_attention);
criterion_main!(benches);
