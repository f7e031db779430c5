//! GGUF files: llama.cpp's format.

mod blocks;
mod header;

use crate::{Architecture, AttentionBias, ModelConfig, ModelError, RopeScaling};
use header::{Header, Value};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tch::Tensor;

/// A GGUF file whose header has been read.
pub struct GgufFile {
    path: PathBuf,
    header: Header,
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
        let header = Header::read(open(path)?)
            .map_err(|reason| format_error(path, format!("not a readable GGUF: {reason}")))?;
        check_length(path, &header)?;
        let mut file = Self { path: path.into(), header, heads: Heads { query: 1, key_value: 1 } };
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
        if self.header.metadata.keys().any(|k| k.starts_with("llama.rope.scaling")) {
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
            tie_word_embeddings: !self.header.weights.contains_key("output.weight"),
            eos_token_ids: self.integer("tokenizer.ggml.eos_token_id").into_iter().collect(),
        };

        config.check(&self.path)?;
        Ok(config)
    }

    /// The names of the weights in the Hugging Face layout; one that has none there keeps its own.
    pub fn weight_names(&self) -> impl Iterator<Item = String> {
        self.header
            .weights
            .keys()
            .map(|name| hugging_face_name(name).unwrap_or_else(|| name.clone()))
    }

    /// The weight of that name in the Hugging Face layout, in f32, or `None` if it is not there.
    ///
    /// # Errors
    /// [`ModelError::Format`] for data that is cut short.
    pub fn read(&self, name: &str) -> Result<Option<Tensor>, ModelError> {
        let Some(own) = gguf_name(name).filter(|n| self.header.weights.contains_key(n)) else {
            return Ok(None);
        };

        let stored = &self.header.weights[&own];
        let numbers: u64 = stored.shape.iter().product();
        let blocks = numbers as usize / stored.form.numbers();
        let mut bytes = vec![0; blocks * stored.form.bytes()];

        let mut file = open(&self.path)?;
        let read =
            file.seek(SeekFrom::Start(stored.offset)).and_then(|_| file.read_exact(&mut bytes));
        read.map_err(|error| format_error(&self.path, format!("weight `{own}`: {error}")))?;
        let values = stored.form.dequantized(&bytes);
        let shape: Vec<i64> = stored.shape.iter().map(|&size| size as i64).collect();

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
        let info = self.header.weights.get("token_embd.weight");
        info.and_then(|weight| weight.shape.first()).map(|&rows| rows as i64).ok_or_else(|| {
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
    #[must_use]
    pub fn optional_text(&self, key: &str) -> Option<&str> {
        match self.header.metadata.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A metadata truth value, if there is one.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        match self.header.metadata.get(key)? {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    /// A metadata list of strings.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is missing or holds anything else.
    pub fn texts(&self, key: &str) -> Result<Vec<&str>, ModelError> {
        match self.header.metadata.get(key) {
            Some(Value::Texts(texts)) => Ok(texts.iter().map(String::as_str).collect()),
            _ => Err(self.key_error(key, "a list of strings", "nothing of the kind")),
        }
    }

    /// A metadata list of whole numbers, if there is one.
    #[must_use]
    pub fn integers(&self, key: &str) -> Option<Vec<i64>> {
        match self.header.metadata.get(key)? {
            Value::Integers(integers) => Some(integers.clone()),
            _ => None,
        }
    }

    /// A metadata whole number, if there is one.
    #[must_use]
    pub fn integer(&self, key: &str) -> Option<i64> {
        match self.header.metadata.get(key)? {
            Value::Integer(integer) => Some(*integer),
            _ => None,
        }
    }

    fn size(&self, key: &str) -> Result<i64, ModelError> {
        let value = self.integer(key).filter(|v| (1..=1 << 24).contains(v));
        value.ok_or_else(|| {
            self.key_error(key, "a whole number from 1 to 16777216", self.shown(key))
        })
    }

    fn size_or(&self, key: &str, default: i64) -> Result<i64, ModelError> {
        if self.header.metadata.contains_key(key) { self.size(key) } else { Ok(default) }
    }

    fn positive(&self, key: &str) -> Result<f64, ModelError> {
        let number = match self.header.metadata.get(key) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        };
        number
            .filter(|v| *v > 0.0)
            .ok_or_else(|| self.key_error(key, "a number above 0", self.shown(key)))
    }

    fn positive_or(&self, key: &str, default: f64) -> Result<f64, ModelError> {
        if self.header.metadata.contains_key(key) { self.positive(key) } else { Ok(default) }
    }

    fn shown(&self, key: &str) -> String {
        self.header
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
fn check_length(path: &Path, header: &Header) -> Result<(), ModelError> {
    let length = std::fs::metadata(path)
        .map_err(|source| ModelError::Io { path: path.into(), source })?
        .len();

    for (name, weight) in &header.weights {
        let sizes = &weight.shape;
        let numbers = sizes.iter().try_fold(1u64, |product, &size| product.checked_mul(size));
        let Some(numbers) = numbers.filter(|_| sizes.iter().all(|&size| size > 0)) else {
            return Err(format_error(path, format!("weight `{name}` has the shape {sizes:?}")));
        };

        // Rows are whole blocks, of which a row cannot have a part.
        let form = weight.form;
        let row = sizes.last().copied().unwrap_or(1);
        if !row.is_multiple_of(form.numbers() as u64) {
            let reason = format!(
                "weight `{name}` has rows of {row} numbers, in blocks of {}",
                form.numbers()
            );
            return Err(format_error(path, reason));
        }
        let bytes = (numbers / form.numbers() as u64).saturating_mul(form.bytes() as u64);
        let end = weight.offset.saturating_add(bytes);
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

    /// An array of numbers of a byte each, of which the reader keeps eight.
    #[test]
    fn a_header_that_would_take_gigabytes_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zeros.gguf");
        let count = 40_000_000u64;
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend([0u64, 1, 1].map(u64::to_le_bytes).concat());
        bytes.push(b'k');
        bytes.extend([9u32, 0].map(u32::to_le_bytes).concat());
        bytes.extend(count.to_le_bytes());
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
