//! Qwen3 with a mixture of experts in place of feed-forward layers.

use super::{Defaults, Family, attention_bias, shared, within_window};
use crate::fields::Fields;
use crate::{Architecture, ExpertsConfig, ModelConfig, ModelError};
use std::collections::HashSet;

pub(super) const FAMILY: Family = Family { model_type: "qwen3_moe", read };

fn read(f: &Fields) -> Result<ModelConfig, ModelError> {
    let defaults = Defaults { key_value_heads: Some(4), head_dim: None, context: 32_768 };
    let config = shared(f, Architecture::Qwen3Moe, &defaults)?;
    let experts = experts(f, config.num_hidden_layers)?;
    within_window(
        f,
        ModelConfig {
            head_norms: true,
            attention_bias: attention_bias(f)?,
            experts: Some(experts),
            ..config
        },
    )
}

fn experts(f: &Fields, layers: i64) -> Result<ExpertsConfig, ModelError> {
    // transformers 5 writes the field under its newer name.
    let newer = f.get("num_local_experts").is_some();
    let count = match f.get("num_experts").is_some() {
        true => f.size("num_experts")?,
        false => f.size("num_local_experts")?,
    };
    if newer && f.size("num_local_experts")? != count {
        return Err(f.error("num_local_experts", format!("the same as num_experts = {count}")));
    }

    let a_token = f.size("num_experts_per_tok")?;
    if a_token > count {
        return Err(
            f.error("num_experts_per_tok", format!("at most the number of experts, {count}"))
        );
    }

    let step = f.size_or("decoder_sparse_step", 1)?;
    let dense: HashSet<i64> = f.integers("mlp_only_layers")?.into_iter().collect();
    Ok(ExpertsConfig {
        count,
        a_token,
        intermediate_size: f.size("moe_intermediate_size")?,
        normalized: f.flag_or("norm_topk_prob", false)?,
        layers: (0..layers)
            .filter(|layer| !dense.contains(layer) && (layer + 1) % step == 0)
            .collect(),
    })
}
