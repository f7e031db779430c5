//! One pass over a row of logits: the maximum and the sum of exponentials of each block of it.
//!
//! A block stays in the first-level cache while its maximum, then its exponentials are taken, so
//! that the row comes from memory once. Blocks are brought to a common scale afterwards, in f64.

use crate::error::LogitProblem;
use posttrain_kernel::{Kernel, LANES, LOWEST_EXPONENT, dispatch, exp2, larger};
use posttrain_tensor::Element;

/// Logits of a block: 4 KiB of f32.
pub(crate) const BLOCK: usize = 1024;

/// What a row says of one block of its logits `x`, with `t_j = (x_j − max) · slope`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Block {
    /// The largest logit.
    pub(crate) max: f32,
    /// `Σ 2^t_j`.
    pub(crate) sum: f32,
    /// `Σ 2^t_j · t_j`, where the entropy is asked for, else 0.
    pub(crate) moment: f32,
}

/// The normalizer of a row: its largest logit and the sum of exponentials relative to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Normalizer {
    /// The largest logit of the row.
    pub(crate) max: f32,
    /// `Σ_j 2^((x_j − max) · slope)`, at least 1.
    pub(crate) sum: f64,
    /// `Σ_j 2^t_j · t_j`, where the entropy is asked for.
    pub(crate) moment: f64,
}

/// `log2(e) / temperature`: what a difference of logits is multiplied with to become an exponent of
/// 2.
pub(crate) fn slope(temperature: f64) -> f32 {
    (std::f64::consts::LOG2_E / temperature) as f32
}

/// Fills `blocks` with the statistics of a row. Blocks of nothing but -inf have a sum of 0.
pub(crate) fn scan<E: Element>(row: &[E], slope: f32, entropy: bool, blocks: &mut Vec<Block>) {
    blocks.clear();
    if entropy {
        dispatch(Scan::<E, true> { row, slope, blocks });
    } else {
        dispatch(Scan::<E, false> { row, slope, blocks });
    }
}

/// Brings the blocks of a row to one scale.
///
/// # Errors
/// The reason why the row has no distribution.
pub(crate) fn normalizer(blocks: &[Block], slope: f32) -> Result<Normalizer, LogitProblem> {
    let max = blocks.iter().fold(f32::NEG_INFINITY, |max, block| larger(block.max, max));
    if max == f32::INFINITY {
        return Err(LogitProblem::PositiveInfinity);
    }
    if blocks.iter().any(|block| block.sum.is_nan()) {
        return Err(LogitProblem::Nan);
    }
    if max == f32::NEG_INFINITY {
        return Err(LogitProblem::NoToken);
    }

    let mut sum = 0.0;
    let mut moment = 0.0;
    for block in blocks.iter().filter(|block| block.sum > 0.0) {
        let shift = f64::from((block.max - max) * slope);
        let scale = shift.exp2();
        sum += scale * f64::from(block.sum);
        moment += scale * (f64::from(block.moment) + shift * f64::from(block.sum));
    }
    Ok(Normalizer { max, sum, moment })
}

struct Scan<'a, E, const ENTROPY: bool> {
    row: &'a [E],
    slope: f32,
    blocks: &'a mut Vec<Block>,
}

impl<E: Element, const ENTROPY: bool> Kernel for Scan<'_, E, ENTROPY> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let mut buffer = [0.0; BLOCK];
        for block in self.row.chunks(BLOCK) {
            let wide = &mut buffer[..block.len()];
            let max = widen(block, wide);
            let (sum, moment) = sums::<FMA, ENTROPY>(wide, max, self.slope);
            self.blocks.push(Block { max, sum, moment });
        }
    }
}

/// Widens a block and returns its maximum, NaN left out (the sum of exponentials shows it).
#[inline(always)]
pub(crate) fn widen<E: Element>(block: &[E], wide: &mut [f32]) -> f32 {
    let mut max = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = block.as_chunks::<LANES>();
    let (outs, out_rest) = wide.as_chunks_mut::<LANES>();

    for (chunk, out) in chunks.iter().zip(outs) {
        for lane in 0..LANES {
            out[lane] = chunk[lane].widen();
            max[lane] = larger(out[lane], max[lane]);
        }
    }

    let mut best = max.into_iter().fold(f32::NEG_INFINITY, larger);
    for (value, out) in rest.iter().zip(out_rest) {
        *out = value.widen();
        best = larger(*out, best);
    }
    best
}

#[inline(always)]
fn sums<const FMA: bool, const ENTROPY: bool>(block: &[f32], max: f32, slope: f32) -> (f32, f32) {
    // Relative to -inf nothing has a value; a NaN among them has to come through.
    if max == f32::NEG_INFINITY {
        return (if block.iter().any(|x| x.is_nan()) { f32::NAN } else { 0.0 }, 0.0);
    }

    let mut sum = [0.0; LANES];
    let mut moment = [0.0; LANES];
    let (chunks, rest) = block.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let (term, weighted) = terms::<FMA, ENTROPY>(chunk[lane], max, slope);
            sum[lane] += term;
            moment[lane] += weighted;
        }
    }

    let mut total = sum.iter().sum::<f32>();
    let mut total_moment = moment.iter().sum::<f32>();
    for &x in rest {
        let (term, weighted) = terms::<FMA, ENTROPY>(x, max, slope);
        total += term;
        total_moment += weighted;
    }
    (total, total_moment)
}

#[inline(always)]
fn terms<const FMA: bool, const ENTROPY: bool>(x: f32, max: f32, slope: f32) -> (f32, f32) {
    let t = (x - max) * slope;
    let term = exp2::<FMA>(t);
    // A term of nearly nothing times an exponent of -inf would be infinite: it counts as -126 ·
    // 2⁻¹²⁶.
    if ENTROPY { (term, term * larger(LOWEST_EXPONENT, t)) } else { (term, 0.0) }
}
