//! The constants of a step.

use crate::OptimError;
use serde::{Deserialize, Serialize};

/// AdamW's constants as a configuration file has them; the learning rate is given at each step.
///
/// Defaults are tinker-cookbook's for RL (`rl/train.py`: β 0.9 and 0.95, ε 1e-8, no weight decay).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Decay of the first moment, in [0, 1).
    pub beta1: f64,
    /// Decay of the second moment, in [0, 1).
    pub beta2: f64,
    /// Added to the root of the second moment, above 0.
    pub eps: f64,
    /// Decoupled weight decay per step, as a share of the learning rate; 0 and up.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0 }
    }
}

impl AdamWConfig {
    /// The constants of a step at a learning rate, without clipping.
    ///
    /// ```
    /// let params = posttrain_optim::AdamWConfig::default().params(1e-4);
    /// assert_eq!((params.learning_rate, params.beta2, params.max_grad_norm), (1e-4, 0.95, 0.0));
    /// ```
    #[must_use]
    pub fn params(&self, learning_rate: f64) -> AdamParams {
        AdamParams {
            learning_rate,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            weight_decay: self.weight_decay,
            ..AdamParams::default()
        }
    }
}

/// All constants of one step of AdamW.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamParams {
    /// The learning rate, finite and at least 0.
    pub learning_rate: f64,
    /// Decay of the first moment, in [0, 1).
    pub beta1: f64,
    /// Decay of the second moment, in [0, 1).
    pub beta2: f64,
    /// Added to the root of the second moment, above 0.
    pub eps: f64,
    /// Decoupled weight decay per step, as a share of the learning rate; 0 and up.
    pub weight_decay: f64,
    /// Gradients are scaled down to this norm, all of them together; 0 is off. 1 in TRL, verl,
    /// prime-rl and SkyRL.
    pub max_grad_norm: f64,
    /// What gradients are multiplied with before anything else, above 0: one over a denominator
    /// that was not known when they were added up.
    pub gradient_scale: f64,
}

impl Default for AdamParams {
    /// The Tinker SDK's learning rate (1e-4), tinker-cookbook's constants, no clipping, no scale.
    fn default() -> Self {
        let AdamWConfig { beta1, beta2, eps, weight_decay } = AdamWConfig::default();
        Self {
            learning_rate: 1e-4,
            beta1,
            beta2,
            eps,
            weight_decay,
            max_grad_norm: 0.0,
            gradient_scale: 1.0,
        }
    }
}

impl AdamParams {
    /// Checks every constant's range.
    ///
    /// # Errors
    /// [`OptimError::Config`] names the first one that is out of range.
    pub fn validate(&self) -> Result<(), OptimError> {
        let from_zero = [
            ("learning_rate", self.learning_rate),
            ("weight_decay", self.weight_decay),
            ("max_grad_norm", self.max_grad_norm),
        ];
        for (field, value) in from_zero {
            OptimError::check(
                field,
                value.is_finite() && value >= 0.0,
                "finite and at least 0",
                &value,
            )?;
        }
        for (field, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            OptimError::check(field, (0.0..1.0).contains(&beta), "at least 0 and below 1", &beta)?;
        }
        for (field, value) in [("eps", self.eps), ("gradient_scale", self.gradient_scale)] {
            OptimError::check(
                field,
                value.is_finite() && value > 0.0,
                "finite and above 0",
                &value,
            )?;
        }
        Ok(())
    }
}
