//! A quantized base: how far it is from the one in full, and that adapters train on it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod demo;
mod device;

use device::{cases, device};
use posttrain_lora::{AdapterGradients, RowAdapters, load_peft};
use posttrain_model::{
    Checkpoint, Decoder, Keep, PackedAttention, Packing, Quantize, Sequence, Tape,
};
use posttrain_tensor::read_tensors;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families").join(case)
}

fn open(case: &str, quantize: Quantize, kind: Kind) -> Decoder {
    Checkpoint::open(&folder(case)).unwrap().decoder_quantized(quantize, kind, device()).unwrap()
}

fn packing(case: &str) -> Packing {
    let golden = read_tensors(&folder(case).join("expected.safetensors")).unwrap();
    let prompt = Vec::try_from(&golden["tokens.2"]).unwrap();
    Packing::new(&[Sequence { prompt, completions: vec![] }]).unwrap()
}

fn logprobs(model: &Decoder, packing: &Packing) -> Tensor {
    let mut attention = PackedAttention::new(packing, model).unwrap();
    let input = packing.input(device()).unwrap();
    let hidden = model.forward(&input, &mut attention, &RowAdapters::none()).unwrap();
    model.logits(&hidden, &RowAdapters::none()).unwrap().log_softmax(-1, Kind::Float)
}

/// Nats, over all tokens of the vocabulary at every place, weighted by how probable they are: the
/// divergence from f32.
fn divergence(full: &Tensor, other: &Tensor) -> f64 {
    (full.exp() * (full - other))
        .sum_dim_intlist([-1].as_slice(), false, Kind::Float)
        .mean(Kind::Float)
        .double_value(&[])
}

#[test]
fn eight_bits_are_nearly_as_close_as_bf16_and_four_bits_follow() {
    for case in cases(&["qwen3", "qwen2", "qwen3_moe"]) {
        let packing = packing(case);
        let full = logprobs(&open(case, Quantize::None, Kind::Float), &packing);
        let of =
            |quantize, kind| divergence(&full, &logprobs(&open(case, quantize, kind), &packing));
        let bf16 = of(Quantize::None, Kind::BFloat16);
        let (int8, nf4) = (of(Quantize::Int8, Kind::Float), of(Quantize::Nf4, Kind::Float));
        println!(
            "{case}: divergence from f32, nats a token: bf16 {bf16:.5}, int8 {int8:.5}, nf4 {nf4:.5}"
        );
        assert!(int8 < 4.0 * bf16 && nf4 > int8 && nf4 < 1.0, "{case}: {bf16} {int8} {nf4}");
    }
}

/// The gradient on a quantized base is that on a base of the dequantized weights: the adapter's
/// own, no weight's.
#[test]
fn the_tape_walks_back_over_a_quantized_base() {
    for quantize in [Quantize::Int8, Quantize::Nf4] {
        for case in ["qwen3", "qwen3_moe"] {
            let (model, packing) = (open(case, quantize, Kind::Float), packing(case));
            let adapter =
                || load_peft(&folder(case).join("adapter"), model.modules(), device()).unwrap();
            let (by_hand, by_autograd) = (adapter(), adapter());
            let snapshot = by_hand.snapshot(Kind::Float).unwrap();
            let adapters = RowAdapters::all(Some(&snapshot));
            let (hidden, tape) = Tape::forward(&model, adapters, &packing, Keep::Inputs).unwrap();
            let mut sums = [AdapterGradients::default()];
            tape.backward(&hidden, &mut sums).unwrap();
            by_hand.add_gradients(&sums[0]).unwrap();

            let view = by_autograd.view(Kind::Float).unwrap();
            let mut attention = PackedAttention::new(&packing, &model).unwrap();
            let input = packing.input(device()).unwrap();
            let again =
                model.forward(&input, &mut attention, &RowAdapters::all(Some(&view))).unwrap();
            (again * hidden).sum(Kind::Float).backward();
            for ((name, got), (_, expected)) in
                by_hand.parameters().iter().zip(by_autograd.parameters())
            {
                if !expected.grad().defined() {
                    continue; // an expert without a token
                }
                let expected = expected.grad();
                let off = (got.grad() - &expected).norm().double_value(&[])
                    / (expected.norm().double_value(&[]) + 1e-6);
                assert!(off < 1e-4, "{quantize:?} {case} {name}: {off}");
            }
        }
    }
}

#[test]
fn a_quantized_base_says_how_large_it_is_and_cannot_be_merged_into() {
    let checkpoint = Checkpoint::open(&folder("qwen3")).unwrap();
    let bytes = |quantize| checkpoint.size(quantize, Kind::Float).unwrap().memory_bytes;
    assert!(
        bytes(Quantize::Nf4) < bytes(Quantize::Int8)
            && bytes(Quantize::Int8) < bytes(Quantize::None)
    );
    assert!(
        checkpoint.size(Quantize::None, Kind::Float).unwrap().file_bytes
            > bytes(Quantize::None) as u64
    );
    let mut model = open("qwen3", Quantize::Nf4, Kind::Float);
    let adapter = load_peft(&folder("qwen3").join("adapter"), model.modules(), device()).unwrap();
    assert!(model.merge(&adapter).unwrap_err().to_string().contains("not quantized"));
}

/// On real weights: the price of fewer bits, in nats a token on sentences, from the base in f32.
/// The file that these weights come from had four bits already, in other blocks.
#[test]
fn the_demonstration_model_loses_little_in_eight_bits_and_more_in_four() {
    let Some(checkpoint) = demo::checkpoint() else { return };
    let tokenizer = checkpoint.tokenizer().unwrap();
    let text = "The capital of France is Paris. Water boils at one hundred degrees at sea level, and at less on a mountain. \
        Plants take carbon dioxide from the air and give oxygen back. A triangle has three sides and three angles.";
    let prompt = tokenizer.encode_text(text).unwrap();
    let packing = Packing::new(&[Sequence { prompt, completions: vec![] }]).unwrap();
    let open = |quantize, kind| checkpoint.decoder_quantized(quantize, kind, device()).unwrap();
    let full = logprobs(&open(Quantize::None, Kind::Float), &packing);
    let of = |quantize, kind| divergence(&full, &logprobs(&open(quantize, kind), &packing));
    let bf16 = of(Quantize::None, Kind::BFloat16);
    let (int8, nf4) = (of(Quantize::Int8, Kind::Float), of(Quantize::Nf4, Kind::Float));
    println!("nats a token from f32: bf16 {bf16:.5}, int8 {int8:.5}, nf4 {nf4:.5}");
    assert!(int8 < 4.0 * bf16 && int8 < nf4 && nf4 < 0.6, "{bf16} {int8} {nf4}");
}
