//! An objective laid over a batch: what any stretch of its entries needs to be evaluated alone.

use super::cispo::Cispo;
use super::clip::{Clip, DualClip};
use super::correction::CorrectionLevel;
use super::dppo::{BinaryKl, Dppo, DppoBounds, TotalVariation};
use super::dro::Dro;
use super::gmpo::Gmpo;
use super::importance_sampling::ImportanceSampling;
use super::kernel::{Adjustment, BLOCK, Block, BlockCorrection, Inputs, Scratch, TokenLoss};
use super::loss::DppoDivergence;
use super::sequence::Sequences;
use super::{PolicyLoss, PolicyObjective};
use crate::batch::{LossBatch, TokenAdvantages, needed};
use crate::error::{LossError, named_non_finite};
use crate::layout::Layout;
use crate::metrics::{LossMetrics, NamedMeans, PolicyMetrics};
use crate::objective::{LossSums, Objective, Stretch, TokenEvaluator};

/// What a policy loss is called in an error.
const NAME: &str = "a policy loss";

/// A checked objective and batch.
pub(super) struct Plan<'a> {
    pub(super) objective: &'a PolicyObjective,
    pub(super) layout: Layout<'a>,
    pub(super) sampling: &'a [f32],
    advantages: TokenAdvantages<'a>,
    /// Set where the objective needs them, once the log-probabilities are known.
    sequences: Option<Sequences>,
}

/// The sums over a stretch of entries.
#[derive(Default)]
pub(super) struct Partial {
    pub(super) loss: f64,
    pub(super) metrics: PolicyMetrics,
}

impl Partial {
    fn merge(&mut self, other: &Self) {
        self.loss += other.loss;
        self.metrics.merge(&other.metrics);
    }

    pub(super) fn is_finite(&self) -> bool {
        let PolicyMetrics { ratio_excess, kl_k1, kl_k3, gap, reference_kl, entropy, .. } =
            self.metrics;
        (self.loss + ratio_excess + kl_k1 + kl_k3 + gap + reference_kl + entropy).is_finite()
    }

    pub(super) fn sums(self) -> LossSums {
        let metrics = LossMetrics { policy: self.metrics, named: NamedMeans::default() };
        LossSums { loss: self.loss, metrics }
    }
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        objective: &'a PolicyObjective,
        batch: &LossBatch<'a>,
    ) -> Result<Self, LossError> {
        objective.validate()?;
        batch.check()?;
        let sampling = needed(batch.sampling_logprobs, "sampling_logprobs", NAME)?;
        let advantages = needed(batch.advantages, "advantages", NAME)?;
        if objective.kl.is_some() {
            needed(batch.reference_logprobs, "reference_logprobs", "`kl`")?;
        }

        Ok(Plan {
            objective,
            layout: Layout::new(batch, objective.aggregation),
            sampling,
            advantages,
            sequences: None,
        })
    }

    /// Measures the sequences, where the objective needs to; `logprobs: [N]`.
    pub(super) fn with_sequences(mut self, logprobs: &[f32]) -> Result<Self, LossError> {
        if Sequences::are_needed(self.objective) {
            self.sequences = Some(Sequences::of(&self, logprobs)?);
        }
        Ok(self)
    }

    /// The weight of every entry, 0 where it is not trained on.
    pub(super) fn entry_weights(&self) -> Vec<f32> {
        let mut weights = vec![0.0; self.layout.entries()];
        self.layout.fill_weights(0, &mut weights);
        weights
    }

    /// The advantage of every entry.
    pub(super) fn entry_advantages(&self) -> Vec<f32> {
        let mut advantages = vec![0.0; self.layout.entries()];
        self.fill_advantages(0, &mut advantages);
        advantages
    }

    /// Evaluates some entries by the kernel of the objective's loss.
    fn partial(&self, stretch: &mut Stretch) -> Partial {
        match self.objective.loss {
            PolicyLoss::ImportanceSampling { ratio_cap } => self
                .blocks(&ImportanceSampling { cap: ratio_cap.unwrap_or(f32::INFINITY) }, stretch),
            // Of GSPO's, the ratios are those of the sequences.
            PolicyLoss::PpoClip { clip_low, clip_high }
            | PolicyLoss::Gspo { clip_low, clip_high } => {
                self.blocks(&Clip::around_one(clip_low, clip_high), stretch)
            }
            PolicyLoss::PpoRatio { clip_low_threshold, clip_high_threshold } => {
                self.blocks(&Clip { low: clip_low_threshold, high: clip_high_threshold }, stretch)
            }
            PolicyLoss::DualClip { clip_low, clip_high, clip_ratio_c } => {
                let clip = Clip::around_one(clip_low, clip_high);
                self.blocks(&DualClip { clip, ratio_max: clip_ratio_c }, stretch)
            }
            PolicyLoss::Cispo { clip_low_threshold, clip_high_threshold } => {
                self.blocks(&Cispo { low: clip_low_threshold, high: clip_high_threshold }, stretch)
            }
            PolicyLoss::Dro { beta } => self.blocks(&Dro { beta }, stretch),
            PolicyLoss::Gmpo { clip_low, clip_high } => {
                self.blocks(&Gmpo { low: clip_low, high: clip_high }, stretch)
            }
            PolicyLoss::Dppo { divergence, mask_low, mask_high, squared_log_ratio, ratio_cap } => {
                let bounds = DppoBounds {
                    mask_low,
                    mask_high,
                    penalty: squared_log_ratio,
                    cap: ratio_cap.unwrap_or(f32::INFINITY),
                };
                match divergence {
                    DppoDivergence::TotalVariation => {
                        self.blocks(&Dppo { divergence: TotalVariation, bounds }, stretch)
                    }
                    DppoDivergence::Kl => {
                        self.blocks(&Dppo { divergence: BinaryKl, bounds }, stretch)
                    }
                }
            }
        }
    }

    fn blocks<L: TokenLoss>(&self, loss: &L, stretch: &mut Stretch) -> Partial {
        let batch = &self.layout.batch;
        let adjusts = batch.old_logprobs.is_some()
            || self.objective.correction.is_some()
            || self.sequences.is_some();
        let mut sum = Partial::default();
        let mut inputs = Inputs::default();
        let mut adjustment = Adjustment::default();
        let mut scratch = Scratch::default();

        for (block, gradient) in stretch.gradient.chunks_mut(BLOCK).enumerate() {
            let offset = block * BLOCK;
            let length = gradient.len();
            let first = stretch.start + offset;
            let places = first..first + length;

            self.layout.fill_sequence_weights(first, &mut inputs.weights[..length]);
            self.fill_advantages(first, &mut inputs.advantages[..length]);
            inputs.train = &stretch.logprobs[offset..offset + length];
            inputs.sampling = &self.sampling[places.clone()];
            inputs.token_weights = batch.weights.map(|weights| &weights[places.clone()]);
            inputs.old = batch.old_logprobs.map(|old| &old[places.clone()]);
            inputs.reference = batch.reference_logprobs.map(|reference| &reference[places.clone()]);
            inputs.entropy = stretch.entropy.map(|entropy| &entropy[offset..offset + length]);

            if adjusts {
                adjustment = self.adjustment(first, length);
            }

            let block = Block {
                loss,
                objective: self.objective,
                inputs: &mut inputs,
                adjustment: adjusts.then_some(&adjustment),
                scratch: &mut scratch,
                gradient,
            };
            sum.merge(&block.evaluate());
        }

        sum
    }

    /// What the entries from `first` on have of their sequences.
    fn adjustment(&self, first: usize, length: usize) -> Adjustment {
        let spread = |value: &dyn Fn(usize) -> f32| {
            let mut out = [0.0; BLOCK];
            self.layout.fill(first, &mut out[..length], value);
            out
        };
        let sequences = self.sequences.as_ref();
        let levels = sequences.and_then(|sequences| sequences.levels.as_ref());
        let corrections = sequences.and_then(|sequences| sequences.corrections.as_ref());

        let correction = match (self.objective.correction, corrections) {
            (Some(correction), None) if correction.level == CorrectionLevel::Token => {
                Some(BlockCorrection::OfTokens(correction))
            }
            (_, Some(corrections)) => Some(BlockCorrection::OfSequences {
                weights: spread(&|sequence| corrections[sequence].0),
                bounded: spread(&|sequence| if corrections[sequence].1 { 1.0 } else { 0.0 }),
            }),
            _ => None,
        };

        Adjustment { level: levels.map(|levels| spread(&|sequence| levels[sequence])), correction }
    }

    fn fill_advantages(&self, first: usize, out: &mut [f32]) {
        match self.advantages {
            TokenAdvantages::PerSequence(values) => {
                self.layout.fill(first, out, |sequence| values[sequence])
            }
            TokenAdvantages::PerToken(values) => {
                out.copy_from_slice(&values[first..first + out.len()])
            }
        }
    }

    /// Why the sums of some entries are not finite; looked for only then.
    pub(super) fn culprit(
        &self,
        start: usize,
        logprobs: &[f32],
        entropy: Option<&[f32]>,
    ) -> LossError {
        let batch = &self.layout.batch;
        let advantages = self.entry_advantages();
        for index in (start..start + logprobs.len()).filter(|index| batch.weight(*index) != 0.0) {
            let train = logprobs[index - start];
            let sampling = self.sampling[index];
            let at = |values: Option<&[f32]>| values.map_or(0.0, |values| values[index]);

            let named = [
                ("logprobs", train),
                ("sampling_logprobs", sampling),
                ("weights", at(batch.weights)),
                ("advantages", advantages[index]),
                ("old_logprobs", at(batch.old_logprobs)),
                ("reference_logprobs", at(batch.reference_logprobs)),
                ("entropy", entropy.map_or(0.0, |entropy| entropy[index - start])),
            ];
            if let Some(error) = named_non_finite(index, &named) {
                return error;
            }

            let old = batch.old_logprobs.map_or(sampling, |old| old[index]);
            for behind in [sampling, old] {
                if train - behind > LARGEST_LOG_RATIO {
                    return LossError::RatioOverflow { index, logprob: train, sampling: behind };
                }
            }
        }

        LossError::Overflow { argument: "loss" }
    }
}

impl TokenEvaluator for Plan<'_> {
    fn has_entropy_gradient(&self) -> bool {
        self.objective.entropy_coefficient > 0.0
    }

    fn evaluate(&self, mut stretch: Stretch) -> Result<LossSums, LossError> {
        if self.has_entropy_gradient() {
            needed(stretch.entropy, "entropy", "`entropy_coefficient`")?;
        }

        let partial = self.partial(&mut stretch);
        if !partial.is_finite() {
            return Err(self.culprit(stretch.start, stretch.logprobs, stretch.entropy));
        }

        if let Some(by_entropy) = stretch.entropy_gradient {
            let eta = self.objective.entropy_coefficient as f32;
            self.layout.fill_weights(stretch.start, by_entropy);
            by_entropy.iter_mut().for_each(|weight| *weight *= -eta);
        }

        Ok(partial.sums())
    }
}

/// Above this an exponential does not fit into f32.
const LARGEST_LOG_RATIO: f32 = 88.0;
