//! PPO's clipped surrogate: no reward for moving a token's ratio beyond its bounds.

use super::kernel::{Term, TokenLoss};
use tch::{TchError, Tensor};

/// `−min(ratio · A, clamp(ratio, low, high) · A)`.
pub(super) struct PpoClip {
    /// The smallest ratio followed, `1 − clip_low`.
    pub(super) low: f32,
    /// The largest ratio followed, `1 + clip_high`.
    pub(super) high: f32,
}

impl TokenLoss for PpoClip {
    #[inline(always)]
    fn term(&self, ratio: f32, advantage: f32) -> Term {
        let above = if ratio > self.high { self.high } else { ratio };
        let within = if above < self.low { self.low } else { above };
        let (free, bound) = (ratio * advantage, within * advantage);
        let clipped = free > bound;
        // Where the bound is smaller the loss is constant in the ratio.
        Term { loss: if clipped { -bound } else { -free }, gradient: if clipped { 0.0 } else { -free }, clipped }
    }

    fn terms(&self, ratio: &Tensor, advantages: &Tensor) -> Result<[Tensor; 3], TchError> {
        let free = ratio.f_mul(advantages)?;
        let bound = ratio.f_clamp(f64::from(self.low), f64::from(self.high))?.f_mul(advantages)?;
        let clipped = free.f_gt_tensor(&bound)?;
        let loss = free.f_minimum(&bound)?.f_neg()?;
        Ok([loss, free.f_neg()?.f_masked_fill(&clipped, 0.0)?, clipped])
    }
}
