//! Direct preference optimization.

use super::negative_log_sigmoid;
use super::pairs::{PairRule, denominator, evaluate};
use super::score::{Baseline, Length};
use crate::aggregate::StepTotals;
use crate::batch::LossBatch;
use crate::error::{LossError, check_field};
use crate::objective::{LossOutcome, Objective, Scope};
use serde::{Deserialize, Serialize};

/// `−(1 − ε) · ln σ(β d) − ε · ln σ(−β d)` of each pair, with `d` the chosen score less the
/// rejected one's (DPO, arXiv 2305.18290; `ε` makes it the conservative DPO of the same authors).
///
/// See [`preference`](crate::preference) for scores, pairs and what it reports.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dpo {
    /// β, how fast preferences saturate, nats⁻¹, above 0. 0.1 in the paper's experiments and TRL.
    pub beta: f64,
    /// ε, the share of pairs taken to be the wrong way round, in [0, 0.5). 0 by default, as in TRL.
    pub label_smoothing: f64,
    /// What the policy is compared with.
    pub reference: Reference,
}

/// What the policy of a preference objective is compared with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reference {
    /// The reference policy.
    #[default]
    Policy,
    /// Nothing: every text is as likely under it (the reference-free form of the authors' code;
    /// CPO, arXiv 2401.08417).
    Uniform,
}

impl Default for Dpo {
    /// β of 0.1 against the reference policy, as in TRL.
    fn default() -> Self {
        Self { beta: 0.1, label_smoothing: 0.0, reference: Reference::Policy }
    }
}

impl Objective for Dpo {
    fn validate(&self) -> Result<(), LossError> {
        let fits = self.beta.is_finite() && self.beta > 0.0;
        check_field("beta", self.beta, fits, "a finite number above 0")?;
        let fits = (0.0..0.5).contains(&self.label_smoothing);
        check_field("label_smoothing", self.label_smoothing, fits, "in [0, 0.5)")
    }

    fn scope(&self) -> Scope {
        Scope::Pair
    }

    fn needs_reference(&self) -> bool {
        self.reference == Reference::Policy
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
        let baseline = match self.reference {
            Reference::Policy => Baseline::Reference { needed_by: "DPO with a reference policy" },
            Reference::Uniform => Baseline::Zero,
        };

        let loss = |difference: f64| {
            let (right, by_right) = negative_log_sigmoid(self.beta * difference);
            let (wrong, by_wrong) = negative_log_sigmoid(-self.beta * difference);
            let flipped = self.label_smoothing;
            let value = (1.0 - flipped) * right + flipped * wrong;
            (value, self.beta * ((1.0 - flipped) * by_right - flipped * by_wrong))
        };

        let rule = PairRule { baseline, length: Length::Summed, reward_scale: self.beta, loss };
        evaluate(batch, logprobs, totals, &rule)
    }
}
