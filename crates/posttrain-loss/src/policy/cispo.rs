//! CISPO: the log-probability itself, weighted by a bounded ratio.

use super::kernel::{Term, Token, TokenLoss};

/// `−clamp(ratio, low, high) · A · logprob`, the clamped ratio a constant.
pub(super) struct Cispo {
    pub(super) low: f32,
    pub(super) high: f32,
}

impl TokenLoss for Cispo {
    const READS_LOGPROB: bool = true;

    #[inline(always)]
    fn term<const FMA: bool>(&self, Token { ratio, logprob, advantage, .. }: Token) -> Term {
        let above = if ratio > self.high { self.high } else { ratio };
        let weight = if above < self.low { self.low } else { above };
        let gradient = -weight * advantage;
        Term {
            loss: gradient * logprob,
            gradient,
            clipped: (ratio > self.high) | (ratio < self.low),
        }
    }
}
