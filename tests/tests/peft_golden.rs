//! Adapters written by PEFT against PEFT's own results, and ours loaded by PEFT.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain::lora::{Adapter, RowAdapters, load_peft, save_peft};
use posttrain::model::{Checkpoint, Decoder, PackedAttention, Packing, Sequence};
use posttrain::tensor::{read_tensors, write_tensors};
use std::path::{Path, PathBuf};
use std::process::Command;
use tch::{Device, Kind, Tensor};
use tests::{skipped, workspace};

const CASES: [&str; 3] = ["all_linear", "rslora_qv", "patterns"];

fn base_folder() -> PathBuf {
    workspace().join("crates/posttrain-model/tests/fixtures/llama_tiny")
}

fn adapter_folder(case: &str) -> PathBuf {
    workspace().join("crates/posttrain-lora/tests/fixtures/peft_tiny").join(case)
}

fn base() -> Decoder {
    open(&base_folder())
}

fn open(folder: &Path) -> Decoder {
    Checkpoint::open(folder).unwrap().decoder(Kind::Float, Device::Cpu).unwrap()
}

fn prompts(base: &Path) -> Vec<Vec<i64>> {
    let golden = read_tensors(&base.join("expected.safetensors")).unwrap();
    (0..3).map(|i| Vec::try_from(&golden[&format!("tokens.{i}")]).unwrap()).collect()
}

fn logits(model: &Decoder, adapter: Option<&Adapter>, tokens: &[i64]) -> Tensor {
    let packing =
        Packing::new(&[Sequence { prompt: tokens.to_vec(), completions: vec![] }]).unwrap();
    let mut attention = PackedAttention::new(&packing, model).unwrap();
    let view = adapter.map(|a| a.view(Kind::Float).unwrap());
    let input = packing.input(Device::Cpu).unwrap();
    let hidden = model.forward(&input, &mut attention, &RowAdapters::all(view.as_ref())).unwrap();
    model.logits(&hidden, &RowAdapters::all(view.as_ref())).unwrap()
}

fn relative_error(got: &Tensor, expected: &Tensor) -> f64 {
    (got - expected).abs().max().double_value(&[]) / expected.abs().max().double_value(&[])
}

#[test]
fn adapted_and_merged_logits_are_pefts() {
    let mut model = base();
    for case in CASES {
        let golden = read_tensors(&adapter_folder(case).join("expected.safetensors")).unwrap();
        let adapter = load_peft(&adapter_folder(case), model.modules(), Device::Cpu).unwrap();
        for (i, tokens) in prompts(&base_folder()).iter().enumerate() {
            let expected = &golden[&format!("logits.{i}")];
            assert!(
                relative_error(&logits(&model, Some(&adapter), tokens), expected) < 1e-4,
                "{case} {i}"
            );
            model.merge(&adapter).unwrap();
            assert!(
                relative_error(&logits(&model, None, tokens), expected) < 1e-4,
                "{case} {i} merged"
            );
            model.unmerge();
        }
    }
}

#[test]
fn gradients_of_the_summed_logprobs_are_pefts() {
    let model = base();
    for case in CASES {
        let golden = read_tensors(&adapter_folder(case).join("expected.safetensors")).unwrap();
        let adapter = load_peft(&adapter_folder(case), model.modules(), Device::Cpu).unwrap();
        for tokens in prompts(&base_folder()).iter().filter(|t| t.len() > 1) {
            let next = Tensor::from_slice(&tokens[1..]).unsqueeze(1);
            let scores = logits(&model, Some(&adapter), tokens).log_softmax(-1, Kind::Float);
            scores
                .narrow(0, 0, tokens.len() as i64 - 1)
                .gather(1, &next, false)
                .sum(Kind::Float)
                .backward();
        }
        let parameters = adapter.parameters();
        assert_eq!(parameters.len(), golden.keys().filter(|k| k.starts_with("grad.")).count());
        for (name, tensor) in parameters {
            let expected = &golden[&format!("grad.base_model.model.{name}")];
            assert!(relative_error(&tensor.grad(), expected) < 1e-4, "{case} {name}");
        }
    }
}

#[test]
fn what_we_write_peft_loads_to_the_same_logits() {
    let Ok(python) = std::env::var("POSTTRAIN_PEERS_PYTHON") else {
        return skipped(
            "set POSTTRAIN_PEERS_PYTHON to a Python that has peft 0.21 to load our adapters there",
        );
    };
    for case in CASES {
        check_in_peft(&python, &base_folder(), &adapter_folder(case));
    }
    // PEFT renames the experts' layers as it loads them; what it makes of ours is in the fixtures
    // of the families.
    for family in ["qwen3", "qwen3_yarn", "qwen2", "llama3"] {
        let folder =
            workspace().join("crates/posttrain-model/tests/fixtures/families").join(family);
        check_in_peft(&python, &folder, &folder.join("adapter"));
    }
}

fn check_in_peft(python: &str, base: &Path, adapter: &Path) {
    let (model, dir) = (open(base), tempfile::tempdir().unwrap());
    let prompts = prompts(base);
    let inputs: Vec<_> = prompts
        .iter()
        .enumerate()
        .map(|(i, t)| (format!("tokens.{i}"), Tensor::from_slice(t)))
        .collect();
    write_tensors(&dir.path().join("in.safetensors"), &inputs).unwrap();
    let ours = load_peft(adapter, model.modules(), Device::Cpu).unwrap();
    let (written, out) = (dir.path().join("adapter"), dir.path().join("out.safetensors"));
    save_peft(&ours, &written, &base.display().to_string()).unwrap();
    run_in_peft(python, [&written, base, &dir.path().join("in.safetensors"), &out]);
    let theirs = read_tensors(&out).unwrap();
    for (i, tokens) in prompts.iter().enumerate() {
        let ours = logits(&model, Some(&ours), tokens).detach();
        let error = |key: &str| relative_error(&ours, &theirs[&format!("{key}.{i}")]);
        assert!(
            error("logits") < 1e-4 && error("merged_logits") < 1e-4,
            "{} {i}",
            adapter.display()
        );
    }
}

fn run_in_peft(python: &str, arguments: [&Path; 4]) {
    let script = workspace().join("crates/posttrain-lora/tests/fixtures/load_in_peft.py");
    let status = Command::new(python).arg(script).args(arguments).status().unwrap();
    assert!(status.success(), "{}", arguments[0].display());
}
