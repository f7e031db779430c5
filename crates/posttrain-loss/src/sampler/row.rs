//! How one row is sampled.

use crate::error::{LossError, check_field};

/// How the token of one row is drawn. The default draws from the whole distribution at temperature
/// 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowSampling {
    /// What the logits are divided by. 0 takes the largest logit (the first of equals) and ignores
    /// all else; otherwise at least 1e-5.
    pub temperature: f64,
    /// Keeps the `k` largest logits, at least 1. Logits equal to the k-th are kept too, as in
    /// `transformers`.
    pub top_k: Option<usize>,
    /// Keeps the likeliest tokens whose mass first reaches this share of what top-k left, in (0,
    /// 1]. Tokens as likely as the last of them are kept too, so that the set does not depend on
    /// how equals are ordered.
    pub top_p: Option<f64>,
    /// Keeps the tokens at least this fraction as likely as the likeliest, in [0, 1].
    pub min_p: Option<f64>,
    /// The draw, in [0, 1).
    pub uniform: f64,
}

impl Default for RowSampling {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: None, top_p: None, min_p: None, uniform: 0.0 }
    }
}

/// Below this a temperature is a mistake: vLLM takes it for greedy, which is what 0 is for.
const LOWEST_TEMPERATURE: f64 = 1e-5;

impl RowSampling {
    /// Checks each field against its range.
    pub fn validate(&self) -> Result<(), LossError> {
        let Self { temperature, top_k, top_p, min_p, uniform } = *self;
        let warm = temperature >= LOWEST_TEMPERATURE && temperature.is_finite();
        check_field(
            "temperature",
            temperature,
            temperature == 0.0 || warm,
            "0, or a finite number from 1e-5",
        )?;
        check_field("top_k", top_k.unwrap_or(1) as f64, top_k != Some(0), "at least 1")?;
        let top_p = top_p.unwrap_or(1.0);
        check_field("top_p", top_p, top_p > 0.0 && top_p <= 1.0, "in (0, 1]")?;
        let min_p = min_p.unwrap_or(0.0);
        check_field("min_p", min_p, (0.0..=1.0).contains(&min_p), "in [0, 1]")?;
        check_field("uniform", uniform, (0.0..1.0).contains(&uniform), "in [0, 1)")
    }

    /// Whether the row takes its largest logit.
    pub(super) fn greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// The temperature that the row's log-probability is under.
    pub(super) fn scoring_temperature(&self) -> f64 {
        if self.greedy() { 1.0 } else { self.temperature }
    }

    /// Whether a part of the distribution may be cut off.
    pub(super) fn truncates(&self) -> bool {
        let cuts = self.top_k.is_some()
            || self.top_p.is_some_and(|p| p < 1.0)
            || self.min_p.is_some_and(|p| p > 0.0);
        cuts && !self.greedy()
    }
}
