//! The families of decoders: what their `config.json` says, and what differs between them.
//!
//! Another family is another file here: it names its `model_type`, refuses what it does not
//! compute, and says in a [`ModelConfig`] what it has that others do not.

mod llama;
mod qwen2;
mod qwen3;
mod qwen3_moe;

use crate::fields::Fields;
use crate::rope_scaling::RopeScaling;
use crate::{Architecture, AttentionBias, ModelConfig, ModelError};

/// A family, by the name that `config.json` gives it.
pub(crate) struct Family {
    model_type: &'static str,
    read: fn(&Fields) -> Result<ModelConfig, ModelError>,
}

const FAMILIES: [Family; 4] = [llama::FAMILY, qwen2::FAMILY, qwen3::FAMILY, qwen3_moe::FAMILY];

/// The configuration that a file's `model_type` asks for.
pub(crate) fn read(fields: &Fields) -> Result<ModelConfig, ModelError> {
    let name = fields.text("model_type")?;
    let Some(family) = FAMILIES.iter().find(|f| Some(f.model_type) == name) else {
        let known: Vec<_> = FAMILIES.iter().map(|f| f.model_type).collect();
        return Err(
            fields.error("model_type", format!("a supported architecture ({})", known.join(", ")))
        );
    };

    let config = (family.read)(fields)?;
    config.check(fields.path())?;
    Ok(config)
}

/// What a family assumes where a field is absent: the defaults of transformers.
struct Defaults {
    /// `None` is as many as query heads.
    key_value_heads: Option<i64>,
    /// `None` is hidden size over query heads.
    head_dim: Option<i64>,
    context: i64,
}

/// The fields that all families share.
fn shared(
    f: &Fields,
    architecture: Architecture,
    defaults: &Defaults,
) -> Result<ModelConfig, ModelError> {
    f.refuse_unless("hidden_act", &["silu"])?;
    f.refuse(
        "quantization_config",
        "the weights are stored in a form that is not read; take the unquantized ones",
    )?;
    f.refuse_unless("partial_rotary_factor", &["1", "1.0"])?;

    let hidden_size = f.size("hidden_size")?;
    let heads = f.size("num_attention_heads")?;
    let max_position_embeddings = f.size_or("max_position_embeddings", defaults.context)?;
    let rope_scaling = RopeScaling::read(f, max_position_embeddings)?;

    Ok(ModelConfig {
        architecture,
        vocab_size: f.size("vocab_size")?,
        hidden_size,
        intermediate_size: f.size("intermediate_size")?,
        num_hidden_layers: f.size("num_hidden_layers")?,
        num_attention_heads: heads,
        num_key_value_heads: f
            .size_or("num_key_value_heads", defaults.key_value_heads.unwrap_or(heads))?,
        head_dim: f.size_or("head_dim", defaults.head_dim.unwrap_or(hidden_size / heads))?,
        head_norms: false,
        attention_bias: AttentionBias::None,
        experts: None,
        rms_norm_eps: f.positive_or("rms_norm_eps", 1e-6)?,
        rope_theta: rope_theta(f)?,
        max_position_embeddings: max_position_embeddings.max(rope_scaling.context()),
        rope_scaling,
        tie_word_embeddings: f.flag_or("tie_word_embeddings", false)?,
        eos_token_ids: f.integers("eos_token_id")?,
    })
}

/// transformers 5 keeps the rotary settings in `rope_parameters`, earlier versions beside the rest.
fn rope_theta(f: &Fields) -> Result<f64, ModelError> {
    match f.object("rope_parameters")? {
        Some(rope) if rope.get("rope_theta").is_some() => rope.positive("rope_theta"),
        _ => f.positive_or("rope_theta", 10_000.0),
    }
}

/// `attention_bias`, where it means the biases of all four projections.
fn attention_bias(f: &Fields) -> Result<AttentionBias, ModelError> {
    Ok(if f.flag_or("attention_bias", false)? { AttentionBias::All } else { AttentionBias::None })
}

/// Sliding windows are not computed, and need not be for texts that fit into one: where any layer
/// slides, the context ends at the window, and a longer text is an error.
fn within_window(f: &Fields, mut config: ModelConfig) -> Result<ModelConfig, ModelError> {
    if !f.flag_or("use_sliding_window", false)? || f.get("sliding_window").is_none() {
        return Ok(config);
    }

    let window = f.size("sliding_window")?;
    if slides(f, &config)? && window < config.max_position_embeddings {
        tracing::warn!(
            "{}: attention over a sliding window is not computed yet: texts of more than {window} tokens are refused",
            f.path().display()
        );
        config.max_position_embeddings = window;
    }
    Ok(config)
}

fn slides(f: &Fields, config: &ModelConfig) -> Result<bool, ModelError> {
    if let Some(types) = f.texts("layer_types")? {
        if let Some(other) =
            types.iter().find(|t| !["full_attention", "sliding_attention"].contains(t))
        {
            let expected =
                format!("full_attention or sliding_attention a layer ({other} is not supported)");
            return Err(f.error("layer_types", expected));
        }
        return Ok(types.contains(&"sliding_attention"));
    }

    let first = match config.architecture {
        Architecture::Qwen3Moe => 0, // every layer slides
        _ => f.get("max_window_layers").and_then(|v| v.as_i64()).unwrap_or(28),
    };
    Ok(first < config.num_hidden_layers)
}
