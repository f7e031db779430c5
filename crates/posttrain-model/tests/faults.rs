//! Broken files: each a clear error within a second, and never a panic.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod demo;

use posttrain_model::{Checkpoint, GgufFile, ModelConfig, ModelError, TextTokenizer};
use posttrain_tensor::{read_tensors, write_tensors};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A copy of a fixture's folder, to be broken.
fn copy(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in
        std::fs::read_dir(fixture(name)).unwrap().map(Result::unwrap).filter(|e| e.path().is_file())
    {
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

fn load(dir: &Path) -> Result<(), ModelError> {
    Checkpoint::open(dir)?.decoder(Kind::Float, Device::Cpu).map(|_| ())
}

/// The error of a broken folder, which must come at once and leave nothing.
fn error(dir: &Path) -> String {
    let files = || std::fs::read_dir(dir).map(Iterator::count).unwrap_or(0);
    let (before, started) = (files(), Instant::now());
    let error = load(dir).unwrap_err().to_string();
    assert!(started.elapsed() < Duration::from_secs(1), "{error}: {:?}", started.elapsed());
    assert_eq!(files(), before, "{error}");
    error
}

fn edit_weights(dir: &Path, edit: impl Fn(&str, Tensor) -> Tensor) {
    let path = dir.join("model.safetensors");
    let tensors: Vec<_> =
        read_tensors(&path).unwrap().into_iter().map(|(n, t)| (n.clone(), edit(&n, t))).collect();
    write_tensors(&path, &tensors).unwrap();
}

fn edit_config(dir: &Path, field: &str, value: Value) {
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config[field] = value;
    std::fs::write(path, config.to_string()).unwrap();
}

fn cut(path: &Path, by: usize) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() - by]).unwrap();
}

#[test]
fn a_broken_shard_and_a_missing_one_are_named() {
    let dir = copy("llama_untied");
    load(dir.path()).unwrap();
    cut(&dir.path().join("model-00002-of-00002.safetensors"), 4);
    let message = error(dir.path());
    assert!(
        message.contains("model-00002-of-00002.safetensors") && message.contains("not a readable"),
        "{message}"
    );
    std::fs::remove_file(dir.path().join("model-00002-of-00002.safetensors")).unwrap();
    assert!(error(dir.path()).contains("model-00002-of-00002.safetensors"));
}

/// At every stage: in the header, in the list of weights, in the weights, by a byte.
#[test]
fn a_truncated_gguf_is_an_error_that_names_it() {
    let Some(whole) = demo::checkpoint() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("short.gguf");
    std::fs::copy(whole.path(), &path).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    for length in [length - 1, length / 2, 1_800_000, 100_000, 30, 7, 0] {
        file.set_len(length).unwrap();
        let started = Instant::now();
        let message = load(&path).unwrap_err().to_string();
        assert!(started.elapsed() < Duration::from_secs(60), "{message}: {:?}", started.elapsed());
        assert!(message.contains("short.gguf"), "{length}: {message}");
    }
}

/// The inputs that fuzzing began with and has found since: a panic or an endless run fails here
/// without a fuzzer, too.
#[test]
fn what_fuzzing_has_found_stays_an_error_or_a_model() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/gguf");
    let mut opened = 0;
    for entry in std::fs::read_dir(corpus).unwrap().map(Result::unwrap) {
        if let Ok(file) = GgufFile::open(&entry.path()) {
            opened += 1;
            for name in file.weight_names().collect::<Vec<_>>() {
                let _ = file.read(&name);
            }
        }
    }
    assert!(opened >= 5, "{opened}");
}

/// A product of sizes that wraps to zero lies within any file.
#[test]
fn a_gguf_whose_sizes_overflow_is_refused() {
    let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/gguf/f32");
    let mut bytes = std::fs::read(seed).unwrap();
    let name = b"blk.0.ffn_up.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len() + 4;
    bytes[at..at + 8].copy_from_slice(&(1u64 << 32).to_le_bytes());
    bytes[at + 8..at + 16].copy_from_slice(&(1u64 << 32).to_le_bytes());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("huge.gguf");
    std::fs::write(&path, bytes).unwrap();
    let message = GgufFile::open(&path).err().unwrap().to_string();
    assert!(
        message.contains("huge.gguf") && message.contains("ffn_up.weight` has the shape"),
        "{message}"
    );
}

#[test]
fn a_wrong_shape_and_a_wrong_kind_are_named() {
    let name = "model.layers.1.self_attn.q_norm.weight";
    let dir = copy("families/qwen3");
    edit_weights(dir.path(), |n, t| if n == name { t.narrow(0, 0, 8) } else { t });
    assert!(error(dir.path()).contains("q_norm.weight`: expected shape [16], got [8]"));
    let dir = copy("families/qwen3");
    edit_weights(dir.path(), |n, t| if n == name { t.to_kind(Kind::Int8) } else { t });
    assert!(error(dir.path()).contains("q_norm.weight`: expected f32, bf16, f16 or f64, got Int8"));
    let dir = copy("families/qwen3_moe");
    edit_config(dir.path(), "num_experts", json!(13));
    edit_config(dir.path(), "num_local_experts", json!(13));
    assert!(error(dir.path()).contains("mlp.gate.weight`: expected shape [13, 48], got [12, 48]"));
}

/// Weights of another family are left over or missing; nothing is guessed.
#[test]
fn the_weights_of_another_family_are_refused() {
    let dir = copy("families/qwen3");
    edit_config(dir.path(), "model_type", json!("llama"));
    assert!(error(dir.path()).contains("weights that this architecture does not have"));
    let dir = copy("families/qwen3");
    edit_config(dir.path(), "attention_bias", json!(true));
    assert!(error(dir.path()).contains("q_proj.bias` is missing"));
}

/// As in transformers 5: a head that is stored counts where it is not the embedding.
#[test]
fn a_tied_head_that_is_stored_all_the_same_is_the_head_if_it_differs() {
    let dir = copy("llama_tiny");
    edit_config(dir.path(), "tie_word_embeddings", json!(true));
    let path = dir.path().join("model.safetensors");
    let mut tensors = read_tensors(&path).unwrap();
    let embedding = tensors["model.embed_tokens.weight"].copy();
    let mut store = |head: &Tensor| {
        tensors.insert("lm_head.weight".into(), head.copy());
        let all: Vec<_> = tensors.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
        write_tensors(&path, &all).unwrap();
        Checkpoint::open(dir.path()).unwrap().decoder(Kind::Float, Device::Cpu).unwrap()
    };

    let tied = store(&embedding);
    assert!(tied.config().tie_word_embeddings && tied.head_module().is_none());
    let own = store(&(&embedding * 2.0));
    assert!(!own.config().tie_word_embeddings && own.head_module().is_some());
    assert_eq!(*own.head(), (&embedding * 2.0).to_kind(Kind::Float));

    let wrong = embedding.narrow(0, 0, 3);
    let tensors: Vec<_> = read_tensors(&path).unwrap().into_iter().collect();
    let bent = |(name, tensor): (String, Tensor)| match name.as_str() {
        "lm_head.weight" => (name, wrong.copy()),
        _ => (name, tensor),
    };
    write_tensors(&path, &tensors.into_iter().map(bent).collect::<Vec<_>>()).unwrap();
    assert!(error(dir.path()).contains("lm_head.weight"));
}

#[test]
fn zero_and_negative_sizes_name_their_field() {
    let fields = [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "head_dim",
    ];
    for field in fields.iter().chain(&[
        "num_key_value_heads",
        "num_experts_per_tok",
        "moe_intermediate_size",
    ]) {
        for value in [0, -4] {
            let dir = copy("families/qwen3_moe");
            edit_config(dir.path(), field, json!(value));
            let message = error(dir.path());
            assert!(
                message.contains(&format!("`{field}`")) && message.contains(&value.to_string()),
                "{message}"
            );
        }
    }
}

#[test]
fn a_template_with_a_syntax_error_names_its_line() {
    let dir = copy("families/qwen3");
    std::fs::write(
        dir.path().join("chat_template.jinja"),
        "{% for m in messages %}\n{{ m.content }\n{% endfor %}",
    )
    .unwrap();
    let error = Checkpoint::open(dir.path()).unwrap().chat_template().unwrap_err();
    assert!(error.to_string().contains("chat template"), "{error}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains(":2"), "{source}");
}

#[test]
fn a_tokenizer_beyond_the_embedding_is_refused() {
    let json = json!({"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 160}, "unk_token": "a"}});
    let dir = copy("families/qwen3");
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    let message = Checkpoint::open(dir.path()).unwrap().tokenizer().unwrap_err().to_string();
    assert!(message.contains("token ids up to 160, the embedding only 160 rows"), "{message}");
    let broken =
        TextTokenizer::from_json(b"{", Path::new("t/tokenizer.json"), 9).unwrap_err().to_string();
    assert!(broken.contains("t/tokenizer.json"), "{broken}");
}

/// A deterministic stream of numbers.
fn mix(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

/// Bytes of a valid file changed, dropped or doubled at random places.
fn mutated(bytes: &[u8], state: &mut u64) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=mix(state) % 4 {
        let at = mix(state) % out.len().max(1);
        match mix(state) % 4 {
            0 => out[at] = mix(state) as u8,
            1 => drop(out.remove(at)),
            2 => out.insert(at, b"{}[]\"-09.e,:n"[mix(state) % 13]),
            _ => out.truncate(at.max(1)),
        }
    }
    out
}

#[test]
fn whatever_stands_in_a_configuration_or_a_header_it_is_an_error_or_a_model() {
    let (dir, mut state) = (copy("families/qwen3_moe"), 7u64);
    let config = std::fs::read(dir.path().join("config.json")).unwrap();
    for _ in 0..400 {
        let path = dir.path().join("config.json");
        std::fs::write(&path, mutated(&config, &mut state)).unwrap();
        if let Err(error) = ModelConfig::from_json_file(&path) {
            assert!(error.to_string().contains("config.json"), "{error}");
        }
    }
    let path = dir.path().join("small.safetensors");
    write_tensors(
        &path,
        &[("a".into(), Tensor::from_slice(&[1f32; 4])), ("b".into(), Tensor::from_slice(&[2i64]))],
    )
    .unwrap();
    let file = std::fs::read(&path).unwrap();
    for _ in 0..400 {
        std::fs::write(&path, mutated(&file, &mut state)).unwrap();
        if let Err(error) = read_tensors(&path) {
            assert!(error.to_string().contains("small.safetensors"), "{error}");
        }
    }
}
