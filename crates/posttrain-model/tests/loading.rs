//! Loading takes no more memory than the model.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_lora::write_tensors;
use posttrain_model::{Checkpoint, ModelConfig, Quantise};
use std::path::Path;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// A field of the process's account of its memory, in bytes.
fn account(field: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix(field))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

/// A Llama of 180 MB in bf16: large beside the pieces that a file is copied in, and a layer that is put together.
fn write(dir: &Path) -> ModelConfig {
    let config = serde_json::json!({
        "model_type": "llama", "vocab_size": 128_000, "hidden_size": 512, "intermediate_size": 2048,
        "num_hidden_layers": 6, "num_attention_heads": 8, "tie_word_embeddings": true,
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let config = ModelConfig::from_json_file(&dir.join("config.json")).unwrap();
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::BFloat16, Device::Cpu));
    let mut tensors = vec![("model.embed_tokens.weight".to_string(), zeros(&[128_000, 512]))];
    for module in config.modules() {
        tensors.push((format!("{}.weight", module.path), zeros(&[module.out_features, module.in_features])));
    }
    for layer in 0..6 {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            tensors.push((format!("model.layers.{layer}.{norm}.weight"), zeros(&[512])));
        }
    }
    tensors.push(("model.norm.weight".into(), zeros(&[512])));
    write_tensors(&dir.join("model.safetensors"), &tensors).unwrap();
    config
}

#[test]
fn the_peak_of_loading_is_the_model_and_a_tenth() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let size = checkpoint.size(Quantise::None, Kind::BFloat16).unwrap();
    if std::fs::write("/proc/self/clear_refs", "5").is_err() {
        return println!("skipped: the system keeps no account of the peak that can be reset");
    }
    let (before, started) = (account("VmRSS:").unwrap(), Instant::now());
    let model = checkpoint.decoder(Kind::BFloat16, Device::Cpu).unwrap();
    let (took, peak) = (started.elapsed(), account("VmHWM:").unwrap() - before);
    let share = peak / size.memory_bytes as f64;
    println!("{size}: loaded in {took:?}, at most {share:.3} of the model in memory");
    assert!(share < 1.1, "{share}");
    drop(model);
}
