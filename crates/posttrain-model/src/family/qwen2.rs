//! Qwen2 and Qwen2.5: biases on queries, keys and values.

use super::{Defaults, Family, shared, within_window};
use crate::fields::Fields;
use crate::{Architecture, AttentionBias, ModelConfig, ModelError};

pub(super) const FAMILY: Family = Family { model_type: "qwen2", read };

fn read(f: &Fields) -> Result<ModelConfig, ModelError> {
    let defaults = Defaults { key_value_heads: Some(32), head_dim: None, context: 32_768 };
    let config = shared(f, Architecture::Qwen2, &defaults)?;
    within_window(f, ModelConfig { attention_bias: AttentionBias::QueryKeyValue, ..config })
}
