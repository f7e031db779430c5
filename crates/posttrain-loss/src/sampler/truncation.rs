//! Where top-k, top-p and min-p cut a row off: each is a smallest logit, found without sorting the
//! row.

use super::choice::Cut;
use super::row::RowSampling;
use posttrain_kernel::{Kernel, LANES, dispatch, exp2, larger};
use posttrain_tensor::Element;

/// Memory that a thread keeps from row to row.
#[derive(Default)]
pub(super) struct Candidates {
    /// The logits that may be kept.
    kept: Vec<f32>,
    /// The maximum of each stretch of the row.
    peaks: Vec<f32>,
    sorted_peaks: Vec<f32>,
}

/// Logits of a stretch: enough stretches to bound a usual top-k, few enough to look through
/// quickly.
const STRETCH: usize = 64;

impl Candidates {
    /// The smallest logit that all three filters keep, in the order top-k, top-p of what is left,
    /// min-p.
    pub(super) fn lowest<E: Element>(&mut self, row: &[E], how: &RowSampling, cut: &Cut) -> f32 {
        let by_min_p =
            how.min_p.map_or(f32::NEG_INFINITY, |min_p| ratio_cut(min_p, how.temperature, cut));
        let top_p = how.top_p.filter(|p| *p < 1.0);
        let top_k = how.top_k.filter(|k| *k < row.len());
        if top_k.is_none() && top_p.is_none() {
            return by_min_p;
        }

        self.stretches(row);
        let mut lowest = f32::NEG_INFINITY;
        if let Some(k) = top_k {
            let floor = self.peak_floor(k);
            self.gather(row, floor);
            lowest = descending(&mut self.kept, k - 1);
            self.kept.retain(|x| *x >= lowest);
        } else if let Some(p) = top_p {
            self.gather(row, mass_floor(p, row.len(), how.temperature, cut));
        }

        if let Some(p) = top_p {
            // Without top-k the mass is that of the whole row, of which the candidates are the part
            // that matters.
            let mass = if top_k.is_some() { mass(&self.kept, cut) } else { cut.whole.sum };
            lowest = larger(lowest, nucleus(&mut self.kept, p * mass, cut));
        }

        larger(lowest, by_min_p)
    }

    fn stretches<E: Element>(&mut self, row: &[E]) {
        dispatch(Peaks { row, peaks: &mut self.peaks });
    }

    /// A logit that at least `k` logits reach: the k-th largest of the stretches' maxima.
    fn peak_floor(&mut self, k: usize) -> f32 {
        if k > self.peaks.len() {
            return f32::NEG_INFINITY;
        }
        self.sorted_peaks.clone_from(&self.peaks);
        descending(&mut self.sorted_peaks, k - 1)
    }

    /// Collects the logits from `floor` up.
    fn gather<E: Element>(&mut self, row: &[E], floor: f32) {
        self.kept.clear();
        let stretches = row.chunks(STRETCH).zip(&self.peaks).filter(|(_, peak)| **peak >= floor);
        for (stretch, _) in stretches {
            self.kept.extend(stretch.iter().map(|x| x.widen()).filter(|x| *x >= floor));
        }
    }
}

/// The logit at which a token is `ratio` times as likely as the likeliest.
fn ratio_cut(ratio: f64, temperature: f64, cut: &Cut) -> f32 {
    (f64::from(cut.whole.max) + temperature * ratio.ln()) as f32
}

/// A logit below which no token belongs to the nucleus: tokens under `(1 − p) / V` of the mass have
/// less than `1 − p` together, so the likelier ones reach `p` without them.
fn mass_floor(p: f64, vocab: usize, temperature: f64, cut: &Cut) -> f32 {
    // A thousandth less, against the rounding of f32.
    ratio_cut(0.999 * (1.0 - p) * cut.whole.sum / vocab as f64, temperature, cut)
}

/// The `rank`-th largest value, counted from 0, in linear time.
fn descending(values: &mut [f32], rank: usize) -> f32 {
    let rank = rank.min(values.len() - 1);
    *values.select_nth_unstable_by(rank, |a, b| b.total_cmp(a)).1
}

/// The smallest logit of the nucleus: the likeliest tokens, up to the one with which their mass
/// reaches `target`.
///
/// Halves the range in which that one lies by selection and keeps the sum of what is above: linear
/// time in all.
fn nucleus(values: &mut [f32], target: f64, cut: &Cut) -> f32 {
    let mut rest = values;
    let mut above = 0.0;
    while rest.len() > 1 {
        let middle = rest.len() / 2;
        rest.select_nth_unstable_by(middle, |a, b| b.total_cmp(a));
        let upper = mass(&rest[..middle], cut);
        if above + upper >= target {
            rest = &mut rest[..middle];
        } else {
            above += upper;
            rest = &mut rest[middle..];
        }
    }

    rest.first().copied().unwrap_or(f32::NEG_INFINITY)
}

/// The sum of exponentials of some logits, relative to the row's maximum.
fn mass(values: &[f32], cut: &Cut) -> f64 {
    values
        .chunks(crate::blocks::BLOCK)
        .map(|values| f64::from(dispatch(Mass { values, cut })))
        .sum()
}

struct Mass<'a> {
    values: &'a [f32],
    cut: &'a Cut,
}

impl Kernel for Mass<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> f32 {
        let weight = |x: f32| exp2::<FMA>((x - self.cut.whole.max) * self.cut.slope);
        let (chunks, rest) = self.values.as_chunks::<LANES>();
        let mut sums = [0.0; LANES];
        for chunk in chunks {
            for lane in 0..LANES {
                sums[lane] += weight(chunk[lane]);
            }
        }

        sums.iter().sum::<f32>() + rest.iter().map(|&x| weight(x)).sum::<f32>()
    }
}

struct Peaks<'a, E> {
    row: &'a [E],
    peaks: &'a mut Vec<f32>,
}

impl<E: Element> Kernel for Peaks<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        self.peaks.clear();
        let (stretches, rest) = self.row.as_chunks::<STRETCH>();
        for stretch in stretches {
            let mut peak = [f32::NEG_INFINITY; LANES];
            for chunk in stretch.as_chunks::<LANES>().0 {
                for lane in 0..LANES {
                    peak[lane] = larger(chunk[lane].widen(), peak[lane]);
                }
            }
            self.peaks.push(peak.into_iter().fold(f32::NEG_INFINITY, larger));
        }

        if !rest.is_empty() {
            self.peaks.push(rest.iter().fold(f32::NEG_INFINITY, |peak, x| larger(x.widen(), peak)));
        }
    }
}
