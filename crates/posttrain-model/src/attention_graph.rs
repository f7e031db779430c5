//! Attention that can be walked back: by the native kernel where there is one, by autograd
//! elsewhere.

use crate::block::{backward_from, native};
use crate::rope::Rotation;
use crate::{Attend, ModelError, PackedAttention, Projected};
use posttrain_kernel::{
    Heads, PackedOutput, PackedStep, PackedText, attend_packed, attend_packed_backward,
};
use std::sync::Arc;
use tch::Tensor;

/// A layer's attention, from its projections on.
#[derive(Debug)]
pub(crate) enum AttentionGraph {
    /// By the native kernel, whose backward pass is written out.
    Native(NativeAttention),
    /// By libtorch: the leaf that the gradient comes out at, and the end of autograd's graph.
    Autograd { qkv: Tensor, attended: Tensor },
}

impl AttentionGraph {
    /// Attends from `qkv: [N, (heads + 2·kv_heads)·d]`.
    pub fn forward(
        projected: &Projected,
        attention: &mut PackedAttention,
    ) -> Result<Self, ModelError> {
        let texts = attention.texts()?;
        if native(&projected.qkv) {
            return Ok(Self::Native(NativeAttention::forward(projected, texts)?));
        }

        let qkv = projected.qkv.f_detach()?.f_set_requires_grad(true)?;
        let leaf = Projected { qkv: qkv.shallow_clone(), ..*projected };
        Ok(Self::Autograd { qkv, attended: tch::with_grad(|| attention.attend(0, &leaf))? })
    }

    /// The attended values `[N, heads·d]`, without a graph.
    pub fn attended(&self) -> Result<Tensor, ModelError> {
        match self {
            Self::Native(native) => Ok(native.attended.out.shallow_clone()),
            Self::Autograd { attended, .. } => Ok(attended.f_detach()?),
        }
    }

    /// The gradient by the projections from that by the attended values.
    pub fn backward(&self, gradient: &Tensor) -> Result<Tensor, ModelError> {
        match self {
            Self::Native(native) => native.backward(gradient),
            Self::Autograd { qkv, attended } => {
                backward_from(attended, gradient)?;
                Ok(qkv.f_grad()?)
            }
        }
    }
}

/// A layer's attention by the native kernel, and what its backward pass needs.
#[derive(Debug)]
pub(crate) struct NativeAttention {
    qkv: Tensor,
    heads: Heads,
    rotation: Rotation,
    texts: Arc<[PackedText]>,
    pub attended: PackedOutput,
}

impl NativeAttention {
    /// Attention of projections that [`native`] kernels can take.
    pub fn forward(projected: &Projected, texts: Arc<[PackedText]>) -> Result<Self, ModelError> {
        let heads = projected.heads;
        let rotation = projected.rotation.clone();
        let qkv = projected.qkv.f_contiguous()?;

        let [cos, sin] = &rotation.tables()?;
        let attended = attend_packed(&PackedStep { heads, qkv: &qkv, cos, sin, texts: &texts })?;
        Ok(Self { qkv, heads, rotation, texts, attended })
    }

    /// The gradient by the projections from that by the attended values.
    pub fn backward(&self, gradient: &Tensor) -> Result<Tensor, ModelError> {
        let [cos, sin] = &self.rotation.tables()?;
        let step = PackedStep { heads: self.heads, qkv: &self.qkv, cos, sin, texts: &self.texts };
        Ok(attend_packed_backward(&step, &self.attended, &gradient.f_contiguous()?)?)
    }
}
