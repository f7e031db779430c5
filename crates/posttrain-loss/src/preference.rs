//! Objectives of whole sequences: preferences between two, and labels of one.
//!
//! A sequence counts by its log-probability, the weighted sum `Σ_t w_t · logprob_t` over its
//! entries, or that over the number of them; where a reference is used, by its distance from the
//! reference's, the *score* `h = Σ_t w_t · (logprob_t − reference_t)`.
//!
//! | objective | loss | needs a reference |
//! | --- | --- | --- |
//! | [`Dpo`] | `−ln σ(β (h_c − h_r))` of a pair | yes, or not |
//! | [`Ipo`] | `(mean h_c − mean h_r − 1 / (2τ))²` of a pair | yes |
//! | [`SimPo`] | `−ln σ(β (mean logprob_c − mean logprob_r) − γ)` of a pair | no |
//! | [`Kto`] | `λ_D (1 − σ(β (h − z)))` or `λ_U (1 − σ(β (z − h)))` of a labelled sequence | yes |
//!
//! A pair is two neighboring sequences of the batch, the chosen one (`c`) first and the rejected
//! one (`r`) second ([`Scope::Pair`](crate::Scope::Pair)). The loss is the mean over the step's
//! pairs; a pair one of whose sequences has no entry to train on has no loss and does not count.
//!
//! All report, as named means: `preference/accuracy` (the share of pairs whose chosen sequence has
//! the higher reward), `preference/margin`, `preference/chosen` and `preference/rejected` (the
//! rewards, which are β or τ times the score).
//!
//! ```
//! use posttrain_loss::{LossBatch, Objective, preference::Dpo};
//!
//! // Chosen: two tokens, rejected: one. The reference found both sequences as likely as the policy does now.
//! let reference = [-1.0, -2.0, -3.0];
//! let batch = LossBatch { reference_logprobs: Some(&reference), ..LossBatch::of(&[2, 1]) };
//! let outcome = Dpo::default().evaluate(&batch, &reference, None, &batch.totals()?)?;
//! assert!((outcome.loss() - 2f64.ln()).abs() < 1e-9);
//! // −β · σ(0), for each token of the chosen one, and its negative for the rejected one's.
//! assert_eq!(outcome.gradient, [-0.05, -0.05, 0.05]);
//! # Ok::<(), posttrain_loss::LossError>(())
//! ```

mod dpo;
mod ipo;
mod kto;
mod pairs;
mod score;
mod simpo;

pub use dpo::{Dpo, Reference};
pub use ipo::Ipo;
pub use kto::Kto;
pub use simpo::SimPo;

/// `−ln σ(x)` and its derivative by `x`, without overflow.
fn negative_log_sigmoid(x: f64) -> (f64, f64) {
    let value = (-x).max(0.0) + (-x.abs()).exp().ln_1p();
    (value, -sigmoid(-x))
}

/// `1 / (1 + e^−x)`, without overflow.
fn sigmoid(x: f64) -> f64 {
    let small = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + small) } else { small / (1.0 + small) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    #[test]
    fn sigmoids_keep_their_digits_and_never_overflow() {
        for x in [-700.0f64, -30.0, -1.0, 0.0, 1e-9, 2.0, 40.0] {
            assert_relative_eq!(sigmoid(x), 1.0 / (1.0 + (-x).exp()), max_relative = 1e-14);
            let (value, slope) = negative_log_sigmoid(x);
            assert_relative_eq!(slope, -1.0 / (1.0 + x.exp()), max_relative = 1e-14);
            assert_relative_eq!(value, (-x).exp().ln_1p(), max_relative = 1e-14);
        }
        assert_eq!(negative_log_sigmoid(-1e6), (1e6, -1.0));
        assert_eq!(negative_log_sigmoid(1e6), (0.0, 0.0));
    }
}
