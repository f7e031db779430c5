//! Qwen3, dense: a norm on every query and key head.

use super::{Defaults, Family, attention_bias, shared, within_window};
use crate::fields::Fields;
use crate::{Architecture, ModelConfig, ModelError};

pub(super) const FAMILY: Family = Family { model_type: "qwen3", read };

fn read(f: &Fields) -> Result<ModelConfig, ModelError> {
    let defaults = Defaults { key_value_heads: Some(32), head_dim: Some(128), context: 32_768 };
    let config = shared(f, Architecture::Qwen3, &defaults)?;
    within_window(f, ModelConfig { head_norms: true, attention_bias: attention_bias(f)?, ..config })
}
