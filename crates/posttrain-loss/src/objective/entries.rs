//! Objectives that are a rule of one entry's log-probability, whatever the rule.

use super::{LossSums, Stretch, TokenEvaluator};
use crate::error::{LossError, named_non_finite};
use crate::layout::Layout;
use crate::metrics::LossMetrics;

/// A loss of one entry.
pub(crate) trait EntryRule: Send + Sync {
    /// The loss and its derivative by the entry's log-probability.
    fn term(&self, entry: usize, logprob: f32) -> (f32, f32);

    /// What the rule reports of an entry: a value and its weight in the mean of
    /// [`metric`](Self::metric).
    fn reported(&self, weight: f32, logprob: f32, loss: f32) -> (f64, f64);

    /// The name of what it reports.
    fn metric(&self) -> &'static str;
}

/// A rule laid over a checked batch.
pub(crate) struct Entrywise<'a, R> {
    pub(crate) layout: Layout<'a>,
    pub(crate) rule: R,
}

impl<R: EntryRule> TokenEvaluator for Entrywise<'_, R> {
    fn evaluate(&self, stretch: Stretch) -> Result<LossSums, LossError> {
        let Stretch { start, logprobs, gradient, entropy_gradient, .. } = stretch;
        let mut loss_sum = 0.0;
        let mut reported = (0.0, 0.0);

        // The gradient's place holds the weights until each is used.
        self.layout.fill_weights(start, gradient);
        for (offset, (gradient, logprob)) in gradient.iter_mut().zip(logprobs).enumerate() {
            let weight = *gradient;
            if weight == 0.0 {
                continue;
            }
            let (loss, slope) = self.rule.term(start + offset, *logprob);
            *gradient = weight * slope;
            loss_sum += f64::from(weight * loss);

            let own = self.layout.batch.weight(start + offset);
            let (value, count) = self.rule.reported(own, *logprob, loss);
            reported.0 += value;
            reported.1 += count;
        }
        if let Some(entropy_gradient) = entropy_gradient {
            entropy_gradient.fill(0.0);
        }

        // An infinite loss may have a finite gradient, and the other way round.
        if !loss_sum.is_finite() || !gradient.iter().all(|gradient| gradient.is_finite()) {
            return Err(self.culprit(start, logprobs));
        }

        let mut metrics = LossMetrics::default();
        metrics.named.add(self.rule.metric(), reported.0, reported.1);
        Ok(LossSums { loss: loss_sum, metrics })
    }
}

impl<R: EntryRule> Entrywise<'_, R> {
    /// Why the loss or a gradient of some entries is not finite.
    fn culprit(&self, start: usize, logprobs: &[f32]) -> LossError {
        let batch = &self.layout.batch;
        for (offset, logprob) in logprobs.iter().enumerate() {
            let index = start + offset;
            let weight = batch.weight(index);
            let (loss, slope) = self.rule.term(index, *logprob);
            if weight == 0.0 || (weight * loss).is_finite() && (weight * slope).is_finite() {
                continue;
            }

            let at = |values: Option<&[f32]>| values.map_or(0.0, |values| values[index]);
            let named = [
                ("logprobs", *logprob),
                ("weights", weight),
                ("reference_logprobs", at(batch.reference_logprobs)),
                ("sampling_logprobs", at(batch.sampling_logprobs)),
            ];
            return named_non_finite(index, &named)
                .unwrap_or(LossError::Overflow { argument: "loss" });
        }
        LossError::Overflow { argument: "loss" }
    }
}
