//! The families of decoders: what their `config.json` says, and what differs between them.
//!
//! Another family is another file here: it names its `model_type`, refuses what it does not
//! compute, and says in a [`ModelConfig`] what it has that others do not.

mod immaterial;
mod llama;
mod qwen2;
mod qwen3;
mod qwen3_moe;

use crate::fields::Fields;
use crate::rope_scaling::Rope;
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
    // What other models have must be off.
    for field in
        ["mlp_bias", "attention_bias", "is_encoder_decoder", "rope_interleaved", "use_mrope"]
    {
        fields.refuse_unread(field, &["false"])?;
    }
    fields.finish(immaterial::is_immaterial)?;
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
    let Rope { theta, scaling } = Rope::read(f, max_position_embeddings)?;

    // transformers has as many where the field is null, and the family's own number without it.
    let key_value_heads = match f.is_null("num_key_value_heads") {
        true => heads,
        false => defaults.key_value_heads.unwrap_or(heads),
    };

    let config = ModelConfig {
        architecture,
        vocab_size: f.size("vocab_size")?,
        hidden_size,
        intermediate_size: f.size("intermediate_size")?,
        num_hidden_layers: f.size("num_hidden_layers")?,
        num_attention_heads: heads,
        num_key_value_heads: f.size_or("num_key_value_heads", key_value_heads)?,
        head_dim: f.size_or("head_dim", defaults.head_dim.unwrap_or(hidden_size / heads))?,
        head_norms: false,
        attention_bias: AttentionBias::None,
        experts: None,
        rms_norm_eps: f.positive_or("rms_norm_eps", 1e-6)?,
        rope_theta: theta,
        max_position_embeddings: max_position_embeddings.max(scaling.context()),
        rope_scaling: scaling,
        tie_word_embeddings: f.flag_or("tie_word_embeddings", false)?,
        eos_token_ids: f.integers("eos_token_id")?,
    };
    // Before anything is made of so many layers.
    config.check(f.path())?;
    Ok(config)
}

/// `attention_bias`, where it means the biases of all four projections.
fn attention_bias(f: &Fields) -> Result<AttentionBias, ModelError> {
    Ok(if f.flag_or("attention_bias", false)? { AttentionBias::All } else { AttentionBias::None })
}

/// Sliding windows are not computed, and need not be for texts that fit into one: where any layer
/// slides, the context ends at the window, and a longer text is an error.
fn within_window(f: &Fields, mut config: ModelConfig) -> Result<ModelConfig, ModelError> {
    let used = f.flag_or("use_sliding_window", false)? && !f.is_null("sliding_window");
    let slides = slides(f, &config)?;
    if !used {
        return match f.get("layer_types").filter(|_| slides) {
            Some(_) => Err(f.error("layer_types", "full_attention a layer, for no window is used")),
            None => Ok(config),
        };
    }

    let window = f.size_or("sliding_window", 4096)?;
    if slides && window < config.max_position_embeddings {
        tracing::warn!(
            "{}: attention over a sliding window is not computed yet: texts of more than {window} tokens are refused",
            f.path().display()
        );
        config.max_position_embeddings = window;
    }
    Ok(config)
}

fn slides(f: &Fields, config: &ModelConfig) -> Result<bool, ModelError> {
    // With experts every layer slides, whatever its type is said to be.
    if config.architecture == Architecture::Qwen3Moe {
        return f.flag_or("use_sliding_window", false);
    }

    if let Some(types) = f.texts("layer_types")? {
        if types.len() as i64 != config.num_hidden_layers {
            return Err(f.error("layer_types", format!("{} of them", config.num_hidden_layers)));
        }
        if let Some(other) =
            types.iter().find(|t| !["full_attention", "sliding_attention"].contains(t))
        {
            let expected =
                format!("full_attention or sliding_attention a layer ({other} is not supported)");
            return Err(f.error("layer_types", expected));
        }
        return Ok(types.contains(&"sliding_attention"));
    }

    let first = f.number("max_window_layers")?.unwrap_or(28.0);
    Ok(first < config.num_hidden_layers as f64)
}
