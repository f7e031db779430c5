//! The bootstrap: how far a difference would move, had other questions been asked.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A percentile interval of a mean difference, by drawing questions with replacement (Efron, 1979).
///
/// ```
/// use posttrain_statistics::PairedBootstrap;
///
/// let bootstrap = PairedBootstrap::default();
/// // Always one ahead: no other questions would show anything else.
/// assert_eq!(bootstrap.interval(&[vec![1, 1, 1]], 7), Some((1.0, 1.0)));
/// assert_eq!(bootstrap.interval(&[], 7), None);
/// let (low, high) = bootstrap.interval(&[vec![1, 0, -1, 0, 1, 0, 0, 0]], 7).unwrap();
/// assert!(low < 0.125 && 0.125 < high);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairedBootstrap {
    /// How often the questions are drawn anew.
    pub resamples: usize,
    /// The interval's confidence, between 0 and 1.
    pub level: f64,
}

/// 10,000 draws, 95%.
impl Default for PairedBootstrap {
    fn default() -> Self {
        Self { resamples: 10_000, level: 0.95 }
    }
}

impl PairedBootstrap {
    /// The interval of the mean over all strata's differences: 1 where only the first is right, −1
    /// where only the second is, 0 where they agree. Each stratum is drawn from by itself, so that
    /// every resample has as many of each. The same seed gives the same interval; none for no
    /// questions. O(resamples · questions).
    #[must_use]
    pub fn interval(&self, strata: &[Vec<i8>], seed: u64) -> Option<(f64, f64)> {
        let n: usize = strata.iter().map(Vec::len).sum();
        if n == 0 || self.resamples == 0 {
            return None;
        }
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut sums: Vec<i64> =
            (0..self.resamples).map(|_| resample(strata, &mut random)).collect();
        sums.sort_unstable();
        let tail = (1.0 - self.level.clamp(0.0, 1.0)) / 2.0;
        let mean = |share| quantile(&sums, share) / n as f64;
        Some((mean(tail), mean(1.0 - tail)))
    }
}

fn resample(strata: &[Vec<i8>], random: &mut ChaCha8Rng) -> i64 {
    let mut sum = 0;
    for stratum in strata {
        for _ in 0..stratum.len() {
            // The high half of the product is uniform over the stratum, but for 2⁻³² or so.
            let index = (u64::from(random.next_u32()) * stratum.len() as u64) >> 32;
            sum += i64::from(stratum[index as usize]);
        }
    }
    sum
}

/// The quantile of sorted values, between neighbors in proportion, as NumPy's.
fn quantile(sorted: &[i64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) =
        (sorted[place.floor() as usize] as f64, sorted[place.ceil() as usize] as f64);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let strata = [vec![1, 0, -1, 1, 0, 0, 1], vec![0, 0, 1, -1, -1]];
        let interval = |seed| PairedBootstrap::default().interval(&strata, seed).unwrap();
        assert_eq!(interval(3), interval(3));
        let few = PairedBootstrap { resamples: 25, ..PairedBootstrap::default() };
        assert_ne!(few.interval(&strata, 3), few.interval(&strata, 4), "the seed does nothing");
    }

    #[test]
    fn strata_that_differ_only_between_each_other_leave_no_doubt() {
        // All the variation is between the strata, whose sizes are fixed.
        let strata = [vec![1; 40], vec![-1; 60]];
        assert_eq!(PairedBootstrap::default().interval(&strata, 1), Some((-0.2, -0.2)));
        let together = PairedBootstrap::default().interval(&[strata.concat()], 1).unwrap();
        assert!(together.0 < -0.3 && together.1 > -0.1, "{together:?}");
    }

    #[test]
    fn quantiles_are_those_of_numpy() {
        // numpy.quantile([1, 2, 4, 8], [0, 0.1, 0.5, 1]).
        let at = [0.0, 0.1, 0.5, 1.0].map(|share| quantile(&[1, 2, 4, 8], share));
        assert!(at.iter().zip([1.0, 1.3, 3.0, 8.0]).all(|(a, b)| (a - b).abs() < 1e-12), "{at:?}");
    }
}
