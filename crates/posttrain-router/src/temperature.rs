//! The temperature that makes probabilities honest.

use crate::distribution::softmax;

/// The least and the largest temperature that are tried.
const RANGE: (f64, f64) = (0.01, 100.0);
/// A probability of 0 would cost infinitely much.
const LEAST: f64 = 1e-12;

/// The mean of `−ln p(truth)`, nats.
pub(crate) fn nll(scores: &[Vec<f64>], truth: &[usize], temperature: f64) -> f64 {
    let cost = |(scores, &label): (&Vec<f64>, &usize)| -softmax(scores, temperature)[label].max(LEAST).ln();
    scores.iter().zip(truth).map(cost).sum::<f64>() / scores.len().max(1) as f64
}

/// The temperature of the least [`nll`] (Guo et al., 2017), by golden-section search over its logarithm; the likelihood is
/// concave in `1/T`, so that there is one minimum. 1 where there is nothing to tell by.
pub(crate) fn fit_temperature(scores: &[Vec<f64>], truth: &[usize]) -> f64 {
    if scores.is_empty() {
        return 1.0;
    }
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let cost = |log: f64| nll(scores, truth, log.exp());
    let (mut low, mut high) = (RANGE.0.ln(), RANGE.1.ln());
    let (mut left, mut right) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut at_left, mut at_right) = (cost(left), cost(right));
    for _ in 0..40 {
        if at_left <= at_right {
            (high, right, at_right) = (right, left, at_left);
            left = high - ratio * (high - low);
            at_left = cost(left);
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + ratio * (high - low);
            at_right = cost(right);
        }
    }
    f64::midpoint(low, high).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_temperature_is_that_of_the_odds() {
        // Right three times of four with scores 4 apart: p = 3/4 where 4/T = ln 3.
        let scores = vec![vec![4.0, 0.0]; 4];
        let temperature = fit_temperature(&scores, &[0, 0, 0, 1]);
        assert!((temperature - 4.0 / 3f64.ln()).abs() < 1e-4, "{temperature}");
    }

    #[test]
    fn it_stays_in_its_range() {
        assert!(fit_temperature(&[vec![1.0, 0.0]], &[0]) >= RANGE.0);
        assert!(fit_temperature(&[vec![1.0, 0.0]], &[1]) <= RANGE.1);
        assert_eq!(fit_temperature(&[], &[]), 1.0);
    }
}
