//! Estimators of the KL divergence between the policy and a frozen reference, from one token's
//! log-probabilities.

use crate::error::{LossError, check_field};
use posttrain_kernel::exp;
use serde::{Deserialize, Serialize};

/// An estimator of `KL(policy ‖ reference)` from tokens that the policy sampled.
///
/// With `d = logp_policy − logp_reference` of the sampled token (Schulman, "Approximating KL
/// divergence", 2020):
///
/// | kind | value | gradient by `logp_policy` | as a loss |
/// | --- | --- | --- | --- |
/// | `k1` | `d` | `1` | unbiased value, can be negative; **its gradient is zero on average**: it regularizes nothing |
/// | `k2` | `d² / 2` | `d` | biased value; its gradient is, on policy, that of the reverse KL itself |
/// | `k3` | `exp(−d) − 1 + d` | `1 − exp(−d)` | unbiased, never negative; its gradient is that of the *forward* KL(reference ‖ policy), which near `d = 0` is the same |
///
/// What each gradient estimates is worked out in Tang and Munos, "On a few pitfalls in KL
/// divergence gradient estimation for RL" (arXiv 2506.09477). GRPO, TRL and SkyRL use `k3`
/// ("low_var_kl" in verl).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KlEstimator {
    /// The log-ratio.
    K1,
    /// Half of its square.
    K2,
    /// The Bregman divergence of the exponential.
    #[default]
    K3,
}

/// A penalty `coefficient · KL(policy ‖ reference)`, added to every token's loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KlPenalty {
    /// How the divergence is estimated.
    pub estimator: KlEstimator,
    /// Its weight, at least 0. 1e-3 in SkyRL and verl, 0 (no reference at all) in TRL and Tinker.
    pub coefficient: f64,
}

impl Default for KlPenalty {
    /// `k3` at 1e-3, SkyRL's default.
    fn default() -> Self {
        Self { estimator: KlEstimator::K3, coefficient: 1e-3 }
    }
}

impl KlPenalty {
    /// Checks that the coefficient is finite and at least 0.
    pub fn validate(&self) -> Result<(), LossError> {
        let fits = self.coefficient.is_finite() && self.coefficient >= 0.0;
        check_field("kl.coefficient", self.coefficient, fits, "a finite number, at least 0")
    }
}

impl KlEstimator {
    /// The estimate and its derivative by the policy's log-probability.
    ///
    /// `train_logprob` and `reference_logprob` in nats, of one token. Infinite where the reference
    /// is so much likelier that the ratio does not fit into f32.
    ///
    /// ```
    /// use posttrain_loss::kl::KlEstimator;
    ///
    /// let (policy, reference) = (0.5f32.ln(), 0.25f32.ln()); // ratio reference / policy = 1/2
    /// let (value, gradient) = KlEstimator::K3.estimate(policy, reference);
    /// assert!((value - (0.5 - 1.0 + 2f32.ln())).abs() < 1e-6);
    /// assert!((gradient - 0.5).abs() < 1e-6);
    /// ```
    #[must_use]
    pub fn estimate(self, train_logprob: f32, reference_logprob: f32) -> (f32, f32) {
        let d = train_logprob - reference_logprob;
        self.of::<false>(d)
    }

    /// Value and derivative from `d`.
    #[inline(always)]
    pub(crate) fn of<const FMA: bool>(self, d: f32) -> (f32, f32) {
        match self {
            Self::K1 => (d, 1.0),
            Self::K2 => (0.5 * d * d, d),
            Self::K3 => {
                let value = bregman::<FMA>(-d);
                (value, d - value)
            }
        }
    }
}

/// `e^x − 1 − x`, at least 0, without the loss of digits that the difference has near 0.
#[inline(always)]
pub(crate) fn bregman<const FMA: bool>(x: f32) -> f32 {
    // Below 1/4 the series is exact to f32; above, the exponential's own error is a small part of
    // the difference.
    let tail = 1.0 / 120.0 + x * (1.0 / 720.0 + x * (1.0 / 5040.0 + x * (1.0 / 40_320.0)));
    let series = x * x * (0.5 + x * (1.0 / 6.0 + x * (1.0 / 24.0 + x * tail)));
    let direct = exp::<FMA>(x) - 1.0 - x;
    if x.abs() < 0.25 { series } else { direct }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;
    use proptest::prelude::*;

    #[test]
    fn estimators_by_hand() {
        let d = 0.5f32;
        assert_eq!(KlEstimator::K1.estimate(-1.0, -1.5), (d, 1.0));
        assert_eq!(KlEstimator::K2.estimate(-1.0, -1.5), (0.125, d));
        let (value, gradient) = KlEstimator::K3.estimate(-1.0, -1.5);
        assert_relative_eq!(value, (-d).exp_m1() + d, max_relative = 1e-5);
        assert_relative_eq!(gradient, 1.0 - (-d).exp(), max_relative = 1e-5);
    }

    #[test]
    fn equal_policies_have_no_divergence() {
        for estimator in [KlEstimator::K2, KlEstimator::K3] {
            assert_eq!(estimator.estimate(-3.0, -3.0), (0.0, 0.0));
        }
    }

    proptest! {
        #[test]
        fn k3_is_exact_at_every_distance(x in -20f32..20.0, shrink in 0i32..20) {
            let x = x * 0.5f32.powi(shrink);
            let exact = f64::from(x).exp_m1() - f64::from(x);
            prop_assert!(bregman::<false>(x) >= 0.0);
            prop_assert!((f64::from(bregman::<true>(x)) - exact).abs() <= 1e-5 * exact + 1e-30);
        }
    }
}
