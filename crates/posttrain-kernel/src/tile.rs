//! Small dense products over panels sixteen numbers wide: what the attention of whole texts is made
//! of.
//!
//! A head's rows stand in [`Panels`]: the first sixteen numbers of every row, then the next
//! sixteen, and so on. Whichever way a product runs over them, it reads whole strips that lie side
//! by side, and no strip is ever gathered.

use crate::simd::{LANES, mul_add};

/// Sixteen numbers side by side.
pub(crate) type Strip = [f32; LANES];

/// Sixteen strips.
pub(crate) type Tile = [Strip; LANES];

/// Strips summed at a time: eight AVX2 registers of sums, which hide the latency of their
/// additions.
pub(crate) const ROWS: usize = 4;

/// A matrix `[rows, width]` as panels `[width/16][rows][16]`, with zeros where the width ends
/// within a panel.
pub(crate) struct Panels {
    rows: usize,
    strips: Vec<Strip>,
}

impl Panels {
    /// Zeros, with room for `rows` rounded up to whole tiles.
    pub fn new(rows: usize, width: usize) -> Self {
        let rows = rows.next_multiple_of(LANES).max(LANES);
        Self { rows, strips: vec![[0.0; LANES]; rows * width.div_ceil(LANES)] }
    }

    #[inline(always)]
    pub fn panels(&self) -> impl Iterator<Item = &[Strip]> {
        self.strips.chunks_exact(self.rows)
    }

    #[inline(always)]
    pub fn panels_mut(&mut self) -> impl Iterator<Item = &mut [Strip]> {
        self.strips.chunks_exact_mut(self.rows)
    }

    /// Each panel's first tile: all there is, where there is room for sixteen rows.
    #[inline(always)]
    pub fn tiles(&self) -> impl Iterator<Item = &Tile> {
        self.strips.chunks_exact(self.rows).filter_map(|panel| panel.first_chunk())
    }

    #[inline(always)]
    pub fn tiles_mut(&mut self) -> impl Iterator<Item = &mut Tile> {
        self.strips.chunks_exact_mut(self.rows).filter_map(|panel| panel.first_chunk_mut())
    }

    /// Writes a row of `width` numbers.
    #[inline(always)]
    pub fn put(&mut self, row: usize, values: &[f32]) {
        // Whole strips by themselves: a copy of unknown length is a call.
        let (whole, rest) = values.as_chunks::<LANES>();
        let mut panels = self.strips.chunks_exact_mut(self.rows);
        whole.iter().zip(&mut panels).for_each(|(strip, panel)| panel[row] = *strip);
        if let (false, Some(panel)) = (rest.is_empty(), panels.next()) {
            panel[row][..rest.len()].copy_from_slice(rest);
        }
    }

    /// Reads a row of `width` numbers.
    #[inline(always)]
    pub fn get(&self, row: usize, values: &mut [f32]) {
        let (whole, rest) = values.as_chunks_mut::<LANES>();
        let mut panels = self.strips.chunks_exact(self.rows);
        whole.iter_mut().zip(&mut panels).for_each(|(strip, panel)| *strip = panel[row]);
        if let (false, Some(panel)) = (rest.is_empty(), panels.next()) {
            rest.copy_from_slice(&panel[row][..rest.len()]);
        }
    }

    /// Sets rows to zero.
    #[inline(always)]
    pub fn clear(&mut self, rows: std::ops::Range<usize>) {
        for panel in self.strips.chunks_exact_mut(self.rows) {
            panel[rows.clone()].fill([0.0; LANES]);
        }
    }
}

/// A tile with rows and columns changed about.
#[inline(always)]
pub(crate) fn transposed(tile: &Tile) -> Tile {
    std::array::from_fn(|row| std::array::from_fn(|column| tile[column][row]))
}

/// `out[row][lane] = Σ x[first + row][i]·columns[i][lane]`: rows of a matrix times sixteen columns,
/// which stand in tiles of sixteen `i` each. `first` and the length of `out` are multiples of
/// [`ROWS`].
#[inline(always)]
pub(crate) fn multiply<const FMA: bool>(
    x: &Panels,
    first: usize,
    columns: &[Tile],
    out: &mut [Strip],
) {
    for (index, out) in out.as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
        let mut sums = [[0.0; LANES]; ROWS];
        for (panel, columns) in x.panels().zip(columns) {
            add_rows::<FMA>(&mut sums, &panel[first..].as_chunks::<ROWS>().0[index], columns);
        }
        *out = sums;
    }
}

/// `out[first + row] += Σ weights[row][lane]·x[lane]`: sixteen rows of `x`, weighed for each row of
/// `out`. `first` and the length of `weights` are multiples of [`ROWS`].
#[inline(always)]
pub(crate) fn spread<const FMA: bool>(
    weights: &[Strip],
    x: &Panels,
    first: usize,
    out: &mut Panels,
) {
    for (out, x) in out.panels_mut().zip(x.tiles()) {
        let out = out[first..].as_chunks_mut::<ROWS>().0;
        for (out, weights) in out.iter_mut().zip(weights.as_chunks::<ROWS>().0) {
            let mut sums = *out;
            add_rows::<FMA>(&mut sums, weights, x);
            *out = sums;
        }
    }
}

/// `out[lane] += Σ weights[row][lane]·x[first + row]`: the rows of `x` gathered into sixteen rows
/// of `out`.
#[inline(always)]
pub(crate) fn gather<const FMA: bool>(
    weights: &[Strip],
    x: &Panels,
    first: usize,
    out: &mut Panels,
) {
    for (out, x) in out.tiles_mut().zip(x.panels()) {
        for (part, out) in out.as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
            let mut sums = *out;
            for (weights, x) in weights.iter().zip(&x[first..]) {
                let weights = &weights.as_chunks::<ROWS>().0[part];
                for row in 0..ROWS {
                    for lane in 0..LANES {
                        sums[row][lane] = mul_add::<FMA>(weights[row], x[lane], sums[row][lane]);
                    }
                }
            }
            *out = sums;
        }
    }
}

/// `sums[row] += Σ left[row][i]·right[i]`.
#[inline(always)]
fn add_rows<const FMA: bool>(sums: &mut [Strip; ROWS], left: &[Strip; ROWS], right: &Tile) {
    for (i, right) in right.iter().enumerate() {
        for row in 0..ROWS {
            for lane in 0..LANES {
                sums[row][lane] = mul_add::<FMA>(left[row][i], right[lane], sums[row][lane]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Kernel, dispatch};

    /// `[rows][width]` of small whole numbers, whose sums of products are exact.
    fn numbers(rows: usize, width: usize, seed: usize) -> Vec<Vec<f32>> {
        let number = |row, column| ((row * 31 + column * 17 + seed * 7) % 13) as f32 - 6.0;
        (0..rows).map(|row| (0..width).map(|column| number(row, column)).collect()).collect()
    }

    fn panels(matrix: &[Vec<f32>]) -> Panels {
        let mut panels = Panels::new(matrix.len(), matrix[0].len());
        matrix.iter().enumerate().for_each(|(row, values)| panels.put(row, values));
        panels
    }

    struct Products<'a> {
        keys: &'a [Vec<f32>],
        queries: &'a [Vec<f32>],
        first: usize,
    }

    impl Kernel for Products<'_> {
        /// Scores `[key][query]`, and with them as weights the keys gathered and the queries
        /// spread.
        type Output = (Vec<Strip>, Panels, Panels);

        #[inline(always)]
        fn run<const FMA: bool>(self) -> Self::Output {
            let (keys, queries) = (panels(self.keys), panels(self.queries));
            let columns: Vec<Tile> = queries.tiles().map(transposed).collect();
            let width = self.keys[0].len();
            let mut scores = vec![[0.0; LANES]; self.keys.len() - self.first];
            multiply::<FMA>(&keys, self.first, &columns, &mut scores);
            let (mut gathered, mut spread_out) =
                (Panels::new(LANES, width), Panels::new(self.keys.len(), width));
            gather::<FMA>(&scores, &keys, self.first, &mut gathered);
            spread::<FMA>(&scores, &queries, self.first, &mut spread_out);
            (scores, gathered, spread_out)
        }
    }

    #[test]
    #[allow(clippy::needless_range_loop, reason = "the places are those of two tables")]
    fn products_over_panels_are_those_of_matrices() {
        for (width, first) in [(1, 0), (16, 4), (23, 8), (64, 0)] {
            let (keys, queries) = (numbers(20, width, 1), numbers(LANES, width, 2));
            let dot = |key: usize, query: usize| -> f32 {
                (0..width).map(|i| keys[key][i] * queries[query][i]).sum()
            };
            let products = || Products { keys: &keys, queries: &queries, first };
            for (scores, gathered, spread_out) in [dispatch(products()), products().run::<false>()]
            {
                let mut row = vec![0.0; width];
                for query in 0..LANES {
                    for key in first..20 {
                        assert_eq!(scores[key - first][query], dot(key, query));
                    }
                    gathered.get(query, &mut row);
                    for (i, &got) in row.iter().enumerate() {
                        assert_eq!(
                            got,
                            (first..20).map(|key| dot(key, query) * keys[key][i]).sum::<f32>()
                        );
                    }
                }
                for key in first..20 {
                    spread_out.get(key, &mut row);
                    for (i, &got) in row.iter().enumerate() {
                        assert_eq!(
                            got,
                            (0..LANES)
                                .map(|query| dot(key, query) * queries[query][i])
                                .sum::<f32>()
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn cleared_rows_are_zero_and_others_stay() {
        let mut panels = panels(&numbers(3, 20, 1));
        panels.clear(1..2);
        let (mut kept, mut cleared) = (vec![0.0; 20], vec![1.0; 20]);
        panels.get(2, &mut kept);
        panels.get(1, &mut cleared);
        assert_eq!((kept, cleared), (numbers(3, 20, 1)[2].clone(), vec![0.0; 20]));
    }
}
