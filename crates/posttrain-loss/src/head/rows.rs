//! The native softmax arithmetic over a chunk of logits: scores of each row, and its gradient in
//! place.

use crate::blocks::{normalizer, scan, slope};
use crate::error::{LogitProblem, LossError};
use posttrain_kernel::{Kernel, LANES, LOWEST_EXPONENT, dispatch, exp2, mul_add};
use posttrain_tensor::Element;
use rayon::prelude::*;

/// Log-probabilities of a chunk's targets and entropies of its rows, nats.
type Scores = (Vec<f32>, Vec<f32>);

/// The scores of a chunk of `rows` rows, each with the same number of `targets`, which lie within
/// the vocabulary.
///
/// # Errors
/// The first row of the chunk without a distribution, and why.
pub(super) fn scores<E: Element>(
    logits: &[E],
    targets: &[i64],
    rows: usize,
    temperature: f64,
) -> Result<Scores, (usize, LogitProblem)> {
    let each = (targets.len() / rows.max(1)).max(1);
    let vocab = (logits.len() / rows.max(1)).max(1);
    let slope = slope(temperature);
    let mut logprobs = vec![0.0; targets.len()];

    let work = logits
        .par_chunks_exact(vocab)
        .zip(targets.par_chunks(each))
        .zip(logprobs.par_chunks_mut(each));
    let entropies: Vec<Result<f32, LogitProblem>> = work
        .map_init(Vec::new, |blocks, ((row, targets), logprobs)| {
            scan(row, slope, true, blocks);
            let whole = normalizer(blocks, slope)?;
            let log_sum = whole.sum.ln();
            for (logprob, target) in logprobs.iter_mut().zip(targets) {
                let distance = f64::from(row[*target as usize].widen()) - f64::from(whole.max);
                *logprob = (distance / temperature - log_sum).min(0.0) as f32;
            }
            let entropy = log_sum - std::f64::consts::LN_2 * whole.moment / whole.sum;
            Ok(entropy.max(0.0) as f32)
        })
        .collect();

    let named = entropies
        .into_iter()
        .enumerate()
        .map(|(row, entropy)| entropy.map_err(|problem| (row, problem)));
    Ok((logprobs, named.collect::<Result<_, _>>()?))
}

/// What the gradients of a chunk's logits need, a row after the other.
pub(super) struct RowGradients<'a> {
    /// `[C · K]`, within the vocabulary.
    pub(super) targets: &'a [i64],
    /// `[C · K]`, the targets' log-probabilities.
    pub(super) logprobs: &'a [f32],
    /// `[C]`, the rows' entropies.
    pub(super) entropies: &'a [f32],
    /// `[C · K]`, the loss's derivative by each log-probability.
    pub(super) by_logprob: &'a [f32],
    /// `[C]`, the loss's derivative by each entropy.
    pub(super) by_entropy: Option<&'a [f32]>,
}

/// One row's.
struct Row<'a> {
    targets: &'a [i64],
    logprobs: &'a [f32],
    entropy: f32,
    by_logprob: &'a [f32],
    by_entropy: f32,
}

impl RowGradients<'_> {
    fn row(&self, row: usize) -> Row<'_> {
        let each = self.targets.len() / self.entropies.len();
        let entries = row * each..(row + 1) * each;
        Row {
            targets: &self.targets[entries.clone()],
            logprobs: &self.logprobs[entries.clone()],
            entropy: self.entropies[row],
            by_logprob: &self.by_logprob[entries],
            by_entropy: self.by_entropy.map_or(0.0, |by_entropy| by_entropy[row]),
        }
    }

    /// Refuses an entry whose gradient is not a number. `start` is the first row's place in the
    /// batch.
    pub(super) fn check(&self, start: usize) -> Result<(), LossError> {
        for row in 0..self.entropies.len() {
            self.row(row).check(start + row)?;
        }
        Ok(())
    }
}

impl Row<'_> {
    fn is_zero(&self) -> bool {
        self.by_entropy == 0.0 && self.by_logprob.iter().all(|by_logprob| *by_logprob == 0.0)
    }

    /// The likeliest target of the row: what its probabilities are computed relative to.
    fn anchor(&self) -> usize {
        let likelier = |best: usize, entry: usize| {
            if self.logprobs[entry] > self.logprobs[best] { entry } else { best }
        };
        (1..self.targets.len()).fold(0, likelier)
    }

    fn check(&self, index: usize) -> Result<(), LossError> {
        let refuse = |argument, index, value| Err(LossError::NonFinite { argument, index, value });
        for (entry, by_logprob) in self.by_logprob.iter().enumerate() {
            let place = index * self.targets.len() + entry;
            let logprob = self.logprobs[entry];
            if !by_logprob.is_finite() {
                return refuse("gradients.logprobs", place, *by_logprob);
            }
            if *by_logprob != 0.0 && !logprob.is_finite() {
                return refuse("scores.logprobs", place, logprob);
            }
        }

        let anchor = self.anchor();
        if !self.by_entropy.is_finite() {
            return refuse("gradients.entropy", index, self.by_entropy);
        }
        if !self.is_zero() && !self.logprobs[anchor].is_finite() {
            return refuse(
                "scores.logprobs",
                index * self.targets.len() + anchor,
                self.logprobs[anchor],
            );
        }
        if self.by_entropy != 0.0 && !self.entropy.is_finite() {
            return refuse("scores.entropy", index, self.entropy);
        }
        Ok(())
    }
}

/// Overwrites each row's logits with the loss's derivative by them.
pub(super) fn gradients<E: Element>(logits: &mut [E], rows: &RowGradients, temperature: f64) {
    let vocab = logits.len() / rows.entropies.len().max(1);
    let work = logits.par_chunks_exact_mut(vocab.max(1)).enumerate();
    work.for_each_init(Vec::new, |own, (index, logits)| {
        let row = rows.row(index);
        if row.is_zero() {
            logits.fill(E::narrow(0.0));
        } else {
            dispatch(Gradient { logits, row: &row, own, temperature });
        }
    });
}

struct Gradient<'a, 'b, E> {
    logits: &'a mut [E],
    row: &'a Row<'b>,
    /// Scratch: each target with its own logit and what its log-probability adds to the derivative
    /// by it.
    own: &'a mut Vec<(usize, f32, f32)>,
    temperature: f64,
}

impl<E: Element> Kernel for Gradient<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Gradient { logits, row, own, temperature } = self;
        let warmth = (1.0 / temperature) as f32;
        own.clear();
        for (target, by_logprob) in row.targets.iter().zip(row.by_logprob) {
            own.push((*target as usize, logits[*target as usize].widen(), by_logprob * warmth));
        }

        // log2 p_j = (x_j − x_anchor) · slope + log2 p_anchor: no normalizer is needed, and no
        // digits are lost to one.
        let anchor = row.anchor();
        let at_anchor = own[anchor].1;
        let slope = slope(temperature);
        let offset = row.logprobs[anchor] * std::f32::consts::LOG2_E;
        // −(Σ g + g_H · (H + ln p_j)) / T, as a line in log2 p_j.
        let by_logprobs: f32 = row.by_logprob.iter().sum();
        let level = -(by_logprobs + row.by_entropy * row.entropy) * warmth;
        let tilt = -row.by_entropy * std::f32::consts::LN_2 * warmth;
        let derivative = |x: f32| {
            let t = mul_add::<FMA>(x - at_anchor, slope, offset);
            let value = exp2::<FMA>(t) * mul_add::<FMA>(tilt, t, level);
            // Too small to matter, and at -inf not a number.
            if t > LOWEST_EXPONENT / 2.0 { value } else { 0.0 }
        };

        let (chunks, rest) = logits.as_chunks_mut::<LANES>();
        for chunk in chunks {
            for logit in chunk {
                *logit = E::narrow(derivative(logit.widen()));
            }
        }
        rest.iter_mut().for_each(|logit| *logit = E::narrow(derivative(logit.widen())));

        // A target that stands there twice has the sum of both, rounded once.
        own.sort_by_key(|(target, ..)| *target);
        for same in own.chunk_by(|a, b| a.0 == b.0) {
            let (target, logit, _) = same[0];
            let added: f32 = same.iter().map(|(.., added)| added).sum();
            logits[target] = E::narrow(derivative(logit) + added);
        }
    }
}
