//! How far the policy in training is from the one that sampled: sums and extremes that add up over
//! micro-batches.

use serde::{Deserialize, Serialize};

/// How far the policy in training is from the one that sampled, over the tokens trained on.
///
/// `ratio = exp(train_logprob − sampling_logprob)`. The fields are sums and extremes, so that
/// micro-batches [`merge`](Self::merge); the methods turn them into what is reported. Nothing in
/// the crate reads them to decide anything.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PolicyMetrics {
    /// Tokens trained on.
    pub tokens: u64,
    /// `Σ (ratio − 1)`.
    pub ratio_excess: f64,
    /// The smallest ratio; infinite where there is no token.
    pub ratio_min: f32,
    /// The largest ratio; 0 where there is no token.
    pub ratio_max: f32,
    /// Tokens whose loss has no gradient, or a smaller one, because of a clip or a cap.
    pub clipped: u64,
    /// `Σ (sampling_logprob − train_logprob)`, the `k1` estimate of KL(sampling ‖ train), nats.
    pub kl_k1: f64,
    /// `Σ (ratio − 1 − log ratio)`, the `k3` estimate of KL(sampling ‖ train), nats.
    pub kl_k3: f64,
    /// `Σ |train_logprob − sampling_logprob|`, nats.
    pub gap: f64,
    /// The largest `|train_logprob − sampling_logprob|`, nats.
    pub gap_max: f32,
    /// `Σ` of the KL penalty's estimates, before its coefficient, nats; 0 without a reference.
    pub reference_kl: f64,
    /// `Σ` of the tokens' entropies, nats.
    pub entropy: f64,
    /// Tokens whose entropy was given.
    pub entropy_tokens: u64,
}

impl Default for PolicyMetrics {
    /// No tokens.
    fn default() -> Self {
        Self {
            tokens: 0,
            ratio_excess: 0.0,
            ratio_min: f32::INFINITY,
            ratio_max: 0.0,
            clipped: 0,
            kl_k1: 0.0,
            kl_k3: 0.0,
            gap: 0.0,
            gap_max: 0.0,
            reference_kl: 0.0,
            entropy: 0.0,
            entropy_tokens: 0,
        }
    }
}

impl PolicyMetrics {
    /// Adds the tokens of another micro-batch.
    pub fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.ratio_excess += other.ratio_excess;
        self.ratio_min = self.ratio_min.min(other.ratio_min);
        self.ratio_max = self.ratio_max.max(other.ratio_max);
        self.clipped += other.clipped;
        self.kl_k1 += other.kl_k1;
        self.kl_k3 += other.kl_k3;
        self.gap += other.gap;
        self.gap_max = self.gap_max.max(other.gap_max);
        self.reference_kl += other.reference_kl;
        self.entropy += other.entropy;
        self.entropy_tokens += other.entropy_tokens;
    }

    /// The mean ratio; 1 where the policies agree, `None` without tokens.
    #[must_use]
    pub fn ratio_mean(&self) -> Option<f64> {
        self.mean(self.ratio_excess).map(|excess| 1.0 + excess)
    }

    /// The share of tokens whose gradient a clip or a cap took away or made smaller.
    #[must_use]
    pub fn clipped_share(&self) -> Option<f64> {
        self.mean(self.clipped as f64)
    }

    /// The mean `k1` estimate of KL(sampling ‖ train), nats.
    #[must_use]
    pub fn kl_k1_mean(&self) -> Option<f64> {
        self.mean(self.kl_k1)
    }

    /// The mean `k3` estimate of KL(sampling ‖ train), nats. Training is called stable below 0.01
    /// (tinker-cookbook).
    #[must_use]
    pub fn kl_k3_mean(&self) -> Option<f64> {
        self.mean(self.kl_k3)
    }

    /// `logprob_gap`: the mean `|train_logprob − sampling_logprob|`, nats.
    #[must_use]
    pub fn logprob_gap(&self) -> Option<f64> {
        self.mean(self.gap)
    }

    /// The mean estimate of KL(policy ‖ reference), nats.
    #[must_use]
    pub fn reference_kl_mean(&self) -> Option<f64> {
        self.mean(self.reference_kl)
    }

    /// The mean entropy of the policy, nats, over the tokens whose entropy was given.
    #[must_use]
    pub fn entropy_mean(&self) -> Option<f64> {
        (self.entropy_tokens > 0).then(|| self.entropy / self.entropy_tokens as f64)
    }

    fn mean(&self, sum: f64) -> Option<f64> {
        (self.tokens > 0).then(|| sum / self.tokens as f64)
    }
}
