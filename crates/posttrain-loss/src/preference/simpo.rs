//! Simple preference optimization.

use super::negative_log_sigmoid;
use super::pairs::{PairRule, denominator, evaluate};
use super::score::{Baseline, Length};
use crate::aggregate::StepTotals;
use crate::batch::LossBatch;
use crate::error::{LossError, check_field};
use crate::objective::{LossOutcome, Objective, Scope};
use serde::{Deserialize, Serialize};

/// `−ln σ(β d − γ)` of each pair, with `d` the chosen sequence's mean log-probability per token
/// less the rejected one's (SimPO, arXiv 2405.14734). No reference.
///
/// See [`preference`](crate::preference) for pairs and what it reports.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimPo {
    /// β, the scale of the reward, nats⁻¹, above 0. 2 in the paper's first experiments.
    pub beta: f64,
    /// γ, the margin that the reward of the chosen sequence is to have, at least 0. 1 by default:
    /// the paper finds γ/β of about 0.5 to serve.
    pub gamma: f64,
}

impl Default for SimPo {
    /// β of 2 and γ of 1, from the paper's experiments on base models.
    fn default() -> Self {
        Self { beta: 2.0, gamma: 1.0 }
    }
}

impl Objective for SimPo {
    fn validate(&self) -> Result<(), LossError> {
        let fits = self.beta.is_finite() && self.beta > 0.0;
        check_field("beta", self.beta, fits, "a finite number above 0")?;
        let fits = self.gamma.is_finite() && self.gamma >= 0.0;
        check_field("gamma", self.gamma, fits, "a finite number, at least 0")
    }

    fn scope(&self) -> Scope {
        Scope::Pair
    }

    fn denominator(&self, totals: &StepTotals) -> f64 {
        denominator(totals)
    }

    fn evaluate(
        &self,
        batch: &LossBatch,
        logprobs: &[f32],
        _entropy: Option<&[f32]>,
        totals: &StepTotals,
    ) -> Result<LossOutcome, LossError> {
        self.validate()?;
        let loss = |difference: f64| {
            let (value, slope) = negative_log_sigmoid(self.beta * difference - self.gamma);
            (value, self.beta * slope)
        };
        let rule = PairRule {
            baseline: Baseline::Zero,
            length: Length::Averaged,
            reward_scale: self.beta,
            loss,
        };
        evaluate(batch, logprobs, totals, &rule)
    }
}
