//! Any objective that a configuration file can name.

use super::Objective;
use crate::cross_entropy::CrossEntropy;
use crate::distillation::Distillation;
use crate::error::LossError;
use crate::policy::PolicyObjective;
use crate::preference::{Dpo, Ipo, Kto, SimPo};
use serde::{Deserialize, Serialize};

/// An objective in a configuration file: a `kind` and its settings, such as
/// `{ kind = "dpo", beta = 0.1 }`.
///
/// ```
/// use posttrain_loss::{ObjectiveConfig, Scope};
///
/// # #[derive(serde::Deserialize)]
/// # struct File { objective: ObjectiveConfig }
/// # let read = |text: &str| toml::from_str::<File>(&format!("objective = {text}")).map(|file| file.objective);
/// let objective = read(r#"{ kind = "dpo", beta = 0.2 }"#)?.build()?;
/// assert_eq!(objective.scope(), Scope::Pair);
/// let objective = read(r#"{ kind = "policy", loss = { kind = "ppo_clip", clip_high = 0.28 } }"#)?.build()?;
/// assert_eq!(objective.scope(), Scope::Token);
/// assert!(read(r#"{ kind = "dpo", betta = 0.2 }"#).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ObjectiveConfig {
    /// A policy gradient.
    Policy(PolicyObjective),
    /// Supervised fine-tuning.
    CrossEntropy(CrossEntropy),
    /// Direct preference optimization.
    Dpo(Dpo),
    /// Identity preference optimization.
    Ipo(Ipo),
    /// Simple preference optimization.
    #[serde(rename = "simpo")]
    SimPo(SimPo),
    /// Kahneman-Tversky optimization.
    Kto(Kto),
    /// Distillation from a teacher.
    Distillation(Distillation),
}

impl Default for ObjectiveConfig {
    /// A policy gradient by importance sampling.
    fn default() -> Self {
        Self::Policy(PolicyObjective::default())
    }
}

impl ObjectiveConfig {
    /// The objective, checked.
    ///
    /// # Errors
    /// [`LossError::Config`] names a setting that is out of range.
    pub fn build(self) -> Result<Box<dyn Objective>, LossError> {
        let objective: Box<dyn Objective> = match self {
            Self::Policy(objective) => Box::new(objective),
            Self::CrossEntropy(objective) => Box::new(objective),
            Self::Dpo(objective) => Box::new(objective),
            Self::Ipo(objective) => Box::new(objective),
            Self::SimPo(objective) => Box::new(objective),
            Self::Kto(objective) => Box::new(objective),
            Self::Distillation(objective) => Box::new(objective),
        };
        objective.validate()?;
        Ok(objective)
    }
}
