//! The native draw of one row: block sums, then the inverse of the cumulative distribution, block first.

use super::row::RowSampling;
use super::truncation;
use crate::blocks::{BLOCK, Block, Normaliser, normaliser, scan, slope, widen};
use crate::element::Element;
use crate::error::LogitProblem;
use crate::simd::{Kernel, LOWEST_EXPONENT, dispatch, exp2};

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
    let whole = normaliser(&scratch.blocks, slope)?;
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
    let token = cut.invert(row, &scratch.blocks, how.uniform * cut.whole.sum);
    let exponent = f64::from(row[token].widen()) - f64::from(whole.max);
    Ok((token as i64, (exponent / how.temperature - cut.whole.sum.ln()).min(0.0) as f32))
}

/// The distribution of a row: the logits from `lowest` up.
pub(super) struct Cut {
    /// The smallest logit that is kept.
    pub(super) lowest: f32,
    /// `log2(e) / temperature`.
    pub(super) slope: f32,
    /// The maximum, and the sum of what is kept.
    pub(super) whole: Normaliser,
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

    /// The first token at which the running sum exceeds `target`.
    fn invert<E: Element>(&self, row: &[E], blocks: &[Block], target: f64) -> usize {
        let mut before = 0.0;
        let mut last = None;
        for (index, block) in blocks.iter().enumerate() {
            let mass = self.mass(block);
            if mass > 0.0 {
                last = Some((index, block));
                if before + mass > target {
                    return self.within(row, index, block, (target - before) / self.scale(block));
                }
            }
            before += mass;
        }
        // The running sum and the sum differ by a rounding, and the draw fell between them.
        last.map_or(0, |(index, block)| self.within(row, index, block, f64::INFINITY))
    }

    /// As [`invert`](Self::invert), inside of a block and relative to its maximum; its last token at the latest.
    fn within<E: Element>(&self, row: &[E], index: usize, block: &Block, target: f64) -> usize {
        let start = index * BLOCK;
        let row = &row[start..row.len().min(start + BLOCK)];
        let mut weights = [0.0; BLOCK];
        let weights = &mut weights[..row.len()];
        dispatch(Weights { row, max: block.max, cut: self, weights });
        let (mut running, mut last) = (0.0, 0);
        for (token, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            running += f64::from(weight);
            last = token;
            if running > target {
                break;
            }
        }
        start + last
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

/// Writes the weights of a block's tokens relative to its maximum, 0 where a token is not kept, and returns their sum.
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
        let (chunks, rest) = self.weights.as_chunks::<{ crate::simd::LANES }>();
        let mut sums = [0.0; crate::simd::LANES];
        for chunk in chunks {
            for (sum, weight) in sums.iter_mut().zip(chunk) {
                *sum += weight;
            }
        }
        sums.iter().chain(rest).sum()
    }
}
