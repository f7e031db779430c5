//! GGUF files: llama.cpp's format, read and dequantized by candle's reader.

mod header;

use crate::{Architecture, AttentionBias, ModelConfig, ModelError, RopeScaling};
use candle_core::quantized::gguf_file::{Content, Value};
use header::Header;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// A GGUF file whose header has been read.
pub struct GgufFile {
    path: PathBuf,
    content: Content,
    heads: Heads,
}

#[derive(Clone, Copy)]
struct Heads {
    query: i64,
    key_value: i64,
}

/// A block's weights: name in a GGUF, name in the Hugging Face layout.
const BLOCK_NAMES: [(&str, &str); 9] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The weights outside the blocks, likewise.
const OUTER_NAMES: [(&str, &str); 3] =
    [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

impl GgufFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// [`ModelError::Io`] or [`ModelError::Format`] names the file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let mut reader = Header::new(open(path)?);

        // The reader divides by the alignment that the file gives, which a hostile one sets to
        // zero.
        let read =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Content::read(&mut reader)));
        let content = match read {
            Ok(Ok(content)) => content,
            Ok(Err(e)) => return Err(format_error(path, format!("not a readable GGUF: {e}"))),
            Err(_) => {
                return Err(format_error(
                    path,
                    "not a readable GGUF: its header makes no sense".into(),
                ));
            }
        };

        check_length(path, &content)?;
        let mut file = Self { path: path.into(), content, heads: Heads { query: 1, key_value: 1 } };
        let config = file.config()?;
        file.heads =
            Heads { query: config.num_attention_heads, key_value: config.num_key_value_heads };
        Ok(file)
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The decoder's shape, from the metadata.
    ///
    /// # Errors
    /// [`ModelError::Config`] names the key that is missing, out of range or not supported.
    pub fn config(&self) -> Result<ModelConfig, ModelError> {
        let architecture = self.text("general.architecture")?;
        if architecture != "llama" {
            return Err(self.key_error(
                "general.architecture",
                "a supported architecture (llama)",
                architecture,
            ));
        }
        if self.content.metadata.keys().any(|k| k.starts_with("llama.rope.scaling")) {
            return Err(self.key_error(
                "llama.rope.scaling",
                "absent (scaled rotary positions are not supported)",
                "set",
            ));
        }

        let hidden_size = self.size("llama.embedding_length")?;
        let num_attention_heads = self.size("llama.attention.head_count")?;
        let config = ModelConfig {
            architecture: Architecture::Llama,
            vocab_size: self.embedding_rows()?,
            hidden_size,
            intermediate_size: self.size("llama.feed_forward_length")?,
            num_hidden_layers: self.size("llama.block_count")?,
            num_attention_heads,
            num_key_value_heads: self
                .size_or("llama.attention.head_count_kv", num_attention_heads)?,
            head_dim: self
                .size_or("llama.attention.key_length", hidden_size / num_attention_heads)?,
            head_norms: false,
            attention_bias: AttentionBias::None,
            experts: None,
            rms_norm_eps: self.positive("llama.attention.layer_norm_rms_epsilon")?,
            rope_theta: self.positive_or("llama.rope.freq_base", 10_000.0)?,
            rope_scaling: RopeScaling::None,
            max_position_embeddings: self.size("llama.context_length")?,
            tie_word_embeddings: !self.content.tensor_infos.contains_key("output.weight"),
            eos_token_ids: self.integer("tokenizer.ggml.eos_token_id").into_iter().collect(),
        };

        config.check(&self.path)?;
        Ok(config)
    }

    /// The names of the weights in the Hugging Face layout; one that has none there keeps its own.
    pub fn weight_names(&self) -> impl Iterator<Item = String> {
        self.content
            .tensor_infos
            .keys()
            .map(|name| hugging_face_name(name).unwrap_or_else(|| name.clone()))
    }

    /// The weight of that name in the Hugging Face layout, in f32, or `None` if it is not there.
    ///
    /// # Errors
    /// [`ModelError::Format`] for data that is cut short.
    pub fn read(&self, name: &str) -> Result<Option<Tensor>, ModelError> {
        let Some(own) = gguf_name(name).filter(|n| self.content.tensor_infos.contains_key(n))
        else {
            return Ok(None);
        };

        let bad = |e: candle_core::Error| format_error(&self.path, format!("weight `{own}`: {e}"));
        let cpu = candle_core::Device::Cpu;
        let stored = self.content.tensor(&mut open(&self.path)?, &own, &cpu).map_err(bad)?;
        let shape: Vec<i64> = stored.shape().dims().iter().map(|&d| d as i64).collect();
        let values =
            stored.dequantize(&cpu).and_then(|t| t.flatten_all()?.to_vec1::<f32>()).map_err(bad)?;

        let tensor = Tensor::f_from_slice(&values)?.f_view(shape.as_slice())?;
        Ok(Some(self.unpermuted(name, tensor)?))
    }

    /// llama.cpp interleaves the halves of each query and key head for its rotary kernel; this
    /// takes it back.
    fn unpermuted(&self, name: &str, tensor: Tensor) -> Result<Tensor, ModelError> {
        let heads = match name {
            n if n.ends_with("q_proj.weight") => self.heads.query,
            n if n.ends_with("k_proj.weight") => self.heads.key_value,
            _ => return Ok(tensor),
        };

        let size = tensor.size();
        if size.len() != 2 || size[0] % (heads * 2) != 0 {
            return Ok(tensor); // the shape check that follows names what is wrong
        }

        let split = tensor.f_view([heads, size[0] / heads / 2, 2, size[1]])?;
        Ok(split.f_transpose(1, 2)?.f_reshape(size.as_slice())?)
    }

    fn embedding_rows(&self) -> Result<i64, ModelError> {
        let info = self.content.tensor_infos.get("token_embd.weight");
        info.and_then(|i| i.shape.dims().first()).map(|&rows| rows as i64).ok_or_else(|| {
            ModelError::MissingWeight {
                path: self.path.clone(),
                name: "token_embd.weight".into(),
                expected: vec![],
            }
        })
    }

    /// A metadata string.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is missing or not a string.
    pub fn text(&self, key: &str) -> Result<&str, ModelError> {
        self.optional_text(key)
            .ok_or_else(|| self.key_error(key, "a string", "nothing of the kind"))
    }

    /// A metadata string, if there is one.
    pub fn optional_text(&self, key: &str) -> Option<&str> {
        self.content.metadata.get(key).and_then(|v| v.to_string().ok()).map(String::as_str)
    }

    /// A metadata truth value, if there is one.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.content.metadata.get(key)?.to_bool().ok()
    }

    /// A metadata list of strings.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is missing or holds anything else.
    pub fn texts(&self, key: &str) -> Result<Vec<&str>, ModelError> {
        let list = self.content.metadata.get(key).and_then(|v| v.to_vec().ok());
        let texts =
            list.and_then(|l| l.iter().map(|v| v.to_string().ok().map(String::as_str)).collect());
        texts.ok_or_else(|| self.key_error(key, "a list of strings", "nothing of the kind"))
    }

    /// A metadata list of whole numbers, if there is one.
    pub fn integers(&self, key: &str) -> Option<Vec<i64>> {
        self.content.metadata.get(key)?.to_vec().ok()?.iter().map(integer).collect()
    }

    /// A metadata whole number, if there is one.
    pub fn integer(&self, key: &str) -> Option<i64> {
        self.content.metadata.get(key).and_then(integer)
    }

    fn size(&self, key: &str) -> Result<i64, ModelError> {
        let value = self.integer(key).filter(|v| (1..=1 << 24).contains(v));
        value.ok_or_else(|| {
            self.key_error(key, "a whole number from 1 to 16777216", self.shown(key))
        })
    }

    fn size_or(&self, key: &str, default: i64) -> Result<i64, ModelError> {
        if self.content.metadata.contains_key(key) { self.size(key) } else { Ok(default) }
    }

    fn positive(&self, key: &str) -> Result<f64, ModelError> {
        let value = self.content.metadata.get(key);
        let number = value.and_then(|v| v.to_f32().map(f64::from).or_else(|_| v.to_f64()).ok());
        number
            .filter(|v| *v > 0.0)
            .ok_or_else(|| self.key_error(key, "a number above 0", self.shown(key)))
    }

    fn positive_or(&self, key: &str, default: f64) -> Result<f64, ModelError> {
        if self.content.metadata.contains_key(key) { self.positive(key) } else { Ok(default) }
    }

    fn shown(&self, key: &str) -> String {
        self.content
            .metadata
            .get(key)
            .map_or("nothing".into(), |v| format!("{v:?}").chars().take(80).collect())
    }

    pub(crate) fn key_error(
        &self,
        key: &str,
        expected: &str,
        got: impl Into<String>,
    ) -> ModelError {
        ModelError::Config {
            path: self.path.clone(),
            field: key.into(),
            expected: expected.into(),
            got: got.into(),
        }
    }
}

fn open(path: &Path) -> Result<BufReader<File>, ModelError> {
    let file = File::open(path).map_err(|source| ModelError::Io { path: path.into(), source })?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

/// Every weight must lie within the file: one that was cut short is refused before anything is
/// read.
fn check_length(path: &Path, content: &Content) -> Result<(), ModelError> {
    let length = std::fs::metadata(path)
        .map_err(|source| ModelError::Io { path: path.into(), source })?
        .len();

    for (name, info) in &content.tensor_infos {
        let sizes = info.shape.dims();
        let elements = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        let Some(elements) = elements.filter(|_| sizes.iter().all(|&size| size > 0)) else {
            return Err(format_error(path, format!("weight `{name}` has the shape {sizes:?}")));
        };

        let blocks = elements.div_ceil(info.ggml_dtype.block_size().max(1)) as u64;
        let bytes = blocks.saturating_mul(info.ggml_dtype.type_size() as u64);
        let end = content.tensor_data_offset.saturating_add(info.offset).saturating_add(bytes);
        if end > length {
            let reason =
                format!("cut short: weight `{name}` ends at byte {end}, the file at {length}");
            return Err(format_error(path, reason));
        }
    }
    Ok(())
}

fn format_error(path: &Path, reason: String) -> ModelError {
    ModelError::Format { path: path.into(), reason }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::U8(v) => Some((*v).into()),
        Value::I8(v) => Some((*v).into()),
        Value::U16(v) => Some((*v).into()),
        Value::I16(v) => Some((*v).into()),
        Value::U32(v) => Some((*v).into()),
        Value::I32(v) => Some((*v).into()),
        Value::U64(v) => i64::try_from(*v).ok(),
        Value::I64(v) => Some(*v),
        _ => None,
    }
}

/// `blk.3.attn_q.weight` to `model.layers.3.self_attn.q_proj.weight`.
fn hugging_face_name(name: &str) -> Option<String> {
    let stem = name.strip_suffix(".weight")?;
    if let Some(rest) = stem.strip_prefix("blk.") {
        let (layer, part) = rest.split_once('.')?;
        let (_, theirs) = BLOCK_NAMES.iter().find(|(own, _)| *own == part)?;
        return Some(format!("model.layers.{layer}.{theirs}.weight"));
    }

    OUTER_NAMES.iter().find(|(own, _)| *own == stem).map(|(_, theirs)| format!("{theirs}.weight"))
}

/// The other way.
fn gguf_name(name: &str) -> Option<String> {
    let stem = name.strip_suffix(".weight")?;
    if let Some(rest) = stem.strip_prefix("model.layers.") {
        let (layer, part) = rest.split_once('.')?;
        let (own, _) = BLOCK_NAMES.iter().find(|(_, theirs)| *theirs == part)?;
        return Some(format!("blk.{layer}.{own}.weight"));
    }

    OUTER_NAMES.iter().find(|(_, theirs)| *theirs == stem).map(|(own, _)| format!("{own}.weight"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for own in
            ["blk.12.attn_q.weight", "token_embd.weight", "output.weight", "blk.0.ffn_down.weight"]
        {
            assert_eq!(gguf_name(&hugging_face_name(own).unwrap()).unwrap(), own);
        }
        assert_eq!(hugging_face_name("blk.0.attn_q.bias"), None);
    }

    /// An array of numbers of a byte each, of which the reader keeps 32.
    #[test]
    fn a_header_that_would_take_gigabytes_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zeros.gguf");
        let count = 12_000_000u64;
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend([0u64, 1, 1].map(u64::to_le_bytes).concat());
        bytes.push(b'k');
        bytes.extend([9u32, 0].map(u32::to_le_bytes).concat());
        bytes.extend(count.to_le_bytes());
        bytes.resize(bytes.len() + count as usize, 0);
        std::fs::write(&path, bytes).unwrap();

        let error = GgufFile::open(&path).err().unwrap().to_string();
        assert!(error.contains("zeros.gguf") && error.contains("of memory"), "{error}");
    }

    #[test]
    fn what_is_no_gguf_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        for bytes in
            [&b""[..], b"GGUF", b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\0"]
        {
            std::fs::write(&path, bytes).unwrap();
            assert!(GgufFile::open(&path).err().unwrap().to_string().contains("m.gguf"));
        }
    }
}
