//! A small random model of each family, and an adapter on it, against a float64 reference that
//! transformers and PEFT agree with (`fixtures/families`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod device;

use device::{cases, device};
use posttrain_lora::{Adapter, AdapterGradients, AdapterView, RowAdapters, load_peft, save_peft};
use posttrain_model::{Checkpoint, Decoder, Keep, PackedAttention, Packing, Sequence, Tape};
use posttrain_tensor::read_tensors;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

const CASES: [&str; 6] = ["qwen3", "qwen3_yarn", "qwen2", "llama3", "qwen3_moe", "qwen3_moe_mixed"];

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families").join(case)
}

fn open(case: &str) -> (Decoder, BTreeMap<String, Tensor>) {
    let model = Checkpoint::open(&folder(case)).unwrap().decoder(Kind::Float, device()).unwrap();
    (model, read_tensors(&folder(case).join("expected.safetensors")).unwrap())
}

fn adapter(case: &str, model: &Decoder) -> Adapter {
    load_peft(&folder(case).join("adapter"), model.modules(), device()).unwrap()
}

fn tokens(tensor: &Tensor) -> Vec<i64> {
    Vec::try_from(tensor).unwrap()
}

fn packing(tokens: &[i64]) -> Packing {
    Packing::new(&[Sequence { prompt: tokens.to_vec(), completions: vec![] }]).unwrap()
}

fn hidden(model: &Decoder, view: Option<&AdapterView>, tokens: &[i64]) -> Tensor {
    let packing = packing(tokens);
    let mut attention = PackedAttention::new(&packing, model).unwrap();
    model
        .forward(&packing.input(device()).unwrap(), &mut attention, &RowAdapters::all(view))
        .unwrap()
}

fn logits(model: &Decoder, view: Option<&AdapterView>, hidden: &Tensor) -> Tensor {
    model.logits(hidden, &RowAdapters::all(view)).unwrap()
}

fn relative_error(got: &Tensor, expected: &Tensor) -> f64 {
    let got = got.to_device(Device::Cpu);
    let expected = expected.to_device(Device::Cpu);
    (got - &expected).abs().max().double_value(&[])
        / (expected.abs().max().double_value(&[]) + 1e-9)
}

/// `Σ log p(token | those before it)` by the hidden states, whose gradient a trainer gets from its
/// head.
fn summed_logprobs(model: &Decoder, hidden: &Tensor, tokens: &[i64]) -> Tensor {
    let next = Tensor::from_slice(&tokens[1..]).unsqueeze(1).to_device(hidden.device());
    let scores = hidden.matmul(&model.head().tr()).log_softmax(-1, Kind::Float);
    scores.narrow(0, 0, tokens.len() as i64 - 1).gather(1, &next, false).sum(Kind::Float)
}

#[test]
fn hidden_states_and_logits_are_within_1e_4_of_float64() {
    for case in cases(&CASES) {
        let (model, expected) = open(case);
        let mut worst = 0.0f64;
        for i in 0..3 {
            let hidden = hidden(&model, None, &tokens(&expected[&format!("tokens.{i}")]));
            worst = worst.max(relative_error(&hidden, &expected[&format!("hidden.{i}")]));
            worst = worst.max(relative_error(
                &logits(&model, None, &hidden),
                &expected[&format!("logits.{i}")],
            ));
        }
        println!("{case}: off by {worst:.1e}");
        assert!(worst < 1e-4, "{case}: {worst}");
    }
}

#[test]
fn greedy_continuations_are_transformers_token_for_token() {
    for case in cases(&CASES) {
        let (model, expected) = open(case);
        for i in 0..3 {
            let mut text = tokens(&expected[&format!("tokens.{i}")]);
            let start = text.len();
            for _ in 0..12 {
                let last = hidden(&model, None, &text).get(-1).unsqueeze(0);
                text.push(logits(&model, None, &last).argmax(-1, false).int64_value(&[0]));
            }
            assert_eq!(text[start..], tokens(&expected[&format!("greedy.{i}")]), "{case} {i}");
        }
    }
}

#[test]
fn adapted_logits_are_pefts_beside_the_base_and_merged() {
    for case in cases(&CASES) {
        let (mut model, expected) = open(case);
        let adapter = adapter(case, &model);
        let view = adapter.snapshot(Kind::Float).unwrap();
        for i in 0..3 {
            let (tokens, expected) =
                (tokens(&expected[&format!("tokens.{i}")]), &expected[&format!("adapted.{i}")]);
            let beside = logits(&model, Some(&view), &hidden(&model, Some(&view), &tokens));
            assert!(relative_error(&beside, expected) < 1e-4, "{case} {i}");
            model.merge(&adapter).unwrap();
            let merged = logits(&model, None, &hidden(&model, None, &tokens));
            assert!(relative_error(&merged, expected) < 1e-4, "{case} {i} merged");
            model.unmerge();
        }
    }
}

#[test]
fn the_tapes_gradients_and_autograds_are_pefts() {
    for case in cases(&CASES) {
        let (model, expected) = open(case);
        let texts: Vec<_> = (1..3).map(|i| tokens(&expected[&format!("tokens.{i}")])).collect();
        for keep in [None, Some(Keep::Everything), Some(Keep::Inputs)] {
            let adapter = adapter(case, &model);
            for text in &texts {
                match keep {
                    None => {
                        let view = adapter.view(Kind::Float).unwrap();
                        summed_logprobs(&model, &hidden(&model, Some(&view), text), text)
                            .backward();
                    }
                    Some(keep) => add_by_tape(&model, &adapter, text, keep),
                }
            }
            check_gradients(case, &adapter, &expected);
        }
    }
}

fn add_by_tape(model: &Decoder, adapter: &Adapter, text: &[i64], keep: Keep) {
    let view = adapter.snapshot(Kind::Float).unwrap();
    let (hidden, tape) =
        Tape::forward(model, RowAdapters::all(Some(&view)), &packing(text), keep).unwrap();
    let leaf = hidden.detach().set_requires_grad(true);
    summed_logprobs(model, &leaf, text).backward();
    let mut gradients = [AdapterGradients::default()];
    tape.backward(&leaf.grad(), &mut gradients).unwrap();
    adapter.add_gradients(&gradients[0]).unwrap();
}

fn check_gradients(case: &str, adapter: &Adapter, expected: &BTreeMap<String, Tensor>) {
    let (mut worst, mut idle) = (0.0f64, 0);
    let parameters = adapter.parameters();
    assert_eq!(parameters.len(), expected.keys().filter(|k| k.starts_with("grad.")).count());
    for (name, leaf) in parameters {
        let (got, expected) = (leaf.grad(), &expected[&format!("grad.{name}")]);
        if expected.abs().max().double_value(&[]) == 0.0 {
            idle += 1;
            assert!(!got.defined() || got.abs().max().double_value(&[]) == 0.0, "{case} {name}");
            continue;
        }
        let off = relative_error(&got, expected);
        assert!(off < 1e-4, "{case} {name}: off by {off}");
        worst = worst.max(off);
    }
    println!("{case}: gradients off by {worst:.1e}; {idle} tensors of experts without a token");
    adapter.check_gradients().unwrap();
    // An expert that no token goes to: the generator made one.
    assert_eq!(idle > 0, case.contains("moe"), "{case}");
}

/// Rows of several adapters, and of none, in one batch: each as if it were alone, whichever experts
/// it goes to.
#[test]
fn a_batch_of_several_adapters_is_each_alone() {
    for case in ["qwen3", "qwen3_moe"] {
        let (model, expected) = open(case);
        let view = adapter(case, &model).snapshot(Kind::Float).unwrap();
        let texts = [tokens(&expected["tokens.1"]), tokens(&expected["tokens.2"])];
        let sequences = texts.clone().map(|prompt| Sequence { prompt, completions: vec![] });
        let packing = Packing::new(&sequences).unwrap();
        let mut attention = PackedAttention::new(&packing, &model).unwrap();
        let run =
            |text: &Vec<i64>, adapter| posttrain_lora::Segment { rows: text.len() as i64, adapter };
        let adapters =
            RowAdapters::segments(vec![run(&texts[0], None), run(&texts[1], Some(&view))]);
        let together =
            model.forward(&packing.input(device()).unwrap(), &mut attention, &adapters).unwrap();
        let alone = [hidden(&model, None, &texts[0]), hidden(&model, Some(&view), &texts[1])];
        assert!(relative_error(&together, &Tensor::cat(&alone, 0)) < 1e-5, "{case}");
    }
}

#[test]
fn adapters_of_experts_are_written_in_pefts_keys() {
    let (model, _) = open("qwen3_moe");
    let dir = tempfile::tempdir().unwrap();
    let adapter = adapter("qwen3_moe", &model);
    save_peft(&adapter, dir.path(), "base").unwrap();
    let keys = |dir: &Path| {
        read_tensors(&dir.join("adapter_model.safetensors"))
            .unwrap()
            .into_keys()
            .collect::<Vec<_>>()
    };
    let written = keys(dir.path());
    assert_eq!(written, keys(&folder("qwen3_moe").join("adapter")));
    let key = "base_model.model.model.layers.1.mlp.experts.11.gate_proj.lora_B.weight";
    assert!(written.iter().any(|k| k == key));
}
