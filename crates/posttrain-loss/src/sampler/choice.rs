//! The native draw of one row: block sums, then the inverse of the cumulative distribution, block
//! first.

use super::row::RowSampling;
use super::truncation;
use crate::blocks::{BLOCK, Block, Normalizer, normalizer, scan, slope, widen};
use crate::error::LogitProblem;
use posttrain_kernel::{Kernel, LOWEST_EXPONENT, dispatch, exp2};
use posttrain_tensor::Element;

/// Memory that a thread keeps from row to row.
#[derive(Default)]
pub(super) struct Scratch {
    blocks: Vec<Block>,
    candidates: truncation::Candidates,
}

/// The token of one row and its log-probability.
pub(super) fn draw<E: Element>(
    row: &[E],
    how: &RowSampling,
    scratch: &mut Scratch,
) -> Result<(i64, f32), LogitProblem> {
    let slope = slope(how.scoring_temperature());
    scan(row, slope, false, &mut scratch.blocks);
    let whole = normalizer(&scratch.blocks, slope)?;

    if how.greedy() {
        let token = row.iter().position(|x| x.widen() == whole.max).unwrap_or_default();
        return Ok((token as i64, -whole.sum.ln() as f32));
    }

    let mut cut = Cut { lowest: f32::NEG_INFINITY, slope, whole };
    if how.truncates() {
        cut.lowest = scratch.candidates.lowest(row, how, &cut);
        truncate(row, &cut, &mut scratch.blocks);
        cut.whole.sum = scratch.blocks.iter().map(|block| cut.mass(block)).sum();
    }

    Ok(cut.pick(&scratch.blocks, how, |index| {
        &row[index * BLOCK..row.len().min((index + 1) * BLOCK)]
    }))
}

/// The same for a row that does not lie in one piece: its blocks' statistics are known, and
/// `gather` brings one block's logits together. Neither greedy nor truncating rows, which need the
/// whole row, come here.
pub(super) fn draw_gathered<'a, E: Element + 'a>(
    blocks: &[Block],
    how: &RowSampling,
    gather: impl FnOnce(usize) -> &'a [E],
) -> Result<(i64, f32), LogitProblem> {
    let slope = slope(how.scoring_temperature());
    let whole = normalizer(blocks, slope)?;
    Ok(Cut { lowest: f32::NEG_INFINITY, slope, whole }.pick(blocks, how, gather))
}

/// The distribution of a row: the logits from `lowest` up.
pub(super) struct Cut {
    /// The smallest logit that is kept.
    pub(super) lowest: f32,
    /// `log2(e) / temperature`.
    pub(super) slope: f32,
    /// The maximum, and the sum of what is kept.
    pub(super) whole: Normalizer,
}

impl Cut {
    /// A block's share of the sum.
    fn mass(&self, block: &Block) -> f64 {
        // A block of nothing but -inf has no scale.
        if block.sum > 0.0 { self.scale(block) * f64::from(block.sum) } else { 0.0 }
    }

    fn scale(&self, block: &Block) -> f64 {
        f64::from((block.max - self.whole.max) * self.slope).exp2()
    }

    /// The token that a row's uniform stands for, and its log-probability; `gather` gives a block's
    /// logits.
    fn pick<'a, E: Element + 'a>(
        &self,
        blocks: &[Block],
        how: &RowSampling,
        gather: impl FnOnce(usize) -> &'a [E],
    ) -> (i64, f32) {
        let (index, target) = self.invert(blocks, how.uniform * self.whole.sum);
        let logits = gather(index);
        let place = self.within(logits, &blocks[index], target);
        let exponent = f64::from(logits[place].widen()) - f64::from(self.whole.max);
        let logprob = (exponent / how.temperature - self.whole.sum.ln()).min(0.0);
        ((index * BLOCK + place) as i64, logprob as f32)
    }

    /// The block in which the running sum exceeds `target`, and what is left of the target there.
    fn invert(&self, blocks: &[Block], target: f64) -> (usize, f64) {
        let mut before = 0.0;
        let mut last = 0;

        for (index, block) in blocks.iter().enumerate() {
            let mass = self.mass(block);
            if mass > 0.0 {
                last = index;
                if before + mass > target {
                    return (index, (target - before) / self.scale(block));
                }
            }
            before += mass;
        }

        // The running sum and the sum differ by a rounding, and the draw fell between them.
        (last, f64::INFINITY)
    }

    /// The first place of a block at which the running sum exceeds `target`; the last one with any
    /// weight at the latest.
    fn within<E: Element>(&self, row: &[E], block: &Block, target: f64) -> usize {
        let mut weights = [0.0; BLOCK];
        let weights = &mut weights[..row.len()];
        dispatch(Weights { row, max: block.max, cut: self, weights });

        let mut running = 0.0;
        let mut last = 0;
        for (place, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            running += f64::from(weight);
            last = place;
            if running > target {
                break;
            }
        }

        last
    }
}

/// Sets each block's sum to that of the logits that are kept.
fn truncate<E: Element>(row: &[E], cut: &Cut, blocks: &mut [Block]) {
    let mut weights = [0.0; BLOCK];
    for (block, row) in blocks.iter_mut().zip(row.chunks(BLOCK)) {
        block.sum = if block.max < cut.lowest || block.sum == 0.0 {
            0.0
        } else {
            dispatch(Weights { row, max: block.max, cut, weights: &mut weights[..row.len()] })
        };
    }
}

/// Writes the weights of a block's tokens relative to its maximum, 0 where a token is not kept, and
/// returns their sum.
struct Weights<'a, E> {
    row: &'a [E],
    max: f32,
    cut: &'a Cut,
    weights: &'a mut [f32],
}

impl<E: Element> Kernel for Weights<'_, E> {
    type Output = f32;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> f32 {
        let Cut { lowest, slope, .. } = *self.cut;
        widen(self.row, self.weights);
        for weight in self.weights.iter_mut() {
            let x = *weight;
            let t = (x - self.max) * slope;
            let kept = (x >= lowest) & (t > LOWEST_EXPONENT);
            *weight = if kept { exp2::<FMA>(t) } else { 0.0 };
        }

        let (chunks, rest) = self.weights.as_chunks::<{ posttrain_kernel::LANES }>();
        let mut sums = [0.0; posttrain_kernel::LANES];
        for chunk in chunks {
            for (sum, weight) in sums.iter_mut().zip(chunk) {
                *sum += weight;
            }
        }
        sums.iter().chain(rest).sum()
    }
}
