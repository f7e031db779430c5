//! Llama 2 and 3, and what was built like them (SmolLM2): no norms on queries and keys.

use super::{Defaults, Family, attention_bias, shared};
use crate::fields::Fields;
use crate::{Architecture, ModelConfig, ModelError};

pub(super) const FAMILY: Family = Family { model_type: "llama", read };

fn read(f: &Fields) -> Result<ModelConfig, ModelError> {
    f.refuse_unless("mlp_bias", &["false"])?;
    let defaults = Defaults { key_value_heads: None, head_dim: None, context: 2048 };
    Ok(ModelConfig {
        attention_bias: attention_bias(f)?,
        ..shared(f, Architecture::Llama, &defaults)?
    })
}
