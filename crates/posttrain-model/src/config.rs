//! A decoder's shape, as `config.json` or a GGUF's metadata gives it.

use crate::ModelError;
use serde_json::{Map, Value};
use std::path::Path;

/// The families of decoders that this crate computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Llama: RMSNorm, rotary positions, grouped-query attention, SwiGLU; no biases, no norm on queries and keys.
    Llama,
}

/// A decoder's shape.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// Rows of the embedding, `V`.
    pub vocab_size: i64,
    /// Width of the residual stream, `H`.
    pub hidden_size: i64,
    /// Width of the feed-forward layer.
    pub intermediate_size: i64,
    /// Number of blocks.
    pub num_hidden_layers: i64,
    /// Query heads.
    pub num_attention_heads: i64,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: i64,
    /// Width of a head; even.
    pub head_dim: i64,
    /// ε of the norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// The longest sequence that the model was made for, in tokens.
    pub max_position_embeddings: i64,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// Tokens that end a completion.
    pub eos_token_ids: Vec<i64>,
}

impl ModelConfig {
    /// A model of one small layer, for examples and tests: vocabulary 64, hidden 16, two query heads on one key head.
    pub fn tiny() -> Self {
        Self {
            architecture: Architecture::Llama,
            vocab_size: 64,
            hidden_size: 16,
            intermediate_size: 32,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 8,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            max_position_embeddings: 256,
            tie_word_embeddings: true,
            eos_token_ids: vec![0],
        }
    }

    /// Reads a `config.json` in the Hugging Face layout.
    ///
    /// # Errors
    /// A field that is missing, out of range or not supported is named ([`ModelError::Config`]).
    pub fn from_json_file(path: &Path) -> Result<Self, ModelError> {
        let text = std::fs::read_to_string(path).map_err(|source| ModelError::Io { path: path.into(), source })?;
        let fields = serde_json::from_str(&text)
            .map_err(|e| ModelError::Format { path: path.into(), reason: format!("not a JSON object: {e}") })?;
        Self::from_json(&Fields { path, map: fields })
    }

    fn from_json(f: &Fields) -> Result<Self, ModelError> {
        let architecture = f.architecture()?;
        f.refuse_unless("hidden_act", &["silu"])?;
        for field in ["attention_bias", "mlp_bias"] {
            f.refuse_unless(field, &["false"])?;
        }
        f.plain_rope()?;
        let hidden_size = f.size("hidden_size")?;
        let num_attention_heads = f.size("num_attention_heads")?;
        let config = Self {
            architecture,
            vocab_size: f.size("vocab_size")?,
            hidden_size,
            intermediate_size: f.size("intermediate_size")?,
            num_hidden_layers: f.size("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads: f.size_or("num_key_value_heads", num_attention_heads)?,
            head_dim: f.size_or("head_dim", hidden_size / num_attention_heads)?,
            rms_norm_eps: f.positive_or("rms_norm_eps", 1e-6)?,
            rope_theta: f.rope_theta()?,
            max_position_embeddings: f.size_or("max_position_embeddings", 2048)?,
            tie_word_embeddings: f.flag_or("tie_word_embeddings", false)?,
            eos_token_ids: f.ids("eos_token_id")?,
        };
        config.check(f.path)?;
        Ok(config)
    }

    /// Checks that the sizes fit each other; `path` is named in the error.
    pub(crate) fn check(&self, path: &Path) -> Result<(), ModelError> {
        let bad = |field: &str, expected: String, got: i64| {
            Err(ModelError::Config { path: path.into(), field: field.into(), expected, got: got.to_string() })
        };
        if self.num_attention_heads % self.num_key_value_heads != 0 {
            let expected = format!("a divisor of num_attention_heads = {}", self.num_attention_heads);
            return bad("num_key_value_heads", expected, self.num_key_value_heads);
        }
        if self.head_dim % 2 != 0 {
            return bad("head_dim", "even".into(), self.head_dim);
        }
        Ok(())
    }

    /// Parameters of the base, embeddings included.
    ///
    /// ```
    /// // 64·16 embedding + (16·16·2 + 16·8·2 attention) + 3·16·32 feed-forward + 3·16 norms
    /// assert_eq!(posttrain_model::ModelConfig::tiny().parameter_count(), 1024 + 768 + 1536 + 48);
    /// ```
    pub fn parameter_count(&self) -> i64 {
        let (h, q) = (self.hidden_size, self.num_attention_heads * self.head_dim);
        let kv = self.num_key_value_heads * self.head_dim;
        let block = h * q * 2 + h * kv * 2 + 3 * h * self.intermediate_size + 2 * h;
        let heads = if self.tie_word_embeddings { 1 } else { 2 };
        heads * self.vocab_size * h + self.num_hidden_layers * block + h
    }
}

/// The largest size that a configuration may ask for: beyond any model there is, below what would overflow products.
const LARGEST: i64 = 1 << 24;

/// The fields of a `config.json`, with errors that name the file and the field.
struct Fields<'a> {
    path: &'a Path,
    map: Map<String, Value>,
}

impl Fields<'_> {
    fn get(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|v| !v.is_null())
    }

    fn error(&self, field: &str, expected: impl Into<String>) -> ModelError {
        let got = self.get(field).map_or("nothing".into(), Value::to_string);
        ModelError::Config { path: self.path.into(), field: field.into(), expected: expected.into(), got }
    }

    fn architecture(&self) -> Result<Architecture, ModelError> {
        match self.get("model_type").and_then(Value::as_str) {
            Some("llama") => Ok(Architecture::Llama),
            _ => Err(self.error("model_type", "a supported architecture (llama)")),
        }
    }

    fn size(&self, field: &str) -> Result<i64, ModelError> {
        let value = self.get(field).and_then(Value::as_i64).filter(|v| (1..=LARGEST).contains(v));
        value.ok_or_else(|| self.error(field, format!("a whole number from 1 to {LARGEST}")))
    }

    fn size_or(&self, field: &str, default: i64) -> Result<i64, ModelError> {
        if self.get(field).is_some() { self.size(field) } else { Ok(default) }
    }

    fn positive_or(&self, field: &str, default: f64) -> Result<f64, ModelError> {
        match self.get(field) {
            Some(v) => v.as_f64().filter(|v| *v > 0.0).ok_or_else(|| self.error(field, "a number above 0")),
            None => Ok(default),
        }
    }

    fn flag_or(&self, field: &str, default: bool) -> Result<bool, ModelError> {
        match self.get(field) {
            Some(v) => v.as_bool().ok_or_else(|| self.error(field, "true or false")),
            None => Ok(default),
        }
    }

    fn ids(&self, field: &str) -> Result<Vec<i64>, ModelError> {
        let ids = match self.get(field) {
            None => Some(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(Value::as_i64).collect(),
            Some(value) => value.as_i64().map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.error(field, "a token id or a list of them"))
    }

    /// A field that changes the result must be absent or have one of the values that are computed.
    fn refuse_unless(&self, field: &str, supported: &[&str]) -> Result<(), ModelError> {
        let text = self.get(field).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_string));
        match text {
            Some(text) if !supported.contains(&text.as_str()) => {
                Err(self.error(field, format!("{} (the rest is not supported)", supported.join(" or "))))
            }
            _ => Ok(()),
        }
    }

    /// transformers 5 keeps the rotary settings in `rope_parameters`, earlier versions in `rope_scaling`.
    fn plain_rope(&self) -> Result<(), ModelError> {
        for field in ["rope_scaling", "rope_parameters"] {
            let kind = self.get(field).map(|v| v.get("rope_type").or(v.get("type")).and_then(Value::as_str));
            if kind.is_some_and(|kind| !matches!(kind, None | Some("default"))) {
                return Err(self.error(field, "absent or of type default (scaled rotary positions are not supported)"));
            }
        }
        Ok(())
    }

    fn rope_theta(&self) -> Result<f64, ModelError> {
        let nested = self.get("rope_parameters").and_then(|p| p.get("rope_theta")).and_then(Value::as_f64);
        match nested {
            Some(theta) if theta > 0.0 => Ok(theta),
            Some(_) => Err(self.error("rope_parameters", "a rope_theta above 0")),
            None => self.positive_or("rope_theta", 10_000.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(edit: impl Fn(&mut Value)) -> Result<ModelConfig, ModelError> {
        let mut json = serde_json::json!({
            "model_type": "llama", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 2, "num_attention_heads": 4, "eos_token_id": [2, 3], "rope_theta": 1e5,
        });
        edit(&mut json);
        let map = json.as_object().unwrap().clone();
        ModelConfig::from_json(&Fields { path: Path::new("m/config.json"), map })
    }

    #[test]
    fn absent_fields_take_the_defaults_of_transformers() {
        let config = parse(|_| {}).unwrap();
        assert_eq!((config.num_key_value_heads, config.head_dim, config.rope_theta), (4, 16, 1e5));
        assert_eq!(config.eos_token_ids, [2, 3]);
        assert!(!config.tie_word_embeddings);
    }

    #[test]
    fn what_cannot_be_computed_is_refused_by_name() {
        let cases: [(&str, Value); 8] = [
            ("model_type", "gpt2".into()),
            ("hidden_size", 0.into()),
            ("vocab_size", (-5).into()),
            ("hidden_act", "gelu".into()),
            ("attention_bias", true.into()),
            ("num_key_value_heads", 3.into()),
            ("head_dim", 7.into()),
            ("rope_scaling", serde_json::json!({"rope_type": "yarn", "factor": 4.0})),
        ];
        for (field, value) in cases {
            let error = parse(|json| json[field] = value.clone()).unwrap_err().to_string();
            assert!(error.contains(field) && error.contains("config.json"), "{field}: {error}");
        }
    }
}
