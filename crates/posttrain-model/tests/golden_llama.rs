//! Random Llamas against a float64 reference and transformers (`fixtures/llama_tiny`,
//! `fixtures/llama_untied`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_lora::RowAdapters;
use posttrain_model::{Checkpoint, Decoder, PackedAttention, Packing, Sequence};
use posttrain_tensor::read_tensors;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

const CASES: [&str; 2] = ["llama_tiny", "llama_untied"];

fn fixture(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(case)
}

fn open(case: &str) -> Decoder {
    Checkpoint::open(&fixture(case)).unwrap().decoder(Kind::Float, Device::Cpu).unwrap()
}

fn tokens(tensor: &Tensor) -> Vec<i64> {
    Vec::try_from(tensor).unwrap()
}

fn hidden(model: &Decoder, sequences: &[Sequence]) -> Tensor {
    let packing = Packing::new(sequences).unwrap();
    let mut attention = PackedAttention::new(&packing, model).unwrap();
    model
        .forward(&packing.input(Device::Cpu).unwrap(), &mut attention, &RowAdapters::none())
        .unwrap()
}

fn prompt(tokens: Vec<i64>) -> Sequence {
    Sequence { prompt: tokens, completions: vec![] }
}

fn relative_error(got: &Tensor, expected: &Tensor) -> f64 {
    (got - expected).abs().max().double_value(&[]) / expected.abs().max().double_value(&[])
}

#[test]
fn logits_and_hidden_states_are_within_1e_4_of_float64() {
    for case in CASES {
        let (model, expected) =
            (open(case), read_tensors(&fixture(case).join("expected.safetensors")).unwrap());
        for i in 0..3 {
            let hidden = hidden(&model, &[prompt(tokens(&expected[&format!("tokens.{i}")]))]);
            assert!(
                relative_error(&hidden, &expected[&format!("hidden.{i}")]) < 1e-4,
                "{case} {i}"
            );
            let error = relative_error(
                &model.logits(&hidden, &RowAdapters::none()).unwrap(),
                &expected[&format!("logits.{i}")],
            );
            assert!(error < 1e-4, "{case} {i}: {error}");
        }
    }
}

#[test]
fn greedy_continuations_are_transformers_token_for_token() {
    for case in CASES {
        let (model, expected) =
            (open(case), read_tensors(&fixture(case).join("expected.safetensors")).unwrap());
        for i in 0..3 {
            let mut text = tokens(&expected[&format!("tokens.{i}")]);
            let start = text.len();
            for _ in 0..16 {
                let last = hidden(&model, &[prompt(text.clone())]).get(-1);
                text.push(
                    model
                        .logits(&last.unsqueeze(0), &RowAdapters::none())
                        .unwrap()
                        .argmax(-1, false)
                        .int64_value(&[0]),
                );
            }
            assert_eq!(text[start..], tokens(&expected[&format!("greedy.{i}")]), "{case} {i}");
        }
    }
}

/// Packed together, the prompt shared, every completion comes out as if it had been computed alone.
#[test]
fn packing_and_sharing_a_prompt_change_nothing() {
    let model = open("llama_tiny");
    let sequences = [
        Sequence {
            prompt: vec![3, 1, 4, 1, 5],
            completions: vec![vec![9, 2], vec![], vec![6, 5, 3, 5], vec![8]],
        },
        Sequence { prompt: vec![2, 7], completions: vec![vec![1, 8, 2, 8]] },
        prompt(vec![31, 41, 59]),
    ];
    let together = hidden(&model, &sequences);
    let mut row = 0;
    for sequence in &sequences {
        let alone = hidden(&model, &[prompt(sequence.prompt.clone())]);
        let length = sequence.prompt.len() as i64;
        assert!(relative_error(&together.narrow(0, row, length), &alone) < 1e-5);
        row += length;
        for completion in sequence.completions.iter().filter(|c| !c.is_empty()) {
            let text = [sequence.prompt.clone(), completion.clone()].concat();
            let own = hidden(&model, &[prompt(text)]).narrow(0, length, completion.len() as i64);
            assert!(relative_error(&together.narrow(0, row, completion.len() as i64), &own) < 1e-5);
            row += completion.len() as i64;
        }
    }
}

#[test]
fn a_text_over_the_context_and_an_unknown_token_are_errors() {
    let model = open("llama_tiny");
    let context = model.config().max_position_embeddings as usize;
    let long = Packing::new(&[prompt(vec![1; context + 1])]).unwrap();
    assert!(PackedAttention::new(&long, &model).unwrap_err().to_string().contains("context"));
    let packing = Packing::new(&[prompt(vec![1, 100_000])]).unwrap();
    let mut attention = PackedAttention::new(&packing, &model).unwrap();
    assert!(
        model
            .forward(&packing.input(Device::Cpu).unwrap(), &mut attention, &RowAdapters::none())
            .is_err()
    );
}
