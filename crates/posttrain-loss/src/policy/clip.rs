//! PPO's clipped surrogate: no reward for moving a token's ratio beyond its bounds.

use super::kernel::{Term, Token, TokenLoss};
use super::tensor::TensorLoss;
use tch::{TchError, Tensor};

/// `−min(ratio · A, clamp(ratio, low, high) · A)`.
pub(super) struct Clip {
    /// The smallest ratio followed.
    pub(super) low: f32,
    /// The largest ratio followed.
    pub(super) high: f32,
}

impl Clip {
    /// The same by distances from 1.
    pub(super) fn around_one(low: f32, high: f32) -> Self {
        Self { low: 1.0 - low, high: 1.0 + high }
    }
}

impl TokenLoss for Clip {
    #[inline(always)]
    fn term<const FMA: bool>(&self, Token { ratio, advantage, .. }: Token) -> Term {
        let above = if ratio > self.high { self.high } else { ratio };
        let within = if above < self.low { self.low } else { above };
        let free = ratio * advantage;
        let bound = within * advantage;
        let clipped = free > bound;

        // Where the bound is smaller the loss is constant in the ratio.
        Term {
            loss: if clipped { -bound } else { -free },
            gradient: if clipped { 0.0 } else { -free },
            clipped,
        }
    }
}

impl TensorLoss for Clip {
    fn terms(&self, ratio: &Tensor, advantages: &Tensor) -> Result<[Tensor; 3], TchError> {
        let free = ratio.f_mul(advantages)?;
        let bound = ratio.f_clamp(f64::from(self.low), f64::from(self.high))?.f_mul(advantages)?;
        let clipped = free.f_gt_tensor(&bound)?;
        let loss = free.f_minimum(&bound)?.f_neg()?;
        Ok([loss, free.f_neg()?.f_masked_fill(&clipped, 0.0)?, clipped])
    }
}

/// The clipped surrogate, and where `A < 0` no more than `−ratio_max · A`.
pub(super) struct DualClip {
    pub(super) clip: Clip,
    pub(super) ratio_max: f32,
}

impl TokenLoss for DualClip {
    #[inline(always)]
    fn term<const FMA: bool>(&self, token: Token) -> Term {
        let term = self.clip.term::<FMA>(token);
        let most = -self.ratio_max * token.advantage;
        let capped = (token.advantage < 0.0) & (term.loss > most);
        Term {
            loss: if capped { most } else { term.loss },
            gradient: if capped { 0.0 } else { term.gradient },
            clipped: term.clipped | capped,
        }
    }
}
