//! How the learning rate moves over a run.

use crate::OptimError;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// A factor on the learning rate, step by step.
///
/// In a file: `{ kind = "cosine", warmup_steps = 10, floor = 0.1 }`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Schedule {
    /// 1 throughout: what tinker-cookbook's RL loop and prime-rl do.
    #[default]
    Constant,
    /// Up from 0 over the warm-up, then straight down to `floor` at the step behind the last.
    Linear {
        /// Steps of the warm-up.
        #[serde(default)]
        warmup_steps: u64,
        /// The factor at the end, in [0, 1].
        #[serde(default)]
        floor: f64,
    },
    /// Up from 0 over the warm-up, then down along half a cosine to `floor` at the step behind the
    /// last.
    Cosine {
        /// Steps of the warm-up.
        #[serde(default)]
        warmup_steps: u64,
        /// The factor at the end, in [0, 1].
        #[serde(default)]
        floor: f64,
    },
}

impl Schedule {
    /// Checks the floor.
    ///
    /// # Errors
    /// [`OptimError::Config`] if it is out of range.
    pub fn validate(&self) -> Result<(), OptimError> {
        let floor = match *self {
            Self::Constant => 0.0,
            Self::Linear { floor, .. } | Self::Cosine { floor, .. } => floor,
        };
        OptimError::check("schedule.floor", (0.0..=1.0).contains(&floor), "from 0 to 1", &floor)
    }

    /// The factor at `step`, counted from 0, of a run of `steps`.
    ///
    /// ```
    /// use posttrain_optim::Schedule;
    /// let schedule = Schedule::Linear { warmup_steps: 2, floor: 0.0 };
    /// let factors: Vec<f64> = (0..6).map(|step| schedule.factor(step, 6)).collect();
    /// assert_eq!(factors, [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]);
    /// ```
    #[must_use]
    pub fn factor(&self, step: u64, steps: u64) -> f64 {
        let (warmup, floor, shape): (u64, f64, fn(f64) -> f64) = match *self {
            Self::Constant => return 1.0,
            Self::Linear { warmup_steps, floor } => (warmup_steps, floor, |done| 1.0 - done),
            Self::Cosine { warmup_steps, floor } => {
                (warmup_steps, floor, |done| 0.5 * (1.0 + (PI * done).cos()))
            }
        };
        if step < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        let done = (step - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
        floor + (1.0 - floor) * shape(done.min(1.0))
    }
}
