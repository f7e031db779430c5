//! What several of these tests need.

use posttrain_loss::{LossBatch, LossError, LossOutcome, Objective, Scope, StepTotals};

/// A loss of some scope that goes wrong as it says: by a panic where its scope is asked for
/// (`scope`), by one in its evaluation (`panic`), or by a gradient that is no number.
pub struct Wrong {
    pub how: &'static str,
    pub scope: Scope,
}

impl Objective for Wrong {
    fn validate(&self) -> Result<(), LossError> {
        Ok(())
    }

    fn scope(&self) -> Scope {
        assert!(self.how != "scope", "a scope panicked");
        self.scope
    }

    fn denominator(&self, _totals: &StepTotals) -> f64 {
        1.0
    }

    fn evaluate(
        &self,
        batch: &LossBatch,
        _logprobs: &[f32],
        _entropy: Option<&[f32]>,
        _totals: &StepTotals,
    ) -> Result<LossOutcome, LossError> {
        assert!(self.how != "panic", "a user's loss panicked");
        Ok(LossOutcome::new(0.0, 1.0, vec![f32::NAN; batch.entries()]))
    }
}
