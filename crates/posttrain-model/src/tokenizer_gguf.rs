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
            "post_processor": self.post_processor()?,
            "decoder": byte_level(true),
            "model": {
                "type": "BPE",
                "vocab": vocab,
                "merges": self.texts("tokenizer.ggml.merges")?,
                // A text that is a token is that token, whatever the merges would make of it.
                "ignore_merges": self.is_llama3(),
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

    /// Llama 3's tokenizer begins every text with a token unless the file says otherwise; the others
    /// only where it does. So llama.cpp has it.
    fn post_processor(&self) -> Result<Value, ModelError> {
        let key = "tokenizer.ggml.add_bos_token";
        if !self.flag(key).unwrap_or_else(|| self.is_llama3()) {
            return Ok(Value::Null);
        }

        let token = self.special_token("bos").ok_or_else(|| {
            self.key_error(
                "tokenizer.ggml.bos_token_id",
                "a token, for texts begin with it",
                "none",
            )
        })?;
        let id = self.integer("tokenizer.ggml.bos_token_id");
        let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
        let begin = json!({"SpecialToken": {"id": token, "type_id": 0}});
        Ok(json!({
            "type": "TemplateProcessing",
            "single": [begin, text("A")],
            "pair": [begin, text("A"), begin, text("B")],
            "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
        }))
    }

    fn is_llama3(&self) -> bool {
        self.optional_text("tokenizer.ggml.pre") == Some("llama-bpe")
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

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::gguf_file::{self, Value};
    use candle_core::quantized::{GgmlDType, QTensor};
    use candle_core::{DType, Device, Tensor};

    /// The tokenizer of a file with that pre-tokenizer, and with a word on how texts begin.
    fn tokenizer(pre: &str, add_bos_token: Option<bool>) -> TextTokenizer {
        let texts = |texts: &[&str]| {
            Value::Array(texts.iter().map(|text| Value::String((*text).to_owned())).collect())
        };
        let word = |word: &str| Value::String(word.to_owned());
        let mut metadata = vec![
            ("general.architecture", word("llama")),
            ("llama.embedding_length", Value::U32(4)),
            ("llama.attention.head_count", Value::U32(1)),
            ("llama.feed_forward_length", Value::U32(4)),
            ("llama.block_count", Value::U32(1)),
            ("llama.context_length", Value::U32(16)),
            ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
            ("tokenizer.ggml.model", word("gpt2")),
            ("tokenizer.ggml.pre", word(pre)),
            ("tokenizer.ggml.tokens", texts(&["<s>", "a", "b", "c", "ab", "abc"])),
            ("tokenizer.ggml.token_type", Value::Array([3, 1, 1, 1, 1, 1].map(Value::I32).into())),
            ("tokenizer.ggml.merges", texts(&["a b"])),
            ("tokenizer.ggml.bos_token_id", Value::U32(0)),
        ];
        metadata
            .extend(add_bos_token.map(|add| ("tokenizer.ggml.add_bos_token", Value::Bool(add))));

        let rows = Tensor::zeros((8, 4), DType::F32, &Device::Cpu).unwrap();
        let embedding = QTensor::quantize(&rows, GgmlDType::F32).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        let mut file = std::fs::File::create(&path).unwrap();
        let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
        gguf_file::write(&mut file, &metadata, &[("token_embd.weight", &embedding)]).unwrap();
        GgufFile::open(&path).unwrap().tokenizer(8).unwrap()
    }

    #[test]
    fn a_text_begins_as_the_file_says_or_as_its_family_does() {
        let prompt = |pre, add| tokenizer(pre, add).encode_prompt("ab").unwrap();
        assert_eq!(prompt("smollm", None), [4]);
        assert_eq!(prompt("smollm", Some(true)), [0, 4]);
        assert_eq!(prompt("llama-bpe", None), [0, 4]);
        assert_eq!(prompt("llama-bpe", Some(false)), [4]);
    }

    #[test]
    fn a_text_that_is_a_token_of_llama_3_is_that_token_whatever_its_merges() {
        assert_eq!(tokenizer("llama-bpe", None).encode_text("abc").unwrap(), [5]);
        assert_eq!(tokenizer("qwen2", None).encode_text("abc").unwrap(), [4, 3]);
    }
}
