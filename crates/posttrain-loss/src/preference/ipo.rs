//! Identity preference optimization.

use super::pairs::{PairRule, denominator, evaluate};
use super::score::{Baseline, Length};
use crate::aggregate::StepTotals;
use crate::batch::LossBatch;
use crate::error::{LossError, check_field};
use crate::objective::{LossOutcome, Objective, Scope};
use serde::{Deserialize, Serialize};

/// `(d − 1 / (2τ))²` of each pair, with `d` the chosen sequence's mean score per token less the
/// rejected one's (IPO, arXiv 2310.12036, equation 17; the mean over tokens as in TRL, which had it
/// confirmed by the authors).
///
/// See [`preference`](crate::preference) for scores, pairs and what it reports.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ipo {
    /// τ, how strongly the policy is held to the reference, nats⁻¹, above 0. 0.1 in TRL (its
    /// `beta`).
    pub tau: f64,
}

impl Default for Ipo {
    /// τ of 0.1, as in TRL.
    fn default() -> Self {
        Self { tau: 0.1 }
    }
}

impl Objective for Ipo {
    fn validate(&self) -> Result<(), LossError> {
        check_field(
            "tau",
            self.tau,
            self.tau.is_finite() && self.tau > 0.0,
            "a finite number above 0",
        )
    }

    fn scope(&self) -> Scope {
        Scope::Pair
    }

    fn needs_reference(&self) -> bool {
        true
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
            let short = difference - 1.0 / (2.0 * self.tau);
            (short * short, 2.0 * short)
        };
        let baseline = Baseline::Reference { needed_by: "IPO" };
        let rule = PairRule { baseline, length: Length::Averaged, reward_scale: self.tau, loss };
        evaluate(batch, logprobs, totals, &rule)
    }
}
