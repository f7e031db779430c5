//! Rows that lie feature by feature: the logits of a product with the weight on the left are
//! `[V][B]` in memory.

use super::choice;
use super::row::RowSampling;
use crate::blocks::{BLOCK, Block, slope};
use crate::error::LogitProblem;
use posttrain_kernel::{Kernel, LANES, dispatch, exp2, larger};
use posttrain_tensor::Element;
use rayon::prelude::*;

/// Rows that one task takes: a cache line of bf16 logits.
const ROWS: usize = 2 * LANES;

type Draw = Result<(i64, f32), LogitProblem>;

/// Draws a token for each of `rows` from `logits: [V][B]`.
pub(super) fn sample<E: Element>(logits: &[E], rows: &[RowSampling]) -> Vec<Draw> {
    let tasks: Vec<Vec<Draw>> = rows
        .par_chunks(ROWS)
        .enumerate()
        .map(|(task, some)| draw(logits, rows.len(), task * ROWS, some))
        .collect();
    tasks.into_iter().flatten().collect()
}

fn draw<E: Element>(logits: &[E], batch: usize, first: usize, rows: &[RowSampling]) -> Vec<Draw> {
    let vocab = logits.len() / batch;
    let mut blocks: Vec<Vec<Block>> =
        rows.iter().map(|_| Vec::with_capacity(vocab.div_ceil(BLOCK))).collect();
    let slopes: Vec<f32> = rows.iter().map(|how| slope(how.scoring_temperature())).collect();

    for logits in logits.chunks(BLOCK * batch) {
        for (some, lanes) in blocks.chunks_mut(LANES).enumerate() {
            let at = some * LANES;
            dispatch(Scan {
                logits,
                batch,
                first: first + at,
                slopes: &slopes[at..at + lanes.len()],
                lanes,
            });
        }
    }

    let mut gathered = Vec::new();
    let mut scratch = choice::Scratch::default();
    let drawn = rows.iter().zip(&blocks).enumerate().map(|(row, (how, blocks))| {
        let place = first + row;
        if how.greedy() || how.truncates() {
            gather(logits, batch, place, 0..vocab, &mut gathered);
            return choice::draw(&gathered, how, &mut scratch);
        }
        choice::draw_gathered(blocks, how, |index| {
            gather(
                logits,
                batch,
                place,
                index * BLOCK..vocab.min((index + 1) * BLOCK),
                &mut gathered,
            );
            &gathered
        })
    });
    drawn.collect()
}

/// A row's logits of some tokens.
fn gather<E: Element>(
    logits: &[E],
    batch: usize,
    row: usize,
    tokens: std::ops::Range<usize>,
    to: &mut Vec<E>,
) {
    to.clear();
    to.extend(logits[tokens.start * batch..tokens.end * batch].iter().skip(row).step_by(batch));
}

/// The statistics of one block of up to [`LANES`] neighboring rows, a row a lane.
struct Scan<'a, E> {
    /// `[tokens][batch]`.
    logits: &'a [E],
    batch: usize,
    first: usize,
    slopes: &'a [f32],
    lanes: &'a mut [Vec<Block>],
}

impl<E: Element> Kernel for Scan<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let count = self.lanes.len();
        let mut slopes = [0f32; LANES];
        slopes[..count].copy_from_slice(self.slopes);
        let tokens = self
            .logits
            .chunks_exact(self.batch)
            .map(|token| &token[self.first..self.first + count]);
        let (max, sum) = statistics::<E, FMA>(tokens, &slopes);

        for (lane, blocks) in self.lanes.iter_mut().enumerate() {
            blocks.push(Block { max: max[lane], sum: sum[lane], moment: 0.0 });
        }
    }
}

/// Each lane's maximum, NaN left out, and its `Σ 2^((x − max)·slope)`, which is NaN where a logit
/// is and 0 where all are -inf.
#[inline(always)]
fn statistics<'a, E: Element + 'a, const FMA: bool>(
    tokens: impl Iterator<Item = &'a [E]> + Clone,
    slopes: &[f32; LANES],
) -> ([f32; LANES], [f32; LANES]) {
    let mut max = [f32::NEG_INFINITY; LANES];
    for token in tokens.clone() {
        let wide = widen(token);
        for lane in 0..LANES {
            max[lane] = larger(wide[lane], max[lane]);
        }
    }

    // Relative to -inf nothing has a value: such a lane counts from 0, and what it sums is dropped
    // unless it is NaN.
    let from: [f32; LANES] =
        std::array::from_fn(|lane| if max[lane] == f32::NEG_INFINITY { 0.0 } else { max[lane] });
    let mut sum = [0f32; LANES];
    for token in tokens {
        let wide = widen(token);
        for lane in 0..LANES {
            sum[lane] += exp2::<FMA>((wide[lane] - from[lane]) * slopes[lane]);
        }
    }

    for lane in 0..LANES {
        if max[lane] == f32::NEG_INFINITY && !sum[lane].is_nan() {
            sum[lane] = 0.0;
        }
    }

    (max, sum)
}

/// A token's logits in f32; lanes without a row hold 0.
#[inline(always)]
fn widen<E: Element>(token: &[E]) -> [f32; LANES] {
    if let Some(token) = token.first_chunk::<LANES>() {
        return std::array::from_fn(|lane| token[lane].widen());
    }
    let mut wide = [0f32; LANES];
    wide.iter_mut().zip(token).for_each(|(to, from)| *to = from.widen());
    wide
}
