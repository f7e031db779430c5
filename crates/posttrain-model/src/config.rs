//! A decoder's shape, as `config.json` or a GGUF's metadata gives it.

use crate::block;
use crate::decoder;
use crate::family;
use crate::fields::Fields;
use crate::{ModelError, RopeScaling};
use posttrain_lora::ModuleSpec;
use std::path::Path;

/// The families of decoders that this crate computes. What they compute follows from the other
/// fields of a [`ModelConfig`]; the family is its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// Llama: RMSNorm, rotary positions, grouped-query attention, SwiGLU.
    Llama,
    /// Qwen2 and Qwen2.5: biases on queries, keys and values.
    Qwen2,
    /// Qwen3: a norm on every query and key head.
    Qwen3,
    /// Qwen3 with a mixture of experts.
    Qwen3Moe,
}

/// Which projections of attention have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionBias {
    /// None.
    #[default]
    None,
    /// Queries, keys and values.
    QueryKeyValue,
    /// The output as well.
    All,
}

/// A mixture of experts: a router chooses a few of many feed-forward layers for each token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpertsConfig {
    /// Experts a layer, `E`.
    pub count: i64,
    /// Experts that a token goes to, at most `E`.
    pub a_token: i64,
    /// Width of each expert.
    pub intermediate_size: i64,
    /// Whether the chosen experts' probabilities are divided by their sum (`norm_topk_prob`).
    pub normalized: bool,
    /// The layers that have experts; the others have one feed-forward layer.
    pub layers: Vec<i64>,
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
    /// Whether every query and key head is normed before it is rotated (Qwen3).
    pub head_norms: bool,
    /// Biases of attention.
    pub attention_bias: AttentionBias,
    /// The experts, where there are any.
    pub experts: Option<ExpertsConfig>,
    /// ε of the norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How those are stretched.
    pub rope_scaling: RopeScaling,
    /// The longest sequence that the model was made for, in tokens.
    pub max_position_embeddings: i64,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// Tokens that end a completion.
    pub eos_token_ids: Vec<i64>,
}

impl ModelConfig {
    /// A model of one small layer, for examples and tests: vocabulary 64, hidden 16, two query
    /// heads on one key head.
    #[must_use]
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
            head_norms: false,
            attention_bias: AttentionBias::None,
            experts: None,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::None,
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
        let text = std::fs::read_to_string(path)
            .map_err(|source| ModelError::Io { path: path.into(), source })?;
        family::read(&Fields::parse(path, &text)?)
    }

    /// Checks that the sizes fit each other; `path` is named in the error.
    pub(crate) fn check(&self, path: &Path) -> Result<(), ModelError> {
        let bad = |field: &str, expected: String, got: i64| {
            Err(ModelError::Config {
                path: path.into(),
                field: field.into(),
                expected,
                got: got.to_string(),
            })
        };

        if self.num_attention_heads % self.num_key_value_heads != 0 {
            let expected =
                format!("a divisor of num_attention_heads = {}", self.num_attention_heads);
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
    #[must_use]
    pub fn parameter_count(&self) -> i64 {
        let heads = if self.tie_word_embeddings { 1 } else { 2 };
        let blocks: i64 =
            (0..self.num_hidden_layers).map(|layer| self.block_parameters(layer)).sum();
        heads * self.vocab_size * self.hidden_size + blocks + self.hidden_size
    }

    /// Parameters that a token passes through: of the experts only those that it goes to.
    ///
    /// ```
    /// use posttrain_model::{ExpertsConfig, ModelConfig};
    ///
    /// let experts =
    ///     ExpertsConfig { count: 4, a_token: 2, intermediate_size: 8, normalized: true, layers: vec![0] };
    /// let config = ModelConfig { experts: Some(experts), ..ModelConfig::tiny() };
    /// // Two experts of 3·16·8 parameters are idle.
    /// assert_eq!(config.parameter_count() - config.active_parameter_count(), 2 * 384);
    /// ```
    #[must_use]
    pub fn active_parameter_count(&self) -> i64 {
        let idle = |e: &ExpertsConfig| {
            let expert = 3 * self.hidden_size * e.intermediate_size;
            e.layers.len() as i64 * (e.count - e.a_token) * expert
        };
        self.parameter_count() - self.experts.as_ref().map_or(0, idle)
    }

    /// The linear layers that an adapter may target, in the order that its layers take; last the
    /// head, unless it is the embedding. The routers of experts are not among them.
    #[must_use]
    pub fn modules(&self) -> Vec<ModuleSpec> {
        let blocks = (0..self.num_hidden_layers).flat_map(|layer| block::modules(self, layer));
        let head = || ModuleSpec::new(decoder::HEAD, self.hidden_size, self.vocab_size).head();
        blocks.chain((!self.tie_word_embeddings).then(head)).collect()
    }

    fn block_parameters(&self, layer: i64) -> i64 {
        let h = self.hidden_size;
        let q = self.num_attention_heads * self.head_dim;
        let kv = self.num_key_value_heads * self.head_dim;

        let biases = match self.attention_bias {
            AttentionBias::None => 0,
            AttentionBias::QueryKeyValue => q + 2 * kv,
            AttentionBias::All => q + 2 * kv + h,
        };
        let head_norms = if self.head_norms { 2 * self.head_dim } else { 0 };
        let feed_forward = match self.experts_of(layer) {
            Some(e) => e.count * (3 * h * e.intermediate_size + h),
            None => 3 * h * self.intermediate_size,
        };

        h * q * 2 + h * kv * 2 + biases + head_norms + feed_forward + 2 * h
    }

    /// The experts of a layer, if it has any.
    pub(crate) fn experts_of(&self, layer: i64) -> Option<&ExpertsConfig> {
        self.experts.as_ref().filter(|e| e.layers.contains(&layer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn parse(edit: impl Fn(&mut Value)) -> Result<ModelConfig, ModelError> {
        let mut json = serde_json::json!({
            "model_type": "llama", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 2, "num_attention_heads": 4, "eos_token_id": [2, 3], "rope_theta": 1e5,
        });
        edit(&mut json);
        family::read(&Fields::parse(Path::new("m/config.json"), &json.to_string())?)
    }

    fn parse_moe(field: &str, value: &Value) -> Result<ModelConfig, ModelError> {
        parse(|json| {
            json["model_type"] = "qwen3_moe".into();
            for (field, value) in
                [("num_experts", 4), ("num_experts_per_tok", 2), ("moe_intermediate_size", 8)]
            {
                json[field] = value.into();
            }
            json[field] = value.clone();
        })
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
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let cases: [(&str, Value); 16] = [
            ("model_type", "gpt2".into()),
            ("hidden_size", 0.into()),
            ("vocab_size", (-5).into()),
            ("num_hidden_layers", 1e300.into()),
            ("intermediate_size", "64".into()),
            ("hidden_act", "gelu".into()),
            ("attention_bias", "yes".into()),
            ("mlp_bias", true.into()),
            ("num_key_value_heads", 3.into()),
            ("head_dim", 7.into()),
            ("rms_norm_eps", 0.into()),
            ("eos_token_id", "end".into()),
            ("rope_scaling", json(r#"{"rope_type": "longrope", "factor": 4.0}"#)),
            ("rope_scaling", json(r#"{"type": "yarn", "factor": -4.0}"#)),
            (
                "rope_parameters",
                json(r#"{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}"#),
            ),
            ("quantization_config", json(r#"{"quant_method": "fp8"}"#)),
        ];
        for (field, value) in cases {
            let error = parse(|json| json[field] = value.clone()).unwrap_err().to_string();
            assert!(error.contains(field) && error.contains("config.json"), "{field}: {error}");
        }
    }

    #[test]
    fn families_differ_by_what_their_configurations_say() {
        let family = |name: &str| {
            parse(|json| json["model_type"] = name.into()).unwrap_or_else(|e| panic!("{e}"))
        };
        assert_eq!(
            parse(|json| json["attention_bias"] = true.into()).unwrap().attention_bias,
            AttentionBias::All
        );
        let heads = |json: &mut Value| json["num_key_value_heads"] = 2.into();
        let qwen2 = parse(|json| {
            json["model_type"] = "qwen2".into();
            heads(json);
        });
        assert_eq!(qwen2.unwrap().attention_bias, AttentionBias::QueryKeyValue);
        let qwen3 = parse(|json| {
            json["model_type"] = "qwen3".into();
            heads(json);
        });
        let qwen3 = qwen3.unwrap();
        assert!(qwen3.head_norms && qwen3.head_dim == 128);
        assert!(!family("llama").head_norms);
    }

    #[test]
    fn layers_with_experts_follow_from_the_step_and_the_exceptions() {
        let layers =
            |field: &str, value: Value| parse_moe(field, &value).unwrap().experts.unwrap().layers;
        assert_eq!(layers("num_hidden_layers", 5.into()), [0, 1, 2, 3, 4]);
        let stepped = parse(|json| {
            *json = serde_json::json!({
                "model_type": "qwen3_moe", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8,
                "num_hidden_layers": 6, "num_attention_heads": 4, "num_experts": 4, "num_experts_per_tok": 2,
                "moe_intermediate_size": 8, "decoder_sparse_step": 2, "mlp_only_layers": [3],
            });
        });
        assert_eq!(stepped.unwrap().experts.unwrap().layers, [1, 5]);
        for (field, value) in
            [("num_experts_per_tok", 5), ("num_experts", 0), ("moe_intermediate_size", -1)]
        {
            let error = parse_moe(field, &value.into()).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn a_sliding_window_ends_the_context() {
        let context = |window: i64, layers: i64, used: bool| {
            let config = parse(|json| {
                json["model_type"] = "qwen2".into();
                json["num_key_value_heads"] = 4.into();
                json["max_position_embeddings"] = 1000.into();
                json["use_sliding_window"] = used.into();
                json["sliding_window"] = window.into();
                json["max_window_layers"] = layers.into();
            });
            config.unwrap().max_position_embeddings
        };
        assert_eq!(context(64, 1, true), 64);
        assert_eq!(context(64, 2, true), 1000); // no layer is beyond the second
        assert_eq!(context(64, 1, false), 1000);
        assert_eq!(context(4096, 1, true), 1000);
    }

    #[test]
    fn yarn_stretches_the_context() {
        let rope = serde_json::json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512});
        let config = parse(|json| json["rope_scaling"] = rope.clone()).unwrap();
        assert_eq!(config.max_position_embeddings, 2048);
    }
}
