//! One block of a decoder: attention and feed-forward, each behind a norm.

use crate::attention_graph::AttentionGraph;
use crate::feed_forward::{FeedForward, FeedForwardKept};
use crate::frozen_linear::FrozenLinear;
use crate::head_norms::HeadNorms;
use crate::linears::{Bias, Linears};
use crate::recording::BlockActivations;
use crate::rope::Rotation;
use crate::{
    Attend, AttentionBias, ModelConfig, ModelError, PackedAttention, Projected, feed_forward,
};
use posttrain_kernel::Heads;
use posttrain_lora::{Adapter, AdapterGradients, ModuleSpec, RowAdapters, ThinProducts};
use posttrain_tensor::SharedTensor;
use tch::{Device, Kind, Tensor};

/// A pre-norm block: `x + attention(norm(x))`, then `x + feed_forward(norm(x))`.
#[derive(Debug)]
pub(crate) struct Block {
    index: usize,
    heads: Heads,
    input_norm: SharedTensor,
    qkv: FrozenLinear,
    head_norms: Option<HeadNorms>,
    output: FrozenLinear,
    post_norm: SharedTensor,
    feed_forward: FeedForward,
    eps: f64,
}

/// What a block's forward pass keeps for its backward pass. Norms are computed anew: they cost less
/// than the memory to keep them.
#[derive(Debug)]
pub(crate) struct Kept {
    heads: AttentionGraph,
    /// The projections before the norms of heads, where the model has those.
    unnormed: Option<Tensor>,
    qkv_thin: Option<ThinProducts>,
    output_thin: Option<ThinProducts>,
    /// `[N, H]`: the residual stream between attention and feed-forward.
    middle: Tensor,
    feed_forward: FeedForwardKept,
}

/// The linear layers of block `index` with their sizes, in the order in which adapters count them.
pub(crate) fn modules(config: &ModelConfig, index: i64) -> Vec<ModuleSpec> {
    let hidden = config.hidden_size;
    let query = config.num_attention_heads * config.head_dim;
    let key_value = config.num_key_value_heads * config.head_dim;

    let attention = [
        ("q_proj", hidden, query),
        ("k_proj", hidden, key_value),
        ("v_proj", hidden, key_value),
        ("o_proj", query, hidden),
    ];

    let spec = |(name, input, output)| {
        ModuleSpec::new(format!("model.layers.{index}.self_attn.{name}"), input, output)
    };
    attention.into_iter().map(spec).chain(feed_forward::modules(config, index)).collect()
}

/// The heads of every block's attention.
pub(crate) fn heads(config: &ModelConfig) -> Heads {
    Heads {
        query: config.num_attention_heads as usize,
        key_value: config.num_key_value_heads as usize,
        width: config.head_dim as usize,
    }
}

impl Block {
    pub fn load(
        config: &ModelConfig,
        index: i64,
        linears: &mut Linears,
    ) -> Result<Self, ModelError> {
        let specs = modules(config, index);
        let (qkv_bias, output_bias) = match config.attention_bias {
            AttentionBias::None => (Bias::Without, Bias::Without),
            AttentionBias::QueryKeyValue => (Bias::With, Bias::Without),
            AttentionBias::All => (Bias::With, Bias::With),
        };

        // In the order of `modules`, by which each layer is given its place.
        let qkv = linears.fused(&specs[..3], qkv_bias)?;
        let output = linears.fused(&specs[3..4], output_bias)?;
        let head_norms = HeadNorms::load(config, index, linears.weights())?;
        let feed_forward = FeedForward::load(config, index, linears)?;

        let mut norm = |name: &str| {
            linears
                .weights()
                .take(&format!("model.layers.{index}.{name}.weight"), &[config.hidden_size])
        };
        Ok(Self {
            index: index as usize,
            heads: heads(config),
            input_norm: norm("input_layernorm")?.into(),
            post_norm: norm("post_attention_layernorm")?.into(),
            qkv,
            head_norms,
            output,
            feed_forward,
            eps: config.rms_norm_eps,
        })
    }

    /// `x: [N, H]` through the block, and what a backward pass can start from, where the block can
    /// record it.
    pub fn forward(
        &self,
        x: Tensor,
        rotation: &Rotation,
        attention: &mut dyn Attend,
        adapters: &RowAdapters,
    ) -> Result<(Tensor, Option<BlockActivations>), ModelError> {
        let qkv = self.qkv.forward(&rms_norm(&x, &self.input_norm, self.eps)?, adapters)?;
        let normed = self
            .head_norms
            .as_ref()
            .map_or(Ok(qkv.shallow_clone()), |norms| norms.forward(&qkv))?;
        let projected = Projected { qkv: normed, heads: self.heads, rotation };
        let attended = attention.attend(self.index, &projected)?;
        let middle = x.f_add(&self.output.forward(&attended, adapters)?)?;

        let normed = rms_norm(&middle, &self.post_norm, self.eps)?;
        let (out, gate_up) = self.feed_forward.forward(&normed, adapters)?;
        let out = middle.f_add(&out)?;

        let activations = gate_up.map(|gate_up| BlockActivations {
            x: x.into(),
            qkv: qkv.into(),
            middle: middle.into(),
            gate_up: gate_up.into(),
        });
        Ok((out, activations))
    }

    /// `x: [N, H]` through the block, and what [`Block::backward`] needs besides `x`.
    pub fn forward_keeping(
        &self,
        x: &Tensor,
        rotation: &Rotation,
        attention: &mut PackedAttention,
        adapters: &RowAdapters,
    ) -> Result<(Tensor, Kept), ModelError> {
        let (qkv, qkv_thin) =
            self.qkv.forward_keeping(&rms_norm(x, &self.input_norm, self.eps)?, adapters)?;
        let (qkv, unnormed) = match &self.head_norms {
            Some(norms) => (norms.forward(&qkv)?, Some(qkv)),
            None => (qkv, None),
        };

        let heads =
            AttentionGraph::forward(&Projected { qkv, heads: self.heads, rotation }, attention)?;
        let (output, output_thin) = self.output.forward_keeping(&heads.attended()?, adapters)?;
        let middle = x.f_add(&output)?;

        let normed = rms_norm(&middle, &self.post_norm, self.eps)?;
        let (mut out, feed_forward) = self.feed_forward.forward_keeping(&normed, adapters)?;
        let _ = out.f_add_(&middle)?;

        let kept = Kept {
            heads,
            unnormed,
            qkv_thin: Some(qkv_thin),
            output_thin: Some(output_thin),
            middle,
            feed_forward,
        };
        Ok((out, kept))
    }

    /// The block's input, and what [`Block::backward`] needs besides, from what a forward pass
    /// recorded. Attention and the adapter's thin products are computed again.
    pub fn keep_recorded(
        &self,
        recorded: &BlockActivations,
        rotation: &Rotation,
        attention: &mut PackedAttention,
    ) -> Result<(Tensor, Kept), ModelError> {
        let qkv = recorded.qkv.handle();
        let (qkv, unnormed) = match &self.head_norms {
            Some(norms) => (norms.forward(&qkv)?, Some(qkv)),
            None => (qkv, None),
        };
        let heads =
            AttentionGraph::forward(&Projected { qkv, heads: self.heads, rotation }, attention)?;
        let feed_forward = FeedForwardKept::gated(recorded.gate_up.handle());

        let kept = Kept {
            heads,
            unnormed,
            qkv_thin: None,
            output_thin: None,
            middle: recorded.middle.handle(),
            feed_forward,
        };
        Ok((recorded.x.handle(), kept))
    }

    /// The gradient by `x` from that by the block's output; the gradients of each run's adapter are
    /// added to its place in `sums`.
    pub fn backward(
        &self,
        x: &Tensor,
        kept: Kept,
        gradient: &Tensor,
        adapters: &RowAdapters,
        sums: &mut [AdapterGradients],
    ) -> Result<Tensor, ModelError> {
        let Kept { heads, unnormed, qkv_thin, output_thin, middle, feed_forward } = kept;

        let normed = rms_norm(&middle, &self.post_norm, self.eps)?;
        let by_normed =
            self.feed_forward.backward(&normed, &feed_forward, gradient, adapters, sums)?;
        let by_middle =
            rms_norm_backward(&middle, &self.post_norm, self.eps, &by_normed, gradient)?;

        let by_attended = self.output.backward(
            &heads.attended()?,
            output_thin.as_ref(),
            &by_middle,
            adapters,
            sums,
        )?;
        let by_heads = heads.backward(&by_attended)?;
        let by_qkv = match (&self.head_norms, &unnormed) {
            (Some(norms), Some(qkv)) => norms.backward(qkv, &by_heads)?,
            _ => by_heads,
        };

        let normed = rms_norm(x, &self.input_norm, self.eps)?;
        let by_normed = self.qkv.backward(&normed, qkv_thin.as_ref(), &by_qkv, adapters, sums)?;
        rms_norm_backward(x, &self.input_norm, self.eps, &by_normed, &by_middle)
    }

    /// Adds every weight of the block by its name, an adapter folded in.
    pub fn collect_weights(
        &self,
        modules: &[ModuleSpec],
        adapter: Option<&Adapter>,
        weights: &mut Vec<(String, Tensor)>,
    ) -> Result<(), ModelError> {
        for linear in [&self.qkv, &self.output].into_iter().chain(self.feed_forward.linears()) {
            for part in linear.merged_parts(adapter)? {
                let path = &modules[part.module].path;
                weights.push((format!("{path}.weight"), part.weight));
                weights.extend(part.bias.map(|bias| (format!("{path}.bias"), bias)));
            }
        }

        let path = format!("model.layers.{}", self.index);
        weights.push((format!("{path}.input_layernorm.weight"), self.input_norm.handle()));
        weights.push((format!("{path}.post_attention_layernorm.weight"), self.post_norm.handle()));
        if let Some(norms) = &self.head_norms {
            let [query, key] = norms.weights();
            weights.push((format!("{path}.self_attn.q_norm.weight"), query));
            weights.push((format!("{path}.self_attn.k_norm.weight"), key));
        }
        if let Some(router) = self.feed_forward.router_weight() {
            weights.push((
                format!("{path}.mlp.gate.weight"),
                router.f_to_kind(self.input_norm.kind())?,
            ));
        }
        Ok(())
    }

    pub fn linears_mut(&mut self) -> Vec<&mut FrozenLinear> {
        let mut all = vec![&mut self.qkv, &mut self.output];
        all.extend(self.feed_forward.linears_mut());
        all
    }
}

/// `x / √(mean(x²) + ε) · weight` over the last dimension of `x: [N, H]`.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor, ModelError> {
    if native(x) {
        return Ok(posttrain_kernel::rms_norm(x, weight, eps)?);
    }
    Ok(x.f_rms_norm(weight.size(), Some(weight), eps)?)
}

/// The backward pass of [`rms_norm`], added to `into`.
pub(crate) fn rms_norm_backward(
    x: &Tensor,
    weight: &Tensor,
    eps: f64,
    gradient: &Tensor,
    into: &Tensor,
) -> Result<Tensor, ModelError> {
    if native(x) {
        return Ok(posttrain_kernel::rms_norm_backward(x, weight, eps, gradient, into)?);
    }
    Ok(by_autograd(x, gradient, |x| Ok(x.f_rms_norm(weight.size(), Some(weight), eps)?))?
        .f_add(into)?)
}

/// The gradient by `x` from that by `f(x)`, where there is no native kernel.
pub(crate) fn by_autograd(
    x: &Tensor,
    gradient: &Tensor,
    f: impl FnOnce(&Tensor) -> Result<Tensor, ModelError>,
) -> Result<Tensor, ModelError> {
    let leaf = x.f_detach()?.f_set_requires_grad(true)?;
    backward_from(&tch::with_grad(|| f(&leaf))?, gradient)?;
    Ok(leaf.f_grad()?)
}

/// Starts autograd at `output` with the gradient that has reached it.
pub(crate) fn backward_from(output: &Tensor, gradient: &Tensor) -> Result<(), ModelError> {
    Ok(tch::with_grad(|| output.f_mul(gradient)?.f_sum(output.kind())?.f_backward())?)
}

/// Whether the native kernels, which have no backward pass and live on the CPU, can take a tensor.
pub(crate) fn native(x: &Tensor) -> bool {
    let laid = x.is_contiguous() || x.tr().is_contiguous();
    x.device() == Device::Cpu
        && !x.requires_grad()
        && matches!(x.kind(), Kind::Float | Kind::BFloat16)
        && laid
}
