//! DRO: the log-probability, held to the old policy by a squared distance.

use super::kernel::{Term, Token, TokenLoss};

/// `−(logprob · A − β/2 · (logprob − old)²)`.
pub(super) struct Dro {
    pub(super) beta: f32,
}

impl TokenLoss for Dro {
    const READS_LOGPROB: bool = true;

    #[inline(always)]
    fn term<const FMA: bool>(&self, Token { log_ratio, logprob, advantage, .. }: Token) -> Term {
        let pull = self.beta * log_ratio;
        Term {
            loss: 0.5 * pull * log_ratio - logprob * advantage,
            gradient: pull - advantage,
            clipped: false,
        }
    }
}
