//! The tokenizer that a GGUF's metadata describes.
//!
//! A GGUF carries vocabulary and merges but no `tokenizer.json`: the pre-tokenizer is only *named*.
//! With the wrong one every text is still tokenized, only not as the model was trained on, and its
//! answers are wrong without an error. So an unknown name is refused, and each known one has its
//! splitting rules here.
#![cfg(feature = "gguf")]

use crate::gguf::GgufFile;
use crate::{ModelError, TextTokenizer};
use serde_json::{Value, json};

/// `tokenizer.ggml.token_type` of a control token and of one that a user added.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

impl GgufFile {
    /// The tokenizer, for an embedding of `rows` rows.
    ///
    /// # Errors
    /// [`ModelError::Config`] names what is missing or not supported.
    pub fn tokenizer(&self, rows: i64) -> Result<TextTokenizer, ModelError> {
        let model = self.text("tokenizer.ggml.model")?;
        if model != "gpt2" {
            return Err(self.key_error("tokenizer.ggml.model", "gpt2 (byte-level BPE)", model));
        }

        let tokens = self.texts("tokenizer.ggml.tokens")?;
        let vocab: Value =
            tokens.iter().enumerate().map(|(id, token)| (token.to_string(), json!(id))).collect();
        let json = json!({
            "version": "1.0",
            "added_tokens": self.added_tokens(&tokens),
            "normalizer": null,
            "pre_tokenizer": self.pre_tokenizer()?,
            "post_processor": null,
            "decoder": byte_level(true),
            "model": {
                "type": "BPE",
                "vocab": vocab,
                "merges": self.texts("tokenizer.ggml.merges")?,
                "ignore_merges": false,
            },
        });

        TextTokenizer::from_json(json.to_string().as_bytes(), self.path(), rows)
    }

    /// The chat template, if the file has one.
    #[must_use]
    pub fn chat_template(&self) -> Option<&str> {
        self.optional_text("tokenizer.chat_template")
    }

    /// The text of a special token (`bos`, `eos`), if the file names one.
    pub(crate) fn special_token(&self, name: &str) -> Option<&str> {
        let id = self.integer(&format!("tokenizer.ggml.{name}_token_id"))?;
        self.texts("tokenizer.ggml.tokens").ok()?.get(usize::try_from(id).ok()?).copied()
    }

    fn added_tokens(&self, tokens: &[&str]) -> Vec<Value> {
        let types = self.integers("tokenizer.ggml.token_type").unwrap_or_default();
        let kinds = tokens.iter().zip(types).enumerate();
        kinds
            .filter(|(_, (_, kind))| [CONTROL, USER_DEFINED].contains(kind))
            .map(|(id, (token, kind))| added(id, token, kind))
            .collect()
    }

    fn pre_tokenizer(&self) -> Result<Value, ModelError> {
        let name = self.text("tokenizer.ggml.pre")?;
        let steps = match name {
            "smollm" => {
                vec![json!({"type": "Digits", "individual_digits": true}), byte_level(true)]
            }
            "llama-bpe" => vec![
                split(
                    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
                ),
                byte_level(false),
            ],
            "qwen2" => vec![
                split(
                    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
                ),
                byte_level(false),
            ],
            "gpt-2" => vec![byte_level(true)],
            _ => {
                let known = "a pre-tokenizer that is known (smollm, llama-bpe, qwen2, gpt-2); with another every answer would be wrong";
                return Err(self.key_error("tokenizer.ggml.pre", known, name));
            }
        };

        Ok(json!({"type": "Sequence", "pretokenizers": steps}))
    }
}

fn added(id: usize, token: &str, kind: i64) -> Value {
    json!({
        "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": kind == CONTROL,
    })
}

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

fn split(pattern: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}
