//! Whether probabilities are as often right as they say.

use serde::{Deserialize, Serialize};

use crate::Decision;

/// How many bins of equal width there are (Guo et al., 2017).
pub(crate) const BINS: usize = 15;

/// The decisions of about the same confidence.
///
/// ```
/// let bin = posttrain_router::ReliabilityBin { low: 0.8, high: 0.9, count: 10, confidence: 0.85, accuracy: 0.5 };
/// assert!(bin.confidence > bin.accuracy); // surer than right
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// The bin holds confidences above this (the first one, 0 too).
    pub low: f64,
    /// Up to and with this.
    pub high: f64,
    /// How many decisions it holds.
    pub count: usize,
    /// Their mean confidence; 0 of none.
    pub confidence: f64,
    /// The share of them that is right; 0 of none.
    pub accuracy: f64,
}

/// The bins of the decisions.
pub(crate) fn bins(decisions: &[Decision], truth: &[usize]) -> Vec<ReliabilityBin> {
    let mut sums = [(0_usize, 0.0, 0_usize); BINS];
    for (decision, &truth) in decisions.iter().zip(truth) {
        let confidence = decision.confidence();
        let bin = ((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
        let (count, total, right) = &mut sums[bin];
        *count += 1;
        *total += confidence;
        *right += usize::from(decision.label == truth);
    }

    let edge = |at: usize| at as f64 / BINS as f64;
    sums.into_iter()
        .enumerate()
        .map(|(at, (count, total, right))| {
            let n = count.max(1) as f64;
            ReliabilityBin {
                low: edge(at),
                high: edge(at + 1),
                count,
                confidence: total / n,
                accuracy: right as f64 / n,
            }
        })
        .collect()
}

/// The expected calibration error: `Σ nᵦ/n · |accuracyᵦ − confidenceᵦ|`; 0 of nothing.
pub(crate) fn expected_calibration_error(bins: &[ReliabilityBin]) -> f64 {
    let n: usize = bins.iter().map(|bin| bin.count).sum();
    bins.iter().map(|bin| bin.count as f64 * (bin.accuracy - bin.confidence).abs()).sum::<f64>()
        / n.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decisions(confidence: f64, n: usize) -> Vec<Decision> {
        vec![
            Decision { label: 0, probabilities: vec![confidence, 1.0 - confidence], seconds: 0.0 };
            n
        ]
    }

    #[test]
    fn edges_belong_to_the_bin_below() {
        for (confidence, bin) in [(0.0, 0), (1.0 / 15.0, 0), (0.07, 1), (0.6, 8), (1.0, 14)] {
            assert_eq!(bins(&decisions(confidence, 1), &[0])[bin].count, 1, "{confidence}");
        }
    }

    #[test]
    fn the_error_is_the_distance_to_the_diagonal() {
        // 10 at 0.9 of which 5 are right, 30 at 0.6 of which 24 are right: (10·0.4 + 30·0.2) / 40.
        let all: Vec<Decision> = [decisions(0.9, 10), decisions(0.6, 30)].concat();
        let truth: Vec<usize> = (0..40).map(|at| usize::from(!(5..34).contains(&at))).collect();
        assert!((expected_calibration_error(&bins(&all, &truth)) - 0.25).abs() < 1e-12);
        assert_eq!(expected_calibration_error(&bins(&[], &[])), 0.0);
    }

    #[test]
    fn what_is_as_often_right_as_it_says_has_none() {
        let (mut all, mut truth) = (Vec::new(), Vec::new());
        for percent in 50..=100 {
            all.extend(decisions(f64::from(percent) / 100.0, 100));
            truth.extend((0..100).map(|at| usize::from(at >= percent)));
        }
        assert!(expected_calibration_error(&bins(&all, &truth)) < 1e-9);
    }
}
