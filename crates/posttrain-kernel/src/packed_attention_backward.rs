//! Attention of whole texts, backward: weights are formed anew, block by block, from the saved
//! logarithms of their sums (Dao, 2023, <https://arxiv.org/abs/2307.08691>).

use crate::packed::PackedText;
use crate::packed_rows::{Projections, Sixteen, Stretch, seen};
use crate::simd::{Kernel, LANES, exp2, mul_add};
use crate::tile::{Panels, ROWS, Strip, Tile, gather, multiply, spread, transposed};
use posttrain_tensor::Element;

/// Tokens whose weights are formed at a time: with their keys and values they stay in the first
/// cache.
const BLOCK: usize = 32;

/// The backward pass over a packing.
pub(crate) struct Backward<'a, E> {
    pub input: Projections<'a, E>,
    pub texts: &'a [PackedText],
    /// `[N][query·d]`: what the forward pass gave, and the gradient by it.
    pub out: &'a [E],
    pub gradient: &'a [E],
    /// `[N][query]`.
    pub log_sums: &'a [f32],
    /// `[N][(query + 2·key_value)·d]`.
    pub by_qkv: &'a mut [E],
    pub scratch: &'a mut Scratch,
}

/// Memory that is kept from text to text: linear in the longest.
pub(crate) struct Scratch {
    /// Keys and values of a text's tokens, and their gradients.
    keys: Panels,
    values: Panels,
    by_keys: Panels,
    by_values: Panels,
    queries: Rows,
    gradients: Rows,
    by_queries: Panels,
    /// `[token][query]` of a block: weights, and gradients by scores.
    weights: [Strip; BLOCK],
    by_scores: [Strip; BLOCK],
    row: Vec<f32>,
}

/// Sixteen rows, and the same column by column.
struct Rows {
    rows: Panels,
    columns: Vec<Tile>,
}

impl Rows {
    fn new(width: usize) -> Self {
        let columns = vec![[[0.0; LANES]; LANES]; width.div_ceil(LANES)];
        Self { rows: Panels::new(LANES, width), columns }
    }

    #[inline(always)]
    fn load(&mut self, sixteen: Sixteen, row: &mut [f32], read: impl Fn(usize, usize, &mut [f32])) {
        sixteen.load(row, &mut self.rows, read);
        self.columns
            .iter_mut()
            .zip(self.rows.tiles())
            .for_each(|(to, tile)| *to = transposed(tile));
    }
}

impl Scratch {
    /// Room for texts of up to `longest` tokens.
    pub fn new(longest: usize, width: usize) -> Self {
        let panels = || Panels::new(longest, width);
        Self {
            keys: panels(),
            values: panels(),
            by_keys: panels(),
            by_values: panels(),
            queries: Rows::new(width),
            gradients: Rows::new(width),
            by_queries: Panels::new(LANES, width),
            weights: [[0.0; LANES]; BLOCK],
            by_scores: [[0.0; LANES]; BLOCK],
            row: vec![0.0; width],
        }
    }
}

impl<E: Element> Kernel for Backward<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(mut self) {
        let mut row = 0;
        for text in self.texts {
            for kv_head in 0..self.input.heads.key_value {
                let (prompt, completions) = Stretch::all(text, row, 0);
                self.stretch::<FMA>(prompt, kv_head);
                // The prompt's gradients go on growing while its completions come and go.
                for completion in completions {
                    self.stretch::<FMA>(completion, kv_head);
                    self.write(completion, kv_head);
                }
                self.write(prompt, kv_head);
            }
            row += text.tokens();
        }
    }
}

impl<E: Element> Backward<'_, E> {
    #[inline(always)]
    fn stretch<const FMA: bool>(&mut self, stretch: Stretch, kv_head: usize) {
        let Scratch { keys, values, by_keys, by_values, row, .. } = &mut *self.scratch;
        for (at, place) in (stretch.row..).zip(stretch.places()) {
            self.input.key(at, kv_head, row);
            keys.put(place, row);
            self.input.value(at, kv_head, row);
            values.put(place, row);
        }

        by_keys.clear(stretch.places());
        by_values.clear(stretch.places());

        let group = self.input.heads.query / self.input.heads.key_value;
        for sixteen in stretch.sixteens(kv_head, group) {
            self.walk_back::<FMA>(sixteen);
        }
    }

    /// The gradients of a stretch's keys and values, now complete, as those of its projections.
    #[inline(always)]
    fn write(&mut self, stretch: Stretch, kv_head: usize) {
        let Scratch { by_keys, by_values, row, .. } = &mut *self.scratch;
        let key_head = self.input.heads.query + kv_head;

        for (at, place) in (stretch.row..).zip(stretch.places()) {
            by_keys.get(place, row);
            self.input.turn_back(at, key_head, row, self.by_qkv);

            by_values.get(place, row);
            let out = &mut self.by_qkv[self.input.place(at, key_head + self.input.heads.key_value)];
            out.iter_mut().zip(&*row).for_each(|(out, gradient)| *out = E::narrow(*gradient));
        }
    }

    #[inline(always)]
    fn walk_back<const FMA: bool>(&mut self, sixteen: Sixteen) {
        let lanes = self.lanes(sixteen);
        let scratch = &mut *self.scratch;
        let row = &mut scratch.row;
        let width = self.input.heads.width;
        let heads = self.input.heads.query;

        scratch.queries.load(sixteen, row, |at, head, to| self.input.query(at, head, to));
        scratch.gradients.load(sixteen, row, |at, head, to| {
            let from = &self.gradient[(at * heads + head) * width..][..width];
            to.iter_mut().zip(from).for_each(|(to, from)| *to = from.widen());
        });

        scratch.by_queries.clear(0..LANES);
        let longest = (lanes.limits[LANES - 1] as usize).next_multiple_of(ROWS);
        for first in (0..longest).step_by(BLOCK) {
            scratch.block::<FMA>(&lanes, first, BLOCK.min(longest - first));
        }

        for lane in 0..sixteen.count {
            let (at, head) = sixteen.query(lane);
            scratch.by_queries.get(lane, &mut scratch.row);
            self.input.turn_back(at, head, &scratch.row, self.by_qkv);
        }
    }

    /// What the gradient by a score needs of its query.
    #[inline(always)]
    fn lanes(&self, sixteen: Sixteen) -> Lanes {
        let width = self.input.heads.width;
        let heads = self.input.heads.query;
        let mut log_sums = [0.0; LANES];
        let mut dots = [0.0; LANES];

        for lane in 0..sixteen.count {
            let (at, head) = sixteen.query(lane);
            let index = at * heads + head;
            let place = index * width..(index + 1) * width;
            log_sums[lane] = self.log_sums[index] * std::f32::consts::LOG2_E;
            dots[lane] = dot(&self.out[place.clone()], &self.gradient[place]);
        }

        Lanes { limits: sixteen.limits(), log_sums, dots, scale: 1.0 / (width as f32).sqrt() }
    }
}

/// Sixteen queries' numbers, a lane each.
struct Lanes {
    limits: [u32; LANES],
    /// log₂ of the sums of exponentials.
    log_sums: Strip,
    /// `out·gradient`.
    dots: Strip,
    /// `1/√d`.
    scale: f32,
}

impl Scratch {
    /// Adds what a block of tokens has to do with sixteen queries to the gradients of both.
    #[inline(always)]
    fn block<const FMA: bool>(&mut self, lanes: &Lanes, first: usize, tokens: usize) {
        let weights = &mut self.weights[..tokens];
        let by_scores = &mut self.by_scores[..tokens];
        multiply::<FMA>(&self.keys, first, &self.queries.columns, weights);
        multiply::<FMA>(&self.values, first, &self.gradients.columns, by_scores);

        let slope = lanes.scale * std::f32::consts::LOG2_E;
        for (token, (weights, by_scores)) in (first..).zip(weights.iter_mut().zip(&mut *by_scores))
        {
            // No closure: one that is not inlined is compiled without this kernel's instructions.
            for (weight, log_sum) in weights.iter_mut().zip(lanes.log_sums) {
                *weight = exp2::<FMA>(mul_add::<FMA>(*weight, slope, -log_sum));
            }
            *weights = seen(&lanes.limits, token, *weights, 0.0);

            for i in 0..LANES {
                by_scores[i] = weights[i] * (by_scores[i] - lanes.dots[i]) * lanes.scale;
            }
        }

        spread::<FMA>(weights, &self.gradients.rows, first, &mut self.by_values);
        spread::<FMA>(by_scores, &self.queries.rows, first, &mut self.by_keys);
        gather::<FMA>(by_scores, &self.keys, first, &mut self.by_queries);
    }
}

#[inline(always)]
fn dot<E: Element>(a: &[E], b: &[E]) -> f32 {
    let mut sums = [0f32; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();

    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane].widen() * b[lane].widen();
        }
    }

    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a.widen() * b.widen()).sum();
    sums.iter().sum::<f32>() + rest
}
