//! One block of a decoder: attention and feed-forward, each behind a norm.

use crate::attention_graph::AttentionGraph;
use crate::rope::Rotation;
use crate::weights::Weights;
use crate::{Attend, ModelConfig, ModelError, PackedAttention, Projected};
use posttrain_kernel::Heads;
use posttrain_lora::{AdaptedLinear, AdapterGradients, AdapterView, ModuleSpec, RowAdapters, ThinProducts};
use tch::{Device, Kind, Tensor};

/// The linear layers of a block, in the order in which adapters count them: name and the part of the model it is in.
const LINEARS: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// A pre-norm block: `x + attention(norm(x))`, then `x + feed_forward(norm(x))`.
#[derive(Debug)]
pub(crate) struct Block {
    index: usize,
    heads: Heads,
    input_norm: Tensor,
    qkv: AdaptedLinear,
    output: AdaptedLinear,
    post_norm: Tensor,
    gate_up: AdaptedLinear,
    down: AdaptedLinear,
    eps: f64,
}

/// What a block's forward pass keeps for its backward pass. Norms and gates are computed anew: they cost less than the
/// memory to keep them.
#[derive(Debug)]
pub(crate) struct Kept {
    heads: AttentionGraph,
    qkv_thin: ThinProducts,
    output_thin: ThinProducts,
    /// `[N, H]`: the residual stream between attention and feed-forward.
    middle: Tensor,
    gate_up: Tensor,
    gate_up_thin: ThinProducts,
    down_thin: ThinProducts,
}

/// The linear layers of block `index` with their sizes.
pub(crate) fn modules(config: &ModelConfig, index: i64) -> Vec<ModuleSpec> {
    let (hidden, wide) = (config.hidden_size, config.intermediate_size);
    let query = config.num_attention_heads * config.head_dim;
    let key_value = config.num_key_value_heads * config.head_dim;
    let sizes = [
        (hidden, query),
        (hidden, key_value),
        (hidden, key_value),
        (query, hidden),
        (hidden, wide),
        (hidden, wide),
        (wide, hidden),
    ];
    let spec = |(name, (input, output))| ModuleSpec::new(format!("model.layers.{index}.{name}"), input, output);
    LINEARS.into_iter().zip(sizes).map(spec).collect()
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
    pub fn load(config: &ModelConfig, index: i64, weights: &mut Weights) -> Result<Self, ModelError> {
        let specs = modules(config, index);
        let first = index as usize * specs.len();
        let mut fused = |range: std::ops::Range<usize>| -> Result<AdaptedLinear, ModelError> {
            let mut rows = Vec::with_capacity(range.len());
            for spec in &specs[range.clone()] {
                let shape = [spec.out_features, spec.in_features];
                rows.push(weights.take(&format!("{}.weight", spec.path), &shape)?);
            }
            let parts = range.map(|i| (first + i, specs[i].out_features)).collect();
            let weight = if rows.len() == 1 { rows.remove(0) } else { Tensor::f_cat(&rows, 0)? };
            Ok(AdaptedLinear::new(weight, None, parts)?)
        };
        let (qkv, output, gate_up, down) = (fused(0..3)?, fused(3..4)?, fused(4..6)?, fused(6..7)?);
        let mut norm = |name: &str| weights.take(&format!("model.layers.{index}.{name}.weight"), &[config.hidden_size]);
        Ok(Self {
            index: index as usize,
            heads: heads(config),
            input_norm: norm("input_layernorm")?,
            post_norm: norm("post_attention_layernorm")?,
            qkv,
            output,
            gate_up,
            down,
            eps: config.rms_norm_eps,
        })
    }

    /// `x: [N, H]` through the block.
    pub fn forward(
        &self,
        x: &Tensor,
        rotation: &Rotation,
        attention: &mut dyn Attend,
        adapters: &RowAdapters,
    ) -> Result<Tensor, ModelError> {
        let normed = rms_norm(x, &self.input_norm, self.eps)?;
        let x = x.f_add(&self.attention(&normed, rotation, attention, adapters)?)?;
        let normed = rms_norm(&x, &self.post_norm, self.eps)?;
        Ok(x.f_add(&self.feed_forward(&normed, adapters)?)?)
    }

    fn attention(
        &self,
        x: &Tensor,
        rotation: &Rotation,
        attention: &mut dyn Attend,
        adapters: &RowAdapters,
    ) -> Result<Tensor, ModelError> {
        let projected = Projected { qkv: self.qkv.forward(x, adapters)?, heads: self.heads, rotation };
        let attended = attention.attend(self.index, &projected)?;
        Ok(self.output.forward(&attended, adapters)?)
    }

    fn feed_forward(&self, x: &Tensor, adapters: &RowAdapters) -> Result<Tensor, ModelError> {
        Ok(self.down.forward(&swiglu(&self.gate_up.forward(x, adapters)?)?, adapters)?)
    }

    /// `x: [N, H]` through the block, and what [`Block::backward`] needs besides `x`.
    pub fn forward_keeping(
        &self,
        x: &Tensor,
        rotation: &Rotation,
        attention: &mut PackedAttention,
        view: &AdapterView,
    ) -> Result<(Tensor, Kept), ModelError> {
        let (qkv, qkv_thin) = self.qkv.forward_keeping(&rms_norm(x, &self.input_norm, self.eps)?, view)?;
        let heads = AttentionGraph::forward(Projected { qkv, heads: self.heads, rotation }, attention)?;
        let (output, output_thin) = self.output.forward_keeping(&heads.attended()?, view)?;
        let middle = x.f_add(&output)?;
        let normed = rms_norm(&middle, &self.post_norm, self.eps)?;
        let (gate_up, gate_up_thin) = self.gate_up.forward_keeping(&normed, view)?;
        let (mut out, down_thin) = self.down.forward_keeping(&swiglu(&gate_up)?, view)?;
        let _ = out.f_add_(&middle)?;
        Ok((out, Kept { heads, qkv_thin, output_thin, middle, gate_up, gate_up_thin, down_thin }))
    }

    /// The gradient by `x` from that by the block's output; the adapter's gradients are added to `sums`.
    pub fn backward(
        &self,
        x: &Tensor,
        kept: Kept,
        gradient: &Tensor,
        view: &AdapterView,
        sums: &mut AdapterGradients,
    ) -> Result<Tensor, ModelError> {
        let Kept { heads, qkv_thin, output_thin, middle, gate_up, gate_up_thin, down_thin } = kept;
        let by_gated = self.down.backward(&swiglu(&gate_up)?, &down_thin, gradient, view, sums)?;
        let by_gate_up = swiglu_backward(&gate_up, &by_gated)?;
        let normed = rms_norm(&middle, &self.post_norm, self.eps)?;
        let by_normed = self.gate_up.backward(&normed, &gate_up_thin, &by_gate_up, view, sums)?;
        let by_middle = rms_norm_backward(&middle, &self.post_norm, self.eps, &by_normed, gradient)?;
        let by_attended = self.output.backward(&heads.attended()?, &output_thin, &by_middle, view, sums)?;
        let normed = rms_norm(x, &self.input_norm, self.eps)?;
        let by_normed = self.qkv.backward(&normed, &qkv_thin, &heads.backward(&by_attended)?, view, sums)?;
        rms_norm_backward(x, &self.input_norm, self.eps, &by_normed, &by_middle)
    }

    /// The same block over the same memory.
    pub fn share(&self) -> Self {
        Self {
            index: self.index,
            heads: self.heads,
            input_norm: self.input_norm.shallow_clone(),
            qkv: self.qkv.share(),
            output: self.output.share(),
            post_norm: self.post_norm.shallow_clone(),
            gate_up: self.gate_up.share(),
            down: self.down.share(),
            eps: self.eps,
        }
    }

    pub fn linears_mut(&mut self) -> [&mut AdaptedLinear; 4] {
        [&mut self.qkv, &mut self.output, &mut self.gate_up, &mut self.down]
    }
}

/// `x / √(mean(x²) + ε) · weight` over the last dimension of `x: [N, H]`.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor, ModelError> {
    if native(x) {
        return Ok(posttrain_kernel::rms_norm(x, weight, eps)?);
    }
    Ok(x.f_rms_norm(weight.size(), Some(weight), eps)?)
}

/// `silu(gate) · up` for `gate_up: [N, 2I]`.
fn swiglu(gate_up: &Tensor) -> Result<Tensor, ModelError> {
    if native(gate_up) {
        return Ok(posttrain_kernel::swiglu(gate_up)?);
    }
    let halves = gate_up.f_chunk(2, -1)?;
    Ok(halves[0].f_silu()?.f_mul(&halves[1])?)
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
    Ok(by_autograd(x, gradient, |x| Ok(x.f_rms_norm(weight.size(), Some(weight), eps)?))?.f_add(into)?)
}

fn swiglu_backward(gate_up: &Tensor, gradient: &Tensor) -> Result<Tensor, ModelError> {
    if native(gate_up) {
        return Ok(posttrain_kernel::swiglu_backward(gate_up, gradient)?);
    }
    by_autograd(gate_up, gradient, swiglu)
}

/// The gradient by `x` from that by `f(x)`, where there is no native kernel.
fn by_autograd(
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
    x.device() == Device::Cpu && !x.requires_grad() && matches!(x.kind(), Kind::Float | Kind::BFloat16) && laid
}
