//! Importance sampling: the policy gradient under the policy that sampled, each token weighted by
//! its ratio.

use super::kernel::{Term, Token, TokenLoss};
use super::tensor::TensorLoss;
use tch::{TchError, Tensor};

/// `−min(ratio, cap) · A`, the gradient taken of the ratio alone.
pub(super) struct ImportanceSampling {
    /// The largest weight; infinite for none.
    pub(super) cap: f32,
}

impl TokenLoss for ImportanceSampling {
    #[inline(always)]
    fn term<const FMA: bool>(&self, token: Token) -> Term {
        let clipped = token.ratio > self.cap;
        let weight = if clipped { self.cap } else { token.ratio };
        // d ratio / d logprob = ratio, and the cap only scales: value and gradient are one number.
        let loss = -weight * token.advantage;
        Term { loss, gradient: loss, clipped }
    }
}

impl TensorLoss for ImportanceSampling {
    fn terms(&self, ratio: &Tensor, advantages: &Tensor) -> Result<[Tensor; 3], TchError> {
        let cap = f64::from(self.cap);
        let loss = ratio.f_clamp_max(cap)?.f_mul(advantages)?.f_neg()?;
        Ok([loss.shallow_clone(), loss, ratio.f_gt(cap)?])
    }
}
