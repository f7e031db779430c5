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

/// The most experts of all layers together.
const MAX_EXPERTS: i64 = 1 << 17;

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

    /// Checks that the sizes are in range and fit each other; `path` is named in the error.
    pub(crate) fn check(&self, path: &Path) -> Result<(), ModelError> {
        let bad = |field: &str, expected: String, got: i64| {
            Err(ModelError::Config {
                path: path.into(),
                field: field.into(),
                expected,
                got: got.to_string(),
            })
        };

        for (field, size, most) in self.sizes() {
            if size > most {
                return bad(field, format!("at most {most}"), size);
            }
        }

        if self.num_attention_heads % self.num_key_value_heads != 0 {
            let expected =
                format!("a divisor of num_attention_heads = {}", self.num_attention_heads);
            return bad("num_key_value_heads", expected, self.num_key_value_heads);
        }

        if self.head_dim % 2 != 0 {
            return bad("head_dim", "even".into(), self.head_dim);
        }

        let experts = self.experts.as_ref().map_or(0, |e| e.count);
        if experts.saturating_mul(self.num_hidden_layers) > MAX_EXPERTS {
            let expected =
                format!("at most {} in so many layers", MAX_EXPERTS / self.num_hidden_layers);
            return bad("num_experts", expected, experts);
        }
        Ok(())
    }

    /// The sizes with the most of each that is taken: some ten times that of any model there is, so
    /// that a file of a few numbers asks for no more work or memory than it has weights for, and no
    /// product of them overflows.
    fn sizes(&self) -> [(&'static str, i64, i64); 8] {
        let experts = self.experts.as_ref();
        [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("hidden_size", self.hidden_size, 1 << 20),
            ("intermediate_size", self.intermediate_size, 1 << 22),
            ("num_hidden_layers", self.num_hidden_layers, 4096),
            ("num_attention_heads", self.num_attention_heads, 1 << 12),
            ("num_key_value_heads", self.num_key_value_heads, 1 << 12),
            ("head_dim", self.head_dim, 1 << 14),
            ("moe_intermediate_size", experts.map_or(0, |e| e.intermediate_size), 1 << 22),
        ]
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

    /// One model in every spelling that transformers 5.5 reads alike.
    #[test]
    fn rotary_positions_are_read_wherever_they_are_written() {
        let json =
            |text: &str| serde_json::from_str::<serde_json::Map<String, Value>>(text).unwrap();
        let read = |fields: &str| {
            let config = parse(|config| {
                let config = config.as_object_mut().unwrap();
                config.remove("rope_theta");
                config.insert("max_position_embeddings".into(), 1024.into());
                config.extend(json(fields));
            });
            config.map(|config| (config.rope_theta, config.rope_scaling))
        };

        let llama3 = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original: 512.0,
        };
        let inner = r#""factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0"#;
        for fields in [
            format!(
                r#""rope_theta": 5e5, "rope_scaling": {{"rope_type": "llama3", {inner}, "original_max_position_embeddings": 512}}"#
            ),
            format!(
                r#""rope_theta": 5e5, "rope_scaling": {{"type": "llama3", {inner}, "original_max_position_embeddings": 512}}"#
            ),
            format!(
                r#""rope_scaling": {{"rope_theta": 5e5, "rope_type": "llama3", {inner}, "original_max_position_embeddings": 512}}"#
            ),
            format!(
                r#""rope_theta": 1e4, "rope_scaling": {{"rope_theta": 5e5, "rope_type": "llama3", {inner}, "original_max_position_embeddings": 512}}"#
            ),
            format!(
                r#""rope_parameters": {{"rope_theta": 5e5, "rope_type": "llama3", {inner}, "original_max_position_embeddings": 512}}"#
            ),
            format!(
                r#""rope_theta": 5e5, "rope_parameters": {{"rope_type": "llama3", {inner}, "original_max_position_embeddings": 512}}"#
            ),
            // Beside the rest it counts more than inside.
            format!(
                r#""original_max_position_embeddings": 512, "rope_parameters": {{"rope_theta": 5e5, "rope_type": "llama3", {inner}}}"#
            ),
            format!(
                r#""original_max_position_embeddings": 512, "rope_parameters": {{"rope_theta": 5e5, "rope_type": "llama3", {inner}, "original_max_position_embeddings": 64}}"#
            ),
            // The older name is the one that is read where there are both.
            format!(
                r#""rope_parameters": {{"rope_theta": 1e6, "rope_type": "default"}}, "rope_scaling": {{"rope_theta": 5e5, "rope_type": "llama3", {inner}, "original_max_position_embeddings": 512}}"#
            ),
            format!(
                r#""rope_scaling": {{}}, "rope_parameters": {{"rope_theta": 5e5, "rope_type": "llama3", "type": "yarn", {inner}, "original_max_position_embeddings": 512}}"#
            ),
        ] {
            assert_eq!(read(&format!("{{{fields}}}")).unwrap(), (5e5, llama3), "{fields}");
        }

        for (fields, theta, scaling) in [
            ("", 1e4, RopeScaling::None),
            (r#""rope_theta": 5e5"#, 5e5, RopeScaling::None),
            (r#""rope_theta": 5e5, "rope_scaling": null"#, 5e5, RopeScaling::None),
            (r#""rope_theta": 5e5, "rope_scaling": {"type": "default"}"#, 5e5, RopeScaling::None),
            (r#""rope_scaling": {"rope_theta": 5e5}"#, 5e5, RopeScaling::None),
            (
                r#""rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}"#,
                5e5,
                RopeScaling::None,
            ),
            (
                r#""rope_scaling": {"type": "linear", "factor": 2}"#,
                1e4,
                RopeScaling::Linear { factor: 2.0 },
            ),
            (
                r#""rope_scaling": {"type": "linear", "factor": 2.0, "rope_theta": 5e5}"#,
                5e5,
                RopeScaling::Linear { factor: 2.0 },
            ),
        ] {
            assert_eq!(read(&format!("{{{fields}}}")).unwrap(), (theta, scaling), "{fields}");
        }

        for (fields, field) in [
            (
                r#""rope_scaling": {"type": "yarn", "factor": 4.0, "mscale": "1"}"#,
                "rope_scaling.mscale",
            ),
            (
                r#""rope_scaling": {"type": "yarn", "factor": 4.0, "stretch": 1}"#,
                "rope_scaling.stretch",
            ),
            (
                r#""rope_parameters": {"full_attention": {"rope_theta": 5e5}}"#,
                "rope_parameters.full_attention",
            ),
            (
                r#""rope_scaling": {"type": "default", "mrope_section": [1, 2, 3]}"#,
                "rope_scaling.mrope_section",
            ),
            (r#""original_max_position_embeddings": "512""#, "original_max_position_embeddings"),
        ] {
            let error = read(&format!("{{{fields}}}")).unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")), "{error}");
        }
    }

    #[test]
    fn a_field_changes_nothing_or_is_honored_or_refused_by_its_name() {
        let immaterial = serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16", "dtype": "bfloat16", "use_cache": true,
            "initializer_range": 0.02, "attention_dropout": 0.1, "pretraining_tp": 1, "bos_token_id": 1,
            "transformers_version": "5.5.4", "_name_or_path": "x", "temperature": 0.6, "do_sample": true,
            "sliding_window": 4096, "a_field_of_tomorrow": null, "mlp_bias": false, "is_encoder_decoder": false,
        });
        let plain = parse(|_| {}).unwrap();
        for (field, value) in immaterial.as_object().unwrap() {
            assert_eq!(parse(|json| json[field] = value.clone()).unwrap(), plain, "{field}");
        }

        for (field, value) in [
            ("a_field_of_tomorrow", Value::from(1)),
            ("final_logit_softcapping", 30.0.into()),
            ("embedding_multiplier", 12.0.into()),
            ("num_experts", 8.into()),
            ("qkv_bias", true.into()),
            ("is_encoder_decoder", true.into()),
        ] {
            let error = parse(|json| json[field] = value.clone()).unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")), "{field}: {error}");
        }
        let biased = parse(|json| {
            json["model_type"] = "qwen2".into();
            json["num_key_value_heads"] = 2.into();
            json["attention_bias"] = true.into();
        });
        assert!(biased.unwrap_err().to_string().contains("`attention_bias`"));
    }

    #[test]
    fn null_key_value_heads_are_as_many_as_query_heads() {
        let heads = |value: Option<Value>| {
            let config = parse(|json| {
                json["model_type"] = "qwen3".into();
                json["num_attention_heads"] = 64.into();
                if let Some(value) = &value {
                    json["num_key_value_heads"] = value.clone();
                }
            });
            config.unwrap().num_key_value_heads
        };
        assert_eq!((heads(None), heads(Some(Value::Null)), heads(Some(8.into()))), (32, 64, 8));
    }

    #[test]
    fn sizes_beyond_any_model_are_refused_at_once() {
        for (field, size) in [
            ("num_hidden_layers", 10_000_000),
            ("hidden_size", 1 << 22),
            ("intermediate_size", 1 << 23),
            ("num_attention_heads", 1 << 13),
            ("head_dim", 1 << 15),
        ] {
            let error = parse(|json| json[field] = size.into()).unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")) && error.contains("at most"), "{error}");
        }
        let experts = parse_moe("num_experts", &(1 << 20).into()).unwrap_err().to_string();
        assert!(experts.contains("`num_experts`"), "{experts}");
        let layers = parse_moe("num_hidden_layers", &10_000_000.into()).unwrap_err().to_string();
        assert!(layers.contains("`num_hidden_layers`"), "{layers}");
    }
}
