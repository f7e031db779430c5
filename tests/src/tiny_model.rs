//! A model for tests that need one on the disk.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_model::{Decoder, ModelConfig};
use posttrain_tensor::write_tensors;
use serde_json::{Value, json};
use std::path::Path;

const TEMPLATE: &str = "{% for tool in tools or [] %}{{ tool.function.name }};{% endfor %}\
    {% for m in messages %}<|im_start|>{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>a:{% endif %}";

/// Tokens that are no characters: the end of a message, its beginning, and whatever is unknown.
const SPECIAL: [&str; 3] = ["<|im_end|>", "<|im_start|>", "<unk>"];

/// A random model of one layer.
pub struct TinyModel<'a> {
    /// What it can write: a token for each.
    pub characters: &'a str,
    /// Tokens of its context.
    pub context: i64,
    /// How many times longer its embeddings are than they were drawn, which bounds how sure it can
    /// be.
    pub sharper: f64,
}

impl TinyModel<'_> {
    /// Writes it in the Hugging Face layout.
    ///
    /// # Panics
    /// Where a file cannot be written.
    pub fn write(&self, folder: &Path) {
        let mut vocab = json!({});
        let characters = self.characters.chars().map(String::from);
        for (id, token) in SPECIAL.into_iter().map(String::from).chain(characters).enumerate() {
            vocab[token] = json!(id);
        }
        let tokens = vocab.as_object().map_or(0, serde_json::Map::len);
        let config = ModelConfig {
            vocab_size: tokens as i64,
            max_position_embeddings: self.context,
            ..ModelConfig::tiny()
        };

        let model = Decoder::random(&config, 7, tch::Kind::Float, tch::Device::Cpu).unwrap();
        std::fs::create_dir_all(folder).unwrap();
        let mut weights = model.merged_weights(None).unwrap();
        for (name, weight) in &mut weights {
            if name.contains("embed_tokens") {
                *weight = &*weight * self.sharper;
            }
        }
        write_tensors(&folder.join("model.safetensors"), &weights).unwrap();

        let write = |name: &str, value: Value| {
            std::fs::write(folder.join(name), value.to_string()).unwrap();
        };
        write("config.json", config.llama_json());
        let added: Vec<Value> = SPECIAL
            .iter()
            .enumerate()
            .map(|(id, content)| {
                json!({ "id": id, "content": content, "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": true })
            })
            .collect();
        write(
            "tokenizer.json",
            json!({
                "version": "1.0",
                "added_tokens": added,
                "decoder": { "type": "Fuse" },
                "model": { "type": "BPE", "unk_token": "<unk>", "fuse_unk": false, "vocab": vocab, "merges": [] },
            }),
        );
        write(
            "tokenizer_config.json",
            json!({
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": "<|im_end|>",
                "unk_token": "<unk>",
                "chat_template": TEMPLATE,
            }),
        );
    }
}
