//! Attention of whole texts, forward.

use crate::key_values::Beginning;
use crate::packed::PackedText;
use crate::packed_rows::{Projections, Sixteen, Stretch, seen};
use crate::simd::{Kernel, LANES, exp2, larger};
use crate::tile::{Panels, ROWS, Strip, Tile, gather, multiply, transposed};
use posttrain_tensor::Element;

/// The forward pass over a packing.
pub(crate) struct Forward<'a, E> {
    pub input: Projections<'a, E>,
    pub texts: &'a [PackedText],
    /// What was read before each text; none at all where nothing was.
    pub before: &'a [Vec<Beginning<'a, E>>],
    /// `[N][query·d]`.
    pub out: &'a mut [E],
    /// `[N][query]`.
    pub log_sums: &'a mut [f32],
    pub scratch: &'a mut Scratch,
}

/// Memory that is kept from text to text: linear in the longest.
pub(crate) struct Scratch {
    /// Keys of a text's tokens, then values.
    keys: Panels,
    values: Panels,
    /// Sixteen queries, row by row and column by column.
    queries: Panels,
    columns: Vec<Tile>,
    /// `[token][query]`.
    scores: Vec<Strip>,
    sums: Panels,
    row: Vec<f32>,
}

impl Scratch {
    /// Room for texts of up to `longest` tokens.
    pub fn new(longest: usize, width: usize) -> Self {
        Self {
            keys: Panels::new(longest, width),
            values: Panels::new(longest, width),
            queries: Panels::new(LANES, width),
            columns: vec![[[0.0; LANES]; LANES]; width.div_ceil(LANES)],
            scores: vec![[0.0; LANES]; longest.next_multiple_of(ROWS)],
            sums: Panels::new(LANES, width),
            row: vec![0.0; width],
        }
    }
}

impl<E: Element> Kernel for Forward<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(mut self) {
        let mut row = 0;
        for (index, text) in self.texts.iter().enumerate() {
            for kv_head in 0..self.input.heads.key_value {
                let read = self.load(index, kv_head);
                let (prompt, completions) = Stretch::all(text, row, read);
                self.stretch::<FMA>(prompt, kv_head);
                // The prompt's keys and values stay; a completion's take the place of the one's
                // before.
                for completion in completions {
                    self.stretch::<FMA>(completion, kv_head);
                }
            }
            row += text.tokens();
        }
    }
}

impl<E: Element> Forward<'_, E> {
    /// Brings in the keys and values of what was read before a text, and counts its tokens.
    #[inline(always)]
    fn load(&mut self, text: usize, kv_head: usize) -> usize {
        let Scratch { keys, values, row, .. } = &mut *self.scratch;
        let heads = self.input.heads;

        let mut read = 0;
        for part in self.before.get(text).into_iter().flatten() {
            for token in 0..part.tokens {
                part.layer.key(heads, token, kv_head, row);
                keys.put(read, row);
                part.layer.value(heads, token, kv_head, row);
                values.put(read, row);
                read += 1;
            }
        }
        read
    }

    #[inline(always)]
    fn stretch<const FMA: bool>(&mut self, stretch: Stretch, kv_head: usize) {
        let Scratch { keys, values, row, .. } = &mut *self.scratch;
        for (at, place) in (stretch.row..).zip(stretch.places()) {
            self.input.key(at, kv_head, row);
            keys.put(place, row);
            self.input.value(at, kv_head, row);
            values.put(place, row);
        }

        let group = self.input.heads.query / self.input.heads.key_value;
        for sixteen in stretch.sixteens(kv_head, group) {
            self.attend::<FMA>(sixteen);
        }
    }

    #[inline(always)]
    fn attend<const FMA: bool>(&mut self, sixteen: Sixteen) {
        let Scratch { keys, values, queries, columns, scores, sums, row } = &mut *self.scratch;
        let width = self.input.heads.width;

        sixteen.load(row, queries, |at, head, to| self.input.query(at, head, to));
        columns.iter_mut().zip(queries.tiles()).for_each(|(to, tile)| *to = transposed(tile));

        let limits = sixteen.limits();
        let longest = limits[LANES - 1] as usize;
        multiply::<FMA>(keys, 0, columns, &mut scores[..longest.next_multiple_of(ROWS)]);

        let scale = 1.0 / (width as f32).sqrt();
        let (max, sum) =
            soften::<FMA>(&mut scores[..longest], &limits, scale * std::f32::consts::LOG2_E);

        sums.clear(0..LANES);
        gather::<FMA>(&scores[..longest], values, 0, sums);

        for lane in 0..sixteen.count {
            let (at, head) = sixteen.query(lane);
            let index = at * self.input.heads.query + head;
            self.log_sums[index] = max[lane] * scale + sum[lane].ln();

            sums.get(lane, row);
            let share = 1.0 / sum[lane];
            let out = &mut self.out[index * width..][..width];
            out.iter_mut().zip(&*row).for_each(|(out, sum)| *out = E::narrow(sum * share));
        }
    }
}

/// `2^(slope·(score − max))` in place, 0 for a token that a lane does not see; and each lane's
/// largest score and sum.
#[inline(always)]
fn soften<const FMA: bool>(
    scores: &mut [Strip],
    limits: &[u32; LANES],
    slope: f32,
) -> (Strip, Strip) {
    // Lanes are in the order of their tokens: what the first sees, all see.
    let shared = (limits[0] as usize).min(scores.len());
    let (seen_by_all, rest) = scores.split_at_mut(shared);

    let mut max = [f32::NEG_INFINITY; LANES];
    let mut sum = [0.0; LANES];
    for scores in &*seen_by_all {
        max = std::array::from_fn(|lane| larger(scores[lane], max[lane]));
    }
    for (token, scores) in (shared..).zip(&*rest) {
        let scores = seen(limits, token, *scores, f32::NEG_INFINITY);
        max = std::array::from_fn(|lane| larger(scores[lane], max[lane]));
    }

    for scores in seen_by_all {
        for lane in 0..LANES {
            scores[lane] = exp2::<FMA>((scores[lane] - max[lane]) * slope);
            sum[lane] += scores[lane];
        }
    }
    for (token, scores) in (shared..).zip(rest) {
        // No closure: one that is not inlined is compiled without this kernel's instructions.
        for lane in 0..LANES {
            scores[lane] = exp2::<FMA>((scores[lane] - max[lane]) * slope);
        }
        *scores = seen(limits, token, *scores, 0.0);
        for lane in 0..LANES {
            sum[lane] += scores[lane];
        }
    }

    (max, sum)
}
