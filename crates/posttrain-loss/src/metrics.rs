//! What a step's entries say of the policy, in sums that add up over micro-batches.

mod named;
mod policy;

pub use named::{Mean, NamedMeans};
pub use policy::PolicyMetrics;

use serde::{Deserialize, Serialize};

/// Everything that an objective reports beside its loss.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LossMetrics {
    /// How far the policy is from the one that sampled; empty for an objective that is no policy
    /// loss.
    pub policy: PolicyMetrics,
    /// What else the objective has a name for: `nll`, `preference/accuracy`, `preference/margin`,
    /// ...
    pub named: NamedMeans,
}

impl LossMetrics {
    /// Adds those of another micro-batch.
    pub fn merge(&mut self, other: &Self) {
        self.policy.merge(&other.policy);
        self.named.merge(&other.named);
    }
}
