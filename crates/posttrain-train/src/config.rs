//! How a trainer makes its passes.

use crate::TrainError;
use posttrain_kernel::Workers;
use posttrain_optim::{AdamParams, AdamWConfig};
use serde::{Deserialize, Serialize};

/// How a trainer turns batches into steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainerConfig {
    /// The optimizer's constants.
    pub adamw: AdamWConfig,
    /// Gradients are scaled down to this norm; 0 is off. 1 in TRL, verl, prime-rl and SkyRL.
    pub max_grad_norm: f64,
    /// Tokens of one forward and backward pass, 1 and up: what bounds the memory of activations.
    pub micro_batch_tokens: usize,
    /// Which activations are kept for the backward pass.
    pub checkpointing: GradientCheckpointing,
    /// How many threads a step's passes are divided among, each with micro-batches of its own.
    /// `Auto`: as many as leave each at least 256 tokens.
    pub workers: Workers,
    /// What becomes of completions whose advantage is 0.
    pub dead_groups: DeadGroups,
}

impl Default for TrainerConfig {
    fn default() -> Self {
        Self {
            adamw: AdamWConfig::default(),
            max_grad_norm: 1.0,
            micro_batch_tokens: 2048,
            checkpointing: GradientCheckpointing::default(),
            workers: Workers::default(),
            dead_groups: DeadGroups::Skip,
        }
    }
}

/// Which activations a forward pass keeps for its backward pass (Chen et al., 2016,
/// <https://arxiv.org/abs/1604.06174>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GradientCheckpointing {
    /// All that the backward pass needs.
    #[default]
    Off,
    /// Each block's input; the rest is computed a second time: about a third more time, for a tenth
    /// of the memory.
    Blocks,
}

/// What becomes of completions without an advantage. Either way they count in the denominator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadGroups {
    /// They are not computed, since their gradient is zero (unless a KL penalty or an entropy bonus
    /// gives them one).
    #[default]
    Skip,
    /// They are computed for the metrics' sake.
    Compute,
}

impl TrainerConfig {
    /// Checks every field's range.
    ///
    /// # Errors
    /// [`TrainError::Config`] or [`TrainError::Optim`] names the first field that is out of range.
    pub fn validate(&self) -> Result<(), TrainError> {
        self.adam_params(1.0).validate()?;
        let workers = if let Workers::Count(count) = self.workers { count } else { 1 };
        TrainError::check("workers.count", workers >= 1, "at least 1", &workers)?;
        TrainError::check(
            "micro_batch_tokens",
            self.micro_batch_tokens >= 1,
            "at least 1",
            &self.micro_batch_tokens,
        )
    }

    /// The optimizer's constants for a step at learning rate `lr`.
    #[must_use]
    pub fn adam_params(&self, lr: f64) -> AdamParams {
        AdamParams { max_grad_norm: self.max_grad_norm, ..self.adamw.params(lr) }
    }
}
