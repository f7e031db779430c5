//! The norms of query and key heads, with their weights.

use crate::block::{by_autograd, native};
use crate::weights::Weights;
use crate::{ModelConfig, ModelError};
use posttrain_kernel::Heads;
use posttrain_tensor::SharedTensor;
use tch::Tensor;

/// Norms of every query and key head of a block, before they are rotated to their positions.
#[derive(Debug)]
pub(crate) struct HeadNorms {
    heads: Heads,
    query: SharedTensor,
    key: SharedTensor,
    /// `[heads + kv_heads, d]`: the weight of every head that is normed.
    weights: SharedTensor,
    eps: f64,
}

impl HeadNorms {
    /// Those of block `layer`, if the model has them.
    pub fn load(
        config: &ModelConfig,
        layer: i64,
        weights: &mut Weights,
    ) -> Result<Option<Self>, ModelError> {
        if !config.head_norms {
            return Ok(None);
        }

        let mut take = |name: &str| {
            weights
                .take(&format!("model.layers.{layer}.self_attn.{name}.weight"), &[config.head_dim])
        };
        let heads = crate::block::heads(config);
        let query = take("q_norm")?;
        let key = take("k_norm")?;

        let of = |weight: &Tensor, heads: usize| {
            weight.f_unsqueeze(0)?.f_expand([heads as i64, -1], false)
        };
        let weights = Tensor::f_cat(&[of(&query, heads.query)?, of(&key, heads.key_value)?], 0)?;

        Ok(Some(Self {
            heads,
            query: query.into(),
            key: key.into(),
            weights: weights.into(),
            eps: config.rms_norm_eps,
        }))
    }

    /// The norms' weights of queries and of keys, `[d]` each.
    pub fn weights(&self) -> [Tensor; 2] {
        [self.query.handle(), self.key.handle()]
    }

    /// `qkv: [N, (heads + 2·kv_heads)·d]` with its query and key heads normed. Gradients flow.
    pub fn forward(&self, qkv: &Tensor) -> Result<Tensor, ModelError> {
        if native(qkv) {
            return Ok(self.kernel().forward(qkv)?);
        }

        let Heads { query, key_value, width } = self.heads;
        let sizes = [(query + key_value) as i64, key_value as i64];
        let parts =
            qkv.f_reshape([-1, sizes.iter().sum(), width as i64])?.f_split_with_sizes(sizes, 1)?;
        // As in transformers, the norm is rounded before it is weighted.
        let normed =
            parts[0].f_rms_norm([width as i64], None::<&Tensor>, self.eps)?.f_mul(&self.weights)?;
        Ok(Tensor::f_cat(&[&normed, &parts[1]], 1)?.f_flatten(1, 2)?)
    }

    /// The gradient by `qkv` from that by what [`HeadNorms::forward`] gave.
    pub fn backward(&self, qkv: &Tensor, gradient: &Tensor) -> Result<Tensor, ModelError> {
        if native(qkv) {
            return Ok(self.kernel().backward(qkv, &gradient.f_contiguous()?)?);
        }
        by_autograd(qkv, gradient, |qkv| self.forward(qkv))
    }

    fn kernel(&self) -> posttrain_kernel::HeadNorms<'_> {
        posttrain_kernel::HeadNorms {
            heads: self.heads,
            query: &self.query,
            key: &self.key,
            eps: self.eps,
        }
    }
}
