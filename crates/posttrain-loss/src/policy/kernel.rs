//! The native kernel: a block of entries at a time, every sum and the gradient in one vectorized
//! pass.

use super::PolicyObjective;
use super::correction::Correction;
use super::plan::Partial;
use crate::kl::{KlPenalty, bregman};
use crate::metrics::PolicyMetrics;
use posttrain_kernel::{Kernel, dispatch, exp, larger, smaller};

/// Entries of a block: its arrays stay in the first-level cache, and f32 sums over it lose nothing
/// that matters.
pub(super) const BLOCK: usize = 256;

/// Independent partial sums; few, because there are many sums.
const LANES: usize = 8;

/// What a policy loss may read of one entry.
#[derive(Clone, Copy)]
pub(super) struct Token {
    /// The ratio that the loss weighs with: `exp(log_ratio)`, or its sequence's.
    pub(super) ratio: f32,
    /// The policy's log-probability less the old policy's, nats.
    pub(super) log_ratio: f32,
    /// The policy's log-probability, nats, where the loss [reads](TokenLoss::READS_LOGPROB) it.
    pub(super) logprob: f32,
    pub(super) advantage: f32,
}

/// The loss of one entry.
#[derive(Clone, Copy)]
pub(super) struct Term {
    /// Its value.
    pub(super) loss: f32,
    /// Its derivative by the log-probability.
    pub(super) gradient: f32,
    /// Whether a bound changed the gradient.
    pub(super) clipped: bool,
}

/// A policy loss.
pub(super) trait TokenLoss: Sync {
    /// Whether the loss reads [`Token::logprob`].
    const READS_LOGPROB: bool = false;

    /// Loss and derivative of an entry; `inline(always)`, without branches.
    fn term<const FMA: bool>(&self, token: Token) -> Term;
}

/// What the kernel reads of a block; slices of one length, at most [`BLOCK`].
pub(super) struct Inputs<'a> {
    pub(super) train: &'a [f32],
    pub(super) sampling: &'a [f32],
    pub(super) token_weights: Option<&'a [f32]>,
    pub(super) old: Option<&'a [f32]>,
    pub(super) reference: Option<&'a [f32]>,
    pub(super) entropy: Option<&'a [f32]>,
    /// Sequence weights on entry, an entry's own after loading: 0 where it is not trained on.
    pub(super) weights: [f32; BLOCK],
    /// Not read where the weight is 0.
    pub(super) advantages: [f32; BLOCK],
}

/// What makes an entry's ratio another than that of trainer and sampler.
#[derive(Clone, Copy, Default)]
pub(super) struct Adjustment {
    /// The sequence's log-ratio, nats, which stands for the entry's own.
    pub(super) level: Option<[f32; BLOCK]>,
    /// What corrects for the sampler.
    pub(super) correction: Option<BlockCorrection>,
}

/// A correction of each entry.
#[derive(Clone, Copy)]
#[expect(clippy::large_enum_variant, reason = "one stands on the stack at a time")]
pub(super) enum BlockCorrection {
    /// By its own ratio.
    OfTokens(Correction),
    /// By its sequence's.
    OfSequences {
        /// The weights.
        weights: [f32; BLOCK],
        /// 1 where a bound changed the weight, else 0.
        bounded: [f32; BLOCK],
    },
}

impl Default for Inputs<'_> {
    fn default() -> Self {
        Inputs {
            train: &[],
            sampling: &[],
            token_weights: None,
            old: None,
            reference: None,
            entropy: None,
            weights: [0.0; BLOCK],
            advantages: [0.0; BLOCK],
        }
    }
}

/// Memory that blocks share, so that it is laid out once.
pub(super) struct Scratch {
    /// The log-ratios of trainer and sampler.
    gap: [f32; BLOCK],
    /// The gradient of a block that is not whole.
    gradient: [f32; BLOCK],
}

impl Default for Scratch {
    fn default() -> Self {
        Self { gap: [0.0; BLOCK], gradient: [0.0; BLOCK] }
    }
}

/// One block to be evaluated.
pub(super) struct Block<'a, 'b, L> {
    pub(super) loss: &'a L,
    pub(super) objective: &'a PolicyObjective,
    pub(super) inputs: &'a mut Inputs<'b>,
    /// Given where the ratio is another than `exp(train − sampling)`.
    pub(super) adjustment: Option<&'a Adjustment>,
    pub(super) scratch: &'a mut Scratch,
    /// Receives the gradient.
    pub(super) gradient: &'a mut [f32],
}

impl<L: TokenLoss> Block<'_, '_, L> {
    /// Writes the gradient and returns the sums.
    pub(super) fn evaluate(self) -> Partial {
        dispatch(self)
    }
}

impl<L: TokenLoss> Kernel for Block<'_, '_, L> {
    type Output = Partial;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> Partial {
        let Block { loss, objective, inputs, adjustment, scratch, gradient: out } = self;
        let Scratch { gap, gradient: rest } = scratch;
        let length = out.len();
        inputs.load_weights(length);
        inputs.difference(inputs.train, inputs.sampling, gap);

        // A whole block's gradient is written where it belongs, a last one's by way of a whole one.
        let is_whole = length == BLOCK;
        let gradient: &mut [f32; BLOCK] = match <&mut [f32; BLOCK]>::try_from(&mut *out) {
            Ok(whole) => whole,
            Err(_) => rest,
        };
        let mut sum = match adjustment {
            None => surrogate::<FMA, L, _>(loss, inputs, gap, &Plain, gradient),
            Some(adjustment) => {
                let adjusted = Adjusted::of::<FMA>(inputs, adjustment, gap);
                surrogate::<FMA, L, _>(loss, inputs, gap, &adjusted, gradient)
            }
        };

        if let (Some(kl), Some(reference)) = (objective.kl, inputs.reference) {
            let mut distance = [0.0; BLOCK];
            inputs.difference(inputs.train, reference, &mut distance);
            penalize::<FMA>(kl, &inputs.weights, &distance, gradient, &mut sum);
        }
        if let Some(entropy) = inputs.entropy {
            reward_entropy(
                objective.entropy_coefficient as f32,
                &inputs.weights,
                entropy,
                &mut sum,
            );
        }

        if !is_whole {
            out.copy_from_slice(&rest[..length]);
        }
        sum
    }
}

impl Inputs<'_> {
    /// Multiplies the sequences' weights with the entries' own, and sets them to 0 where an entry
    /// is not trained on, and behind the end of the block.
    #[inline(always)]
    fn load_weights(&mut self, length: usize) {
        self.weights[length..].fill(0.0);
        let Some(token_weights) = self.token_weights else { return };
        for (weight, own) in self.weights.iter_mut().zip(token_weights) {
            *weight = if *own != 0.0 { *weight * own } else { 0.0 };
        }
    }

    /// Writes `a − b`, and 0 where the weight is 0, whatever stands there.
    #[inline(always)]
    fn difference(&self, a: &[f32], b: &[f32], out: &mut [f32; BLOCK]) {
        out[a.len()..].fill(0.0);
        for (((out, a), b), weight) in out.iter_mut().zip(a).zip(b).zip(&self.weights) {
            *out = if *weight != 0.0 { a - b } else { 0.0 };
        }
    }

    /// The policy's log-probabilities, and 0 where the weight is 0, whatever stands there.
    #[inline(always)]
    fn logprobs(&self) -> [f32; BLOCK] {
        let mut out = [0.0; BLOCK];
        for ((out, logprob), weight) in out.iter_mut().zip(self.train).zip(&self.weights) {
            *out = if *weight != 0.0 { *logprob } else { 0.0 };
        }
        out
    }
}

/// What a loss reads of an entry's ratios, given that of trainer and sampler.
struct Ratio {
    ratio: f32,
    log_ratio: f32,
    /// What the loss is multiplied with.
    correction: f32,
    /// Whether a bound changed that.
    bounded: bool,
}

trait Ratios {
    fn at<const FMA: bool>(&self, entry: usize, ratio: f32, log_ratio: f32) -> Ratio;
}

/// The sampler is the old policy, and needs no correction.
struct Plain;

impl Ratios for Plain {
    #[inline(always)]
    fn at<const FMA: bool>(&self, _entry: usize, ratio: f32, log_ratio: f32) -> Ratio {
        Ratio { ratio, log_ratio, correction: 1.0, bounded: false }
    }
}

/// Ratios of a block to another policy than the sampler, or of sequences, and corrections.
struct Adjusted {
    log_ratio: [f32; BLOCK],
    level: [f32; BLOCK],
    correction: [f32; BLOCK],
    bounded: [f32; BLOCK],
}

impl Adjusted {
    #[inline(always)]
    fn of<const FMA: bool>(inputs: &Inputs, adjustment: &Adjustment, gap: &[f32; BLOCK]) -> Self {
        let mut log_ratio = *gap;
        match inputs.old {
            Some(old) => inputs.difference(inputs.train, old, &mut log_ratio),
            // The policy in training stands for the old one: the ratio to the sampler is the
            // correction's.
            None if adjustment.correction.is_some() => log_ratio.fill(0.0),
            None => {}
        }

        let mut adjusted = Self {
            log_ratio,
            level: adjustment.level.unwrap_or(log_ratio),
            correction: [1.0; BLOCK],
            bounded: [0.0; BLOCK],
        };

        match adjustment.correction {
            None => return adjusted,
            Some(BlockCorrection::OfSequences { weights, bounded }) => {
                adjusted.correction = weights;
                adjusted.bounded = bounded;
            }
            Some(BlockCorrection::OfTokens(correction)) => {
                let mut to_sampler = *gap;
                if let Some(old) = inputs.old {
                    inputs.difference(old, inputs.sampling, &mut to_sampler);
                }
                for (entry, log_ratio) in to_sampler.into_iter().enumerate() {
                    let (weight, bounded) = correction.weigh(exp::<FMA>(log_ratio));
                    adjusted.correction[entry] = weight;
                    adjusted.bounded[entry] = if bounded { 1.0 } else { 0.0 };
                }
            }
        }

        // An entry that is not trained on may stand in a sequence whose correction is bounded.
        for (bounded, weight) in adjusted.bounded.iter_mut().zip(&inputs.weights) {
            *bounded = if *weight != 0.0 { *bounded } else { 0.0 };
        }
        adjusted
    }
}

impl Ratios for Adjusted {
    #[inline(always)]
    fn at<const FMA: bool>(&self, entry: usize, _ratio: f32, _log_ratio: f32) -> Ratio {
        Ratio {
            ratio: exp::<FMA>(self.level[entry]),
            log_ratio: self.log_ratio[entry],
            correction: self.correction[entry],
            bounded: self.bounded[entry] > 0.0,
        }
    }
}

/// Partial sums of a block, a lane each.
#[derive(Clone, Copy)]
struct Sums {
    loss: [f32; LANES],
    tokens: [f32; LANES],
    log_ratio: [f32; LANES],
    kl_k3: [f32; LANES],
    gap: [f32; LANES],
    gap_max: [f32; LANES],
    ratio_min: [f32; LANES],
    ratio_max: [f32; LANES],
    clipped: [f32; LANES],
}

#[inline(always)]
fn surrogate<const FMA: bool, L: TokenLoss, R: Ratios>(
    loss: &L,
    inputs: &Inputs,
    gap: &[f32; BLOCK],
    ratios: &R,
    gradient: &mut [f32; BLOCK],
) -> Partial {
    let zero = [0.0; LANES];
    let logprobs = if L::READS_LOGPROB { inputs.logprobs() } else { [0.0; BLOCK] };
    let mut sum = zero;
    let mut tokens = zero;
    let mut log_ratio = zero;
    let mut kl_k3 = zero;
    let mut gap_sum = zero;
    let mut gap_max = zero;
    let mut ratio_min = [f32::INFINITY; LANES];
    let mut ratio_max = zero;
    let mut clipped = zero;

    for start in (0..BLOCK).step_by(LANES) {
        for lane in 0..LANES {
            let entry = start + lane;
            let d = gap[entry];
            let weight = inputs.weights[entry];
            let live = weight != 0.0;
            let ratio = exp::<FMA>(d);

            let own = ratios.at::<FMA>(entry, ratio, d);
            let term = loss.term::<FMA>(Token {
                ratio: own.ratio,
                log_ratio: own.log_ratio,
                logprob: if L::READS_LOGPROB { logprobs[entry] } else { 0.0 },
                // Nothing clips an advantage of 0 at a ratio of 1.
                advantage: if live { inputs.advantages[entry] } else { 0.0 },
            });
            gradient[entry] = weight * (own.correction * term.gradient);
            sum[lane] += weight * (own.correction * term.loss);
            clipped[lane] += if term.clipped | own.bounded { 1.0 } else { 0.0 };

            tokens[lane] += if live { 1.0 } else { 0.0 };
            log_ratio[lane] += d;
            kl_k3[lane] += bregman::<FMA>(d);
            gap_sum[lane] += d.abs();
            gap_max[lane] = larger(d.abs(), gap_max[lane]);
            ratio_min[lane] = smaller(if live { ratio } else { f32::INFINITY }, ratio_min[lane]);
            ratio_max[lane] = larger(if live { ratio } else { 0.0 }, ratio_max[lane]);
        }
    }

    Sums {
        loss: sum,
        tokens,
        log_ratio,
        kl_k3,
        gap: gap_sum,
        gap_max,
        ratio_min,
        ratio_max,
        clipped,
    }
    .partial()
}

impl Sums {
    fn partial(&self) -> Partial {
        let sum = |lanes: [f32; LANES]| lanes.into_iter().map(f64::from).sum::<f64>();
        let log_ratio = sum(self.log_ratio);
        let kl_k3 = sum(self.kl_k3);
        let metrics = PolicyMetrics {
            tokens: sum(self.tokens) as u64,
            ratio_excess: kl_k3 + log_ratio,
            ratio_min: self.ratio_min.into_iter().fold(f32::INFINITY, smaller),
            ratio_max: self.ratio_max.into_iter().fold(0.0, larger),
            clipped: sum(self.clipped) as u64,
            kl_k1: -log_ratio,
            kl_k3,
            gap: sum(self.gap),
            gap_max: self.gap_max.into_iter().fold(0.0, larger),
            ..PolicyMetrics::default()
        };
        Partial { loss: sum(self.loss), metrics }
    }
}

/// Adds the KL penalty to loss and gradient.
#[inline(always)]
fn penalize<const FMA: bool>(
    kl: KlPenalty,
    weights: &[f32; BLOCK],
    distance: &[f32; BLOCK],
    gradient: &mut [f32; BLOCK],
    sum: &mut Partial,
) {
    let beta = kl.coefficient as f32;
    let mut loss = [0.0; LANES];
    let mut estimate = [0.0; LANES];

    for start in (0..BLOCK).step_by(LANES) {
        for lane in 0..LANES {
            let (value, slope) = kl.estimator.of::<FMA>(distance[start + lane]);
            let weight = weights[start + lane] * beta;
            gradient[start + lane] += weight * slope;
            loss[lane] += weight * value;
            estimate[lane] += value;
        }
    }

    sum.loss += loss.into_iter().map(f64::from).sum::<f64>();
    sum.metrics.reference_kl += estimate.into_iter().map(f64::from).sum::<f64>();
}

/// Adds the entropy to the metrics, and its bonus to the loss.
#[inline(always)]
fn reward_entropy(eta: f32, weights: &[f32; BLOCK], entropy: &[f32], sum: &mut Partial) {
    let mut bonus = 0.0;
    let mut total = 0.0;

    for (entropy, weight) in entropy.iter().zip(weights).filter(|(_, weight)| **weight != 0.0) {
        bonus += f64::from(eta * weight * entropy);
        total += f64::from(*entropy);
    }

    sum.loss -= bonus;
    sum.metrics.entropy += total;
    sum.metrics.entropy_tokens += sum.metrics.tokens;
}
