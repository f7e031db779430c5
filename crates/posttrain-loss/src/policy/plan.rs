//! An objective laid over a batch: what any stretch of its tokens needs to be evaluated alone.

use super::importance_sampling::ImportanceSampling;
use super::kernel::{BLOCK, Inputs, TokenLoss, evaluate_block};
use super::outcome::PolicyOutcome;
use super::ppo_clip::PpoClip;
use super::{PolicyLoss, PolicyObjective};
use crate::batch::{PolicyBatch, TokenAdvantages};
use crate::error::LossError;
use crate::metrics::PolicyMetrics;

/// A checked objective and batch, with the sequences' places and weights.
pub(crate) struct Plan<'a> {
    pub(super) objective: &'a PolicyObjective,
    pub(super) batch: &'a PolicyBatch<'a>,
    /// The end of each sequence.
    ends: Vec<usize>,
    /// The weight of each sequence's tokens.
    weights: Vec<f32>,
}

/// The sums over a stretch of tokens.
#[derive(Default)]
pub(crate) struct Partial {
    pub(super) loss: f64,
    pub(super) metrics: PolicyMetrics,
}

impl Partial {
    pub(crate) fn merge(&mut self, other: &Partial) {
        self.loss += other.loss;
        self.metrics.merge(&other.metrics);
    }

    pub(crate) fn outcome<G>(self, denominator: f64, gradient: G, entropy_gradient: Option<G>) -> PolicyOutcome<G> {
        PolicyOutcome { loss_sum: self.loss, denominator, gradient, entropy_gradient, metrics: self.metrics }
    }

    pub(super) fn is_finite(&self) -> bool {
        let PolicyMetrics { ratio_excess, kl_k1, kl_k3, gap, reference_kl, entropy, .. } = self.metrics;
        (self.loss + ratio_excess + kl_k1 + kl_k3 + gap + reference_kl + entropy).is_finite()
    }
}

impl<'a> Plan<'a> {
    pub(crate) fn new(objective: &'a PolicyObjective, batch: &'a PolicyBatch<'a>) -> Result<Self, LossError> {
        objective.validate()?;
        batch.check()?;
        if objective.kl.is_some() && batch.reference_logprobs.is_none() {
            return Err(LossError::Missing { argument: "reference_logprobs", needed_by: "`kl`" });
        }
        let ends = batch.sequence_lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        let weights = objective.aggregation.weights(batch.sequence_lengths, batch.loss_mask);
        Ok(Plan { objective, batch, ends: ends.collect(), weights })
    }

    /// The weight of every token, 0 where masked.
    pub(super) fn token_weights(&self) -> Vec<f32> {
        let mut weights = vec![0.0; self.batch.tokens()];
        self.fill(0, &mut weights, |plan, sequence| plan.weights[sequence]);
        if let Some(mask) = self.batch.loss_mask {
            weights.iter_mut().zip(mask).filter(|(_, trained)| !**trained).for_each(|(weight, _)| *weight = 0.0);
        }
        weights
    }

    /// The advantage of every token.
    pub(super) fn token_advantages(&self) -> Vec<f32> {
        let mut advantages = vec![0.0; self.batch.tokens()];
        self.fill_advantages(0, &mut advantages);
        advantages
    }

    /// Evaluates the tokens from `start` on: writes their gradient and returns their sums.
    ///
    /// `train`, `entropy` and `gradient` are those of the stretch alone.
    ///
    /// # Errors
    /// The first value of the stretch that keeps its sums from being finite; a missing entropy.
    pub(crate) fn tokens(
        &self,
        start: usize,
        train: &[f32],
        entropy: Option<&[f32]>,
        gradient: &mut [f32],
    ) -> Result<Partial, LossError> {
        if self.objective.entropy_coefficient > 0.0 && entropy.is_none() {
            return Err(LossError::Missing { argument: "entropy", needed_by: "`entropy_coefficient`" });
        }
        let partial = match self.objective.loss {
            PolicyLoss::ImportanceSampling { ratio_cap } => {
                let loss = ImportanceSampling { cap: ratio_cap.unwrap_or(f32::INFINITY) };
                self.blocks(&loss, start, train, entropy, gradient)
            }
            PolicyLoss::PpoClip { clip_low, clip_high } => {
                let loss = PpoClip { low: 1.0 - clip_low, high: 1.0 + clip_high };
                self.blocks(&loss, start, train, entropy, gradient)
            }
        };
        if partial.is_finite() { Ok(partial) } else { Err(self.culprit(start, train, entropy)) }
    }

    fn blocks<L: TokenLoss>(
        &self,
        loss: &L,
        start: usize,
        train: &[f32],
        entropy: Option<&[f32]>,
        gradient: &mut [f32],
    ) -> Partial {
        let mut sum = Partial::default();
        let mut inputs = Inputs::default();
        for (block, gradient) in gradient.chunks_mut(BLOCK).enumerate() {
            let (offset, length) = (block * BLOCK, gradient.len());
            let first = start + offset;
            self.fill(first, &mut inputs.weights[..length], |plan, sequence| plan.weights[sequence]);
            self.fill_advantages(first, &mut inputs.advantages[..length]);
            inputs.train = &train[offset..offset + length];
            inputs.sampling = &self.batch.sampling_logprobs[first..first + length];
            inputs.mask = self.batch.loss_mask.map(|mask| &mask[first..first + length]);
            inputs.reference = self.batch.reference_logprobs.map(|reference| &reference[first..first + length]);
            inputs.entropy = entropy.map(|entropy| &entropy[offset..offset + length]);
            sum.merge(&evaluate_block(loss, self.objective, &mut inputs, gradient));
        }
        sum
    }

    fn fill_advantages(&self, first: usize, out: &mut [f32]) {
        match self.batch.advantages {
            TokenAdvantages::PerSequence(values) => self.fill(first, out, |_, sequence| values[sequence]),
            TokenAdvantages::PerToken(values) => out.copy_from_slice(&values[first..first + out.len()]),
        }
    }

    /// Writes a sequence's value to each of its tokens, from token `first` on.
    fn fill(&self, first: usize, mut out: &mut [f32], value: impl Fn(&Self, usize) -> f32) {
        let mut sequence = self.ends.partition_point(|end| *end <= first);
        let mut at = first;
        while !out.is_empty() {
            let length = (self.ends[sequence] - at).min(out.len());
            let (now, later) = out.split_at_mut(length);
            now.fill(value(self, sequence));
            (out, at, sequence) = (later, at + length, sequence + 1);
        }
    }

    /// Why the sums of a stretch are not finite; looked for only then.
    pub(super) fn culprit(&self, start: usize, train: &[f32], entropy: Option<&[f32]>) -> LossError {
        let trained = |index: &usize| self.batch.loss_mask.is_none_or(|mask| mask[*index]);
        let advantages = self.token_advantages();
        for index in (start..start + train.len()).filter(trained) {
            let (train, sampling) = (train[index - start], self.batch.sampling_logprobs[index]);
            let named = [
                ("train_logprobs", Some(train)),
                ("sampling_logprobs", Some(sampling)),
                ("advantages", Some(advantages[index])),
                ("reference_logprobs", self.batch.reference_logprobs.map(|reference| reference[index])),
                ("entropy", entropy.map(|entropy| entropy[index - start])),
            ];
            let bad =
                named.into_iter().find_map(|(argument, value)| Some((argument, value.filter(|v| !v.is_finite())?)));
            if let Some((argument, value)) = bad {
                return LossError::NonFinite { argument, index, value };
            }
            if train - sampling > LARGEST_LOG_RATIO {
                return LossError::RatioOverflow { index, train, sampling };
            }
        }
        LossError::Overflow { argument: "loss" }
    }
}

/// Above this an exponential does not fit into f32.
const LARGEST_LOG_RATIO: f32 = 88.0;
