//! The norms of query and key heads, with their weights.

use crate::block::{by_autograd, native};
use crate::weights::Weights;
use crate::{ModelConfig, ModelError};
use posttrain_kernel::Heads;
use tch::Tensor;

/// Norms of every query and key head of a block, before they are turned to their positions.
#[derive(Debug)]
pub(crate) struct HeadNorms {
    heads: Heads,
    query: Tensor,
    key: Tensor,
    eps: f64,
}

impl HeadNorms {
    /// Those of block `layer`, if the model has them.
    pub fn load(config: &ModelConfig, layer: i64, weights: &mut Weights) -> Result<Option<Self>, ModelError> {
        if !config.head_norms {
            return Ok(None);
        }
        let mut take =
            |name: &str| weights.take(&format!("model.layers.{layer}.self_attn.{name}.weight"), &[config.head_dim]);
        let heads = crate::block::heads(config);
        Ok(Some(Self { heads, query: take("q_norm")?, key: take("k_norm")?, eps: config.rms_norm_eps }))
    }

    /// `qkv: [N, (heads + 2·kv_heads)·d]` with its query and key heads normed. Gradients flow.
    pub fn forward(&self, qkv: &Tensor) -> Result<Tensor, ModelError> {
        if native(qkv) {
            return Ok(self.kernel().forward(qkv)?);
        }
        let Heads { query, key_value, width } = self.heads;
        let sizes = [query as i64, key_value as i64, key_value as i64];
        let parts = qkv.f_reshape([-1, sizes.iter().sum(), width as i64])?.f_split_with_sizes(sizes, 1)?;
        let norm = |x: &Tensor, weight: &Tensor| x.f_rms_norm([width as i64], Some(weight), self.eps);
        let normed = [norm(&parts[0], &self.query)?, norm(&parts[1], &self.key)?, parts[2].shallow_clone()];
        Ok(Tensor::f_cat(&normed, 1)?.f_flatten(1, 2)?)
    }

    /// The gradient by `qkv` from that by what [`HeadNorms::forward`] gave.
    pub fn backward(&self, qkv: &Tensor, gradient: &Tensor) -> Result<Tensor, ModelError> {
        if native(qkv) {
            return Ok(self.kernel().backward(qkv, &gradient.f_contiguous()?)?);
        }
        by_autograd(qkv, gradient, |qkv| self.forward(qkv))
    }

    /// The same over the same memory.
    pub fn share(&self) -> Self {
        Self { heads: self.heads, query: self.query.shallow_clone(), key: self.key.shallow_clone(), eps: self.eps }
    }

    fn kernel(&self) -> posttrain_kernel::HeadNorms<'_> {
        posttrain_kernel::HeadNorms { heads: self.heads, query: &self.query, key: &self.key, eps: self.eps }
    }
}
