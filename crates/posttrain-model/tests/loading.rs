//! Loading takes no more memory than the model.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_model::{Checkpoint, ModelConfig, Quantize};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::Path;
use tch::{Device, Kind};

/// A field of the process's account of its memory, in bytes.
fn account(field: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix(field))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

/// A Llama of 1.2 GB in bf16, so that what a library takes on its first use is nothing beside it.
/// Its weights are a hole in the file: zeros that lie nowhere on the disk.
fn write(dir: &Path) {
    let config = json!({
        "model_type": "llama", "vocab_size": 32_000, "hidden_size": 2048, "intermediate_size": 8192,
        "num_hidden_layers": 8, "num_attention_heads": 16, "tie_word_embeddings": true,
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let config = ModelConfig::from_json_file(&dir.join("config.json")).unwrap();
    let mut shapes = vec![
        ("model.embed_tokens.weight".into(), vec![32_000, 2048]),
        ("model.norm.weight".into(), vec![2048]),
    ];
    shapes.extend(
        config
            .modules()
            .iter()
            .map(|m| (format!("{}.weight", m.path), vec![m.out_features, m.in_features])),
    );
    for layer in 0..8 {
        let norms = ["input_layernorm", "post_attention_layernorm"];
        shapes
            .extend(norms.map(|norm| (format!("model.layers.{layer}.{norm}.weight"), vec![2048])));
    }
    let (mut header, mut end) = (Map::<String, Value>::new(), 0);
    for (name, shape) in shapes {
        let start = end;
        end += 2 * shape.iter().product::<i64>() as u64;
        header.insert(name, json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}));
    }
    let header = Value::Object(header).to_string();
    let mut file = std::fs::File::create(dir.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
}

#[test]
fn the_peak_of_loading_is_the_model_and_a_tenth() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let size = checkpoint.size(Quantize::None, Kind::BFloat16).unwrap();
    if std::fs::write("/proc/self/clear_refs", "5").is_err() {
        return println!("SKIPPED: the system keeps no account of the peak that can be reset");
    }
    let before = account("VmRSS:").unwrap();
    let model = checkpoint.decoder(Kind::BFloat16, Device::Cpu).unwrap();
    let peak = account("VmHWM:").unwrap() - before;
    let share = peak / size.memory_bytes as f64;
    println!("{size}: at most {share:.3} of the model in memory");
    assert!(share < 1.1, "{share}");
    drop(model);
}
