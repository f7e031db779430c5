//! A block's feed-forward part: one gated layer for all tokens, or experts.

use crate::block::native;
use crate::experts::{Experts, ExpertsKept};
use crate::frozen_linear::FrozenLinear;
use crate::linears::{Bias, Linears};
use crate::{ModelConfig, ModelError};
use posttrain_lora::{AdapterGradients, ModuleSpec, RowAdapters, ThinProducts};
use tch::Tensor;

/// What stands behind a block's second norm.
#[derive(Debug)]
pub(crate) enum FeedForward {
    Gated(Gated),
    Experts(Experts),
}

/// What the forward pass keeps for the way back.
#[derive(Debug)]
pub(crate) enum FeedForwardKept {
    Gated(GatedKept),
    Experts(ExpertsKept),
}

/// The linear layers of layer `layer`'s feed-forward part.
pub(crate) fn modules(config: &ModelConfig, layer: i64) -> Vec<ModuleSpec> {
    let path = format!("model.layers.{layer}.mlp");
    match config.experts_of(layer) {
        None => gated_modules(&path, config.hidden_size, config.intermediate_size).into(),
        Some(experts) => (0..experts.count)
            .flat_map(|n| {
                gated_modules(
                    &format!("{path}.experts.{n}"),
                    config.hidden_size,
                    experts.intermediate_size,
                )
            })
            .map(ModuleSpec::routed)
            .collect(),
    }
}

fn gated_modules(path: &str, hidden: i64, wide: i64) -> [ModuleSpec; 3] {
    let spec = |name: &str, input, output| ModuleSpec::new(format!("{path}.{name}"), input, output);
    [
        spec("gate_proj", hidden, wide),
        spec("up_proj", hidden, wide),
        spec("down_proj", wide, hidden),
    ]
}

impl FeedForward {
    pub fn load(
        config: &ModelConfig,
        layer: i64,
        linears: &mut Linears,
    ) -> Result<Self, ModelError> {
        let specs = modules(config, layer);
        match config.experts_of(layer) {
            None => Ok(Self::Gated(Gated::load(&specs, linears)?)),
            Some(experts) => Ok(Self::Experts(Experts::load(config, experts, layer, linears)?)),
        }
    }

    /// `x: [N, H]`, normed, through the layer; and what went into a gated layer's gate.
    pub fn forward(
        &self,
        x: &Tensor,
        adapters: &RowAdapters,
    ) -> Result<(Tensor, Option<Tensor>), ModelError> {
        match self {
            Self::Gated(gated) => {
                gated.forward(x, adapters).map(|(out, gate_up)| (out, Some(gate_up)))
            }
            Self::Experts(experts) => experts.forward(x, adapters).map(|out| (out, None)),
        }
    }

    /// The same, and what [`FeedForward::backward`] needs besides `x`.
    pub fn forward_keeping(
        &self,
        x: &Tensor,
        adapters: &RowAdapters,
    ) -> Result<(Tensor, FeedForwardKept), ModelError> {
        Ok(match self {
            Self::Gated(gated) => {
                let (out, kept) = gated.forward_keeping(x, adapters)?;
                (out, FeedForwardKept::Gated(kept))
            }
            Self::Experts(experts) => {
                let (out, kept) = experts.forward_keeping(x, adapters)?;
                (out, FeedForwardKept::Experts(kept))
            }
        })
    }

    /// The gradient by `x` from that by the output; each run's are added to its place in `sums`.
    pub fn backward(
        &self,
        x: &Tensor,
        kept: &FeedForwardKept,
        gradient: &Tensor,
        adapters: &RowAdapters,
        sums: &mut [AdapterGradients],
    ) -> Result<Tensor, ModelError> {
        match (self, kept) {
            (Self::Gated(gated), FeedForwardKept::Gated(kept)) => {
                gated.backward(x, kept, gradient, adapters, sums)
            }
            (Self::Experts(experts), FeedForwardKept::Experts(kept)) => {
                experts.backward(x, kept, gradient, adapters, sums)
            }
            _ => unreachable!("a layer keeps what is its own"),
        }
    }

    /// Its linear layers.
    pub fn linears(&self) -> Vec<&FrozenLinear> {
        match self {
            Self::Gated(gated) => gated.linears().into(),
            Self::Experts(experts) => experts.linears(),
        }
    }

    /// The weight of the router of experts, `[E, H]` f32, where there is one.
    pub fn router_weight(&self) -> Option<Tensor> {
        match self {
            Self::Gated(_) => None,
            Self::Experts(experts) => Some(experts.router_weight()),
        }
    }

    pub fn linears_mut(&mut self) -> Vec<&mut FrozenLinear> {
        match self {
            Self::Gated(gated) => gated.linears_mut().into(),
            Self::Experts(experts) => experts.linears_mut(),
        }
    }
}

/// `down(silu(gate(x)) · up(x))`: a feed-forward layer, or one expert.
#[derive(Debug)]
pub(crate) struct Gated {
    gate_up: FrozenLinear,
    down: FrozenLinear,
}

/// What a gated layer keeps. The gate's output is computed anew: it costs less than the memory to
/// keep it.
#[derive(Debug)]
pub(crate) struct GatedKept {
    gate_up: Tensor,
    thin: Option<GatedThin>,
}

#[derive(Debug)]
struct GatedThin {
    gate_up: ThinProducts,
    down: ThinProducts,
}

impl FeedForwardKept {
    /// What a gated layer's backward pass needs, from what went into its gate.
    pub fn gated(gate_up: Tensor) -> Self {
        Self::Gated(GatedKept { gate_up, thin: None })
    }
}

impl Gated {
    /// From its three modules: gate, up, down.
    pub fn load(specs: &[ModuleSpec], linears: &mut Linears) -> Result<Self, ModelError> {
        Ok(Self {
            gate_up: linears.fused(&specs[..2], Bias::Without)?,
            down: linears.fused(&specs[2..], Bias::Without)?,
        })
    }

    /// `x: [N, H]` through the layer, and what went into its gate.
    pub fn forward(
        &self,
        x: &Tensor,
        adapters: &RowAdapters,
    ) -> Result<(Tensor, Tensor), ModelError> {
        let gate_up = self.gate_up.forward(x, adapters)?;
        Ok((self.down.forward(&swiglu(&gate_up)?, adapters)?, gate_up))
    }

    pub fn forward_keeping(
        &self,
        x: &Tensor,
        adapters: &RowAdapters,
    ) -> Result<(Tensor, GatedKept), ModelError> {
        let (gate_up, gate_up_thin) = self.gate_up.forward_keeping(x, adapters)?;
        let (out, down_thin) = self.down.forward_keeping(&swiglu(&gate_up)?, adapters)?;
        Ok((
            out,
            GatedKept { gate_up, thin: Some(GatedThin { gate_up: gate_up_thin, down: down_thin }) },
        ))
    }

    pub fn backward(
        &self,
        x: &Tensor,
        kept: &GatedKept,
        gradient: &Tensor,
        adapters: &RowAdapters,
        sums: &mut [AdapterGradients],
    ) -> Result<Tensor, ModelError> {
        let GatedKept { gate_up, thin } = kept;
        let down_thin = thin.as_ref().map(|thin| &thin.down);
        let by_gated =
            self.down.backward(&swiglu(gate_up)?, down_thin, gradient, adapters, sums)?;
        let by_gate_up = swiglu_backward(gate_up, &by_gated)?;
        self.gate_up.backward(
            x,
            thin.as_ref().map(|thin| &thin.gate_up),
            &by_gate_up,
            adapters,
            sums,
        )
    }

    pub fn linears(&self) -> [&FrozenLinear; 2] {
        [&self.gate_up, &self.down]
    }

    pub fn linears_mut(&mut self) -> [&mut FrozenLinear; 2] {
        [&mut self.gate_up, &mut self.down]
    }
}

/// `silu(gate) · up` for `gate_up: [N, 2I]`.
fn swiglu(gate_up: &Tensor) -> Result<Tensor, ModelError> {
    if native(gate_up) {
        return Ok(posttrain_kernel::swiglu(gate_up)?);
    }
    let halves = gate_up.f_chunk(2, -1)?;
    Ok(halves[0].f_silu()?.f_mul(&halves[1])?)
}

fn swiglu_backward(gate_up: &Tensor, gradient: &Tensor) -> Result<Tensor, ModelError> {
    if native(gate_up) {
        return Ok(posttrain_kernel::swiglu_backward(gate_up, gradient)?);
    }

    let halves = gate_up.f_chunk(2, -1)?;
    let (gate, up) = (&halves[0], &halves[1]);
    let by_gate = gate.f_silu_backward(&gradient.f_mul(up)?)?;
    Ok(Tensor::f_cat(&[by_gate, gate.f_silu()?.f_mul(gradient)?], -1)?)
}
