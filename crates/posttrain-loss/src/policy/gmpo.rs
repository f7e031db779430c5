//! GMPO: the geometric mean of a sequence's bounded ratios.

use super::kernel::{Term, Token, TokenLoss};

/// `−g · A`, where `g` is the exponential of the mean of [`bounded`](Gmpo::bounded) over the
/// sequence.
#[derive(Clone, Copy)]
pub(super) struct Gmpo {
    /// How far below 0 a log-ratio counts.
    pub(super) low: f32,
    /// How far above 0 a log-ratio counts.
    pub(super) high: f32,
}

impl Gmpo {
    /// A log-ratio as it enters the mean: no further than its bound in the direction that the
    /// advantage pushes it.
    pub(super) fn bounded(self, log_ratio: f32, advantage: f32) -> f32 {
        if advantage > 0.0 {
            log_ratio.min(self.high)
        } else if advantage < 0.0 {
            log_ratio.max(-self.low)
        } else {
            0.0
        }
    }
}

impl TokenLoss for Gmpo {
    #[inline(always)]
    fn term<const FMA: bool>(&self, Token { ratio, log_ratio, advantage, .. }: Token) -> Term {
        let above = (advantage > 0.0) & (log_ratio > self.high);
        let below = (advantage < 0.0) & (log_ratio < -self.low);
        let loss = -ratio * advantage;
        // A bounded log-ratio is a constant in the mean.
        Term { loss, gradient: if above | below { 0.0 } else { loss }, clipped: above | below }
    }
}
