//! A low-rank adapter on the head: `logits += scale · (hidden · Aᵀ) · Bᵀ`.

use crate::error::LossError;
use posttrain_tensor::{TensorError, check_shape};
use tch::{Kind, TchError, Tensor};

/// A low-rank adapter beside the head's weight. Its matrices may be of another kind than the weight
/// (usually f32).
#[derive(Debug)]
pub struct HeadAdapter {
    /// `A: [R, H]`.
    pub a: Tensor,
    /// `B: [V, R]`.
    pub b: Tensor,
    /// What the product is multiplied with: `alpha / R`, or `alpha / √R` for rsLoRA.
    pub scale: f64,
}

/// The derivative of a loss by an adapter's matrices, f32.
#[derive(Debug)]
#[non_exhaustive]
pub struct HeadAdapterGradients {
    /// `[R, H]`.
    pub a: Tensor,
    /// `[V, R]`.
    pub b: Tensor,
}

impl HeadAdapter {
    pub(super) fn check(&self, weight: &Tensor) -> Result<(), LossError> {
        let (vocab, hidden) = (weight.size()[0], weight.size()[1]);
        check_shape("adapter.a", &self.a, &[-1, hidden])?;
        check_shape("adapter.b", &self.b, &[vocab, self.a.size()[0]])?;

        for (argument, tensor) in [("adapter.a", &self.a), ("adapter.b", &self.b)] {
            if tensor.device() != weight.device() {
                return Err(TensorError::Device {
                    argument,
                    expected: weight.device(),
                    got: tensor.device(),
                }
                .into());
            }
        }
        Ok(())
    }
}

/// An adapter's matrices in the kind that a pass computes in, and the gradients that it sums up.
pub(super) struct AdapterPass {
    a: Tensor,
    b: Tensor,
    scale: f64,
    pub(super) gradients: HeadAdapterGradients,
}

impl AdapterPass {
    pub(super) fn new(adapter: &HeadAdapter, kind: Kind) -> Result<Self, TchError> {
        let a = adapter.a.f_detach()?;
        let b = adapter.b.f_detach()?;
        let zeros =
            |tensor: &Tensor| Tensor::f_zeros(tensor.size(), (Kind::Float, tensor.device()));
        let gradients = HeadAdapterGradients { a: zeros(&a)?, b: zeros(&b)? };
        Ok(Self { a: a.f_to_kind(kind)?, b: b.f_to_kind(kind)?, scale: adapter.scale, gradients })
    }

    /// Adds the adapter's part to the logits of a chunk.
    pub(super) fn forward(&self, hidden: &Tensor, logits: &mut Tensor) -> Result<(), TchError> {
        logits.f_addmm_(&self.project(hidden)?, &self.b.f_tr()?).map(|_| ())
    }

    /// Adds the adapter's part to a chunk's gradient by the hidden states, and the chunk's to the
    /// adapter's own.
    pub(super) fn backward(
        &mut self,
        hidden: &Tensor,
        logits: &Tensor,
        out: &mut Tensor,
    ) -> Result<(), TchError> {
        let projected = logits.f_mm(&self.b)?.f_mul_scalar(self.scale)?;
        let _ = out.f_addmm_(&projected, &self.a)?;

        let _ =
            self.gradients.a.f_add_(&projected.f_tr()?.f_mm(hidden)?.f_to_kind(Kind::Float)?)?;

        let by_b = logits.f_tr()?.f_mm(&self.project(hidden)?)?.f_to_kind(Kind::Float)?;
        let _ = self.gradients.b.f_add_(&by_b)?;
        Ok(())
    }

    /// `scale · hidden · Aᵀ`.
    fn project(&self, hidden: &Tensor) -> Result<Tensor, TchError> {
        hidden.f_mm(&self.a.f_tr()?)?.f_mul_scalar(self.scale)
    }
}
