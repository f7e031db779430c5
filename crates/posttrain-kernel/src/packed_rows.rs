//! The rows of a packing, read into panels for the attention of whole texts, and gradients written
//! back.

use crate::attention::Heads;
use crate::packed::PackedText;
use crate::simd::LANES;
use crate::tile::{Panels, Strip};
use posttrain_tensor::Element;
use std::ops::Range;

/// The projections of a packing, and the tables that turn them to their positions.
#[derive(Clone, Copy)]
pub(crate) struct Projections<'a, E> {
    /// `[N][(query + 2·key_value)·d]`.
    pub qkv: &'a [E],
    /// `[N][d/2]`.
    pub cos: &'a [f32],
    pub sin: &'a [f32],
    pub heads: Heads,
}

impl<E: Element> Projections<'_, E> {
    /// A query head's row, rotated.
    #[inline(always)]
    pub fn query(&self, row: usize, head: usize, to: &mut [f32]) {
        self.rotated(row, head, to);
    }

    /// A key head's row, rotated.
    #[inline(always)]
    pub fn key(&self, row: usize, head: usize, to: &mut [f32]) {
        self.rotated(row, self.heads.query + head, to);
    }

    /// A value head's row.
    #[inline(always)]
    pub fn value(&self, row: usize, head: usize, to: &mut [f32]) {
        let from = &self.qkv[self.place(row, self.heads.query + self.heads.key_value + head)];
        to.iter_mut().zip(from).for_each(|(to, from)| *to = from.widen());
    }

    #[inline(always)]
    fn rotated(&self, row: usize, head: usize, to: &mut [f32]) {
        let half = self.heads.width / 2;
        let (a, b) = self.qkv[self.place(row, head)].split_at(half);
        let (to_a, to_b) = to.split_at_mut(half);
        let (cos, sin) = (&self.cos[row * half..][..half], &self.sin[row * half..][..half]);

        for (((((to_a, to_b), a), b), cos), sin) in
            to_a.iter_mut().zip(to_b).zip(a).zip(b).zip(cos).zip(sin)
        {
            let (a, b) = (a.widen(), b.widen());
            *to_a = a * cos - b * sin;
            *to_b = b * cos + a * sin;
        }
    }

    /// Writes the gradient by a rotated query or key of `head` (keys count on from the queries) as
    /// that by its projection: rotated the other way.
    #[inline(always)]
    pub fn turn_back(&self, row: usize, head: usize, gradient: &[f32], out: &mut [E]) {
        let half = self.heads.width / 2;
        let (a, b) = gradient.split_at(half);
        let (to_a, to_b) = out[self.place(row, head)].split_at_mut(half);
        let (cos, sin) = (&self.cos[row * half..][..half], &self.sin[row * half..][..half]);

        for (((((to_a, to_b), a), b), cos), sin) in
            to_a.iter_mut().zip(to_b).zip(a).zip(b).zip(cos).zip(sin)
        {
            *to_a = E::narrow(a * cos + b * sin);
            *to_b = E::narrow(b * cos - a * sin);
        }
    }

    /// Where a head of the fused projection lies.
    #[inline(always)]
    pub fn place(&self, row: usize, head: usize) -> Range<usize> {
        let Heads { query, key_value, width } = self.heads;
        let start = (row * (query + 2 * key_value) + head) * width;
        start..start + width
    }
}

/// A stretch of tokens that attend to those before them in their text and to themselves.
#[derive(Clone, Copy)]
pub(crate) struct Stretch {
    /// The packed row of the first token.
    pub row: usize,
    /// Tokens of the text before the first.
    pub before: usize,
    pub tokens: usize,
}

impl Stretch {
    /// The prompt of a text that begins at `row`, behind `read` tokens that have no rows, and its
    /// completions.
    pub fn all(text: &PackedText, row: usize, read: usize) -> (Self, impl Iterator<Item = Self>) {
        let before = read + text.prompt;
        let mut next = row + text.prompt;
        let completions = text.completions.iter().map(move |&tokens| {
            let row = next;
            next += tokens;
            Self { row, before, tokens }
        });

        (Self { row, before: read, tokens: text.prompt }, completions)
    }

    /// The tokens' places in their text.
    pub fn places(self) -> Range<usize> {
        self.before..self.before + self.tokens
    }

    /// The stretch's queries for one key head, sixteen at a time: the query heads of a token that
    /// share the key head stand side by side, then those of the next token.
    #[inline(always)]
    pub fn sixteens(self, kv_head: usize, group: usize) -> impl Iterator<Item = Sixteen> {
        let queries = self.tokens * group;
        (0..queries).step_by(LANES).map(move |first| Sixteen {
            stretch: self,
            kv_head,
            group,
            first,
            count: LANES.min(queries - first),
        })
    }
}

/// Up to sixteen queries of a stretch: a lane each.
#[derive(Clone, Copy)]
pub(crate) struct Sixteen {
    stretch: Stretch,
    kv_head: usize,
    group: usize,
    first: usize,
    pub count: usize,
}

impl Sixteen {
    /// The packed row and the query head of a lane.
    #[inline(always)]
    pub fn query(self, lane: usize) -> (usize, usize) {
        let index = self.first + lane;
        (self.stretch.row + index / self.group, self.kv_head * self.group + index % self.group)
    }

    /// How many of its text's tokens each lane sees. A lane without a query sees what the last one
    /// does.
    #[inline(always)]
    pub fn limits(self) -> [u32; LANES] {
        std::array::from_fn(|lane| {
            let index = self.first + lane.min(self.count - 1);
            (self.stretch.before + index / self.group + 1) as u32
        })
    }

    /// Reads each lane's row by `read(row, head, to)` into `rows`, zeros for a lane without a
    /// query.
    #[inline(always)]
    pub fn load(self, row: &mut [f32], rows: &mut Panels, read: impl Fn(usize, usize, &mut [f32])) {
        for lane in 0..self.count {
            let (at, head) = self.query(lane);
            read(at, head, row);
            rows.put(lane, row);
        }

        if self.count < LANES {
            rows.clear(self.count..LANES);
        }
    }
}

/// Whether a lane sees a token: `1` or `0` for each lane.
#[inline(always)]
pub(crate) fn seen(limits: &[u32; LANES], token: usize, values: Strip, otherwise: f32) -> Strip {
    let token = token as u32;
    std::array::from_fn(|lane| if token < limits[lane] { values[lane] } else { otherwise })
}
