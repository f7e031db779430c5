//! DPPO: importance sampling without the tokens whose probability has moved too far, and a squared
//! log-ratio.

use super::kernel::{Term, Token, TokenLoss};
use posttrain_kernel::exp;

/// `−kept · min(ratio, cap) · A + penalty · log_ratio²`.
pub(super) struct Dppo<D> {
    pub(super) divergence: D,
    pub(super) bounds: DppoBounds,
}

/// Its bounds and its penalty.
pub(super) struct DppoBounds {
    pub(super) mask_low: f32,
    pub(super) mask_high: f32,
    pub(super) penalty: f32,
    /// The largest weight; infinite for none.
    pub(super) cap: f32,
}

/// How far a probability has moved.
pub(super) trait Divergence: Sync {
    /// The move from `old` to `new`, both probabilities; `log_ratio = ln(new / old)`. At least 0.
    fn between(&self, new: f32, old: f32, log_ratio: f32) -> f32;
}

pub(super) struct TotalVariation;

impl Divergence for TotalVariation {
    #[inline(always)]
    fn between(&self, new: f32, old: f32, _log_ratio: f32) -> f32 {
        (new - old).abs()
    }
}

pub(super) struct BinaryKl;

impl Divergence for BinaryKl {
    #[inline(always)]
    fn between(&self, new: f32, old: f32, log_ratio: f32) -> f32 {
        // As verl has it, which keeps the logarithm of a certain token's rest finite.
        let rest = (1.0 - old + 1e-8) / (1.0 - new + 1e-8);
        (1.0 - old) * rest.ln() - old * log_ratio
    }
}

impl<D: Divergence> TokenLoss for Dppo<D> {
    const READS_LOGPROB: bool = true;

    #[inline(always)]
    fn term<const FMA: bool>(&self, Token { ratio, log_ratio, logprob, advantage }: Token) -> Term {
        let bounds = &self.bounds;
        let new = exp::<FMA>(logprob);
        let old = exp::<FMA>(logprob - log_ratio);
        let moved = self.divergence.between(new, old, log_ratio);
        let up = (advantage > 0.0) & (new > old) & (moved > bounds.mask_high);
        let down = (advantage <= 0.0) & (new < old) & (moved > bounds.mask_low);
        let masked = up | down;

        let capped = ratio > bounds.cap;
        let weight = if capped { bounds.cap } else { ratio };
        let push = if masked { 0.0 } else { -weight * advantage };
        let pull = bounds.penalty * log_ratio;
        Term {
            loss: push + pull * log_ratio,
            gradient: push + 2.0 * pull,
            clipped: masked | capped,
        }
    }
}
