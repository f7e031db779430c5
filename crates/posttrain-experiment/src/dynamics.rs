//! How a reward curve moves.

use serde::{Deserialize, Serialize};

/// How steadily a model learnt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Dynamics {
    /// Mean |r_t − r_{t−1}|; absent for fewer than two steps.
    #[serde(default)]
    pub mean_abs_step_change: Option<f64>,
    /// Spikiness: standard deviation of r_t − r_{t−1}; absent for fewer than two steps.
    #[serde(default)]
    pub step_change_std: Option<f64>,
    /// Root of the mean squared distance of the curve from its running mean; absent for fewer than two steps.
    #[serde(default)]
    pub reward_std: Option<f64>,
    /// Steps until a stable plateau; absent where there is none.
    #[serde(default)]
    pub steps_to_plateau: Option<u64>,
}
