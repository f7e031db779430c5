//! The temperature that makes probabilities honest.

use crate::distribution::log_softmax;

/// The least and the largest temperature that are tried.
const RANGE: (f64, f64) = (0.01, 100.0);

/// The mean of `−ln p(truth)` of finite scores, nats, where one truth in `n + 2` is taken for one
/// of the other labels (Laplace's rule, as in Platt, 1999): from `n` rows that are all right does
/// not follow that all are, and no temperature is the best without end.
pub(crate) fn nll(scores: &[Vec<f64>], truth: &[usize], temperature: f64) -> f64 {
    let doubt = 1.0 / (scores.len() as f64 + 2.0);
    let cost = |(scores, &truth): (&Vec<f64>, &usize)| {
        let others = (scores.len() - 1).max(1) as f64;
        let share = |label: usize| if label == truth { 1.0 - doubt } else { doubt / others };
        let scaled: Vec<f64> = scores.iter().map(|score| score / temperature).collect();
        log_softmax(&scaled)
            .into_iter()
            .enumerate()
            .fold(0.0, |sum, (label, log)| sum - share(label) * log)
    };

    scores.iter().zip(truth).map(cost).fold(0.0, |sum, cost| sum + cost)
        / scores.len().max(1) as f64
}

/// The temperature of the least [`nll`] (Guo et al., 2017), by golden-section search over its
/// logarithm; the likelihood is concave in `1/T`, so that there is one minimum. 1 where there is
/// nothing to tell by.
pub(crate) fn fit_temperature(scores: &[Vec<f64>], truth: &[usize]) -> f64 {
    if scores.is_empty() {
        return 1.0;
    }

    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let cost = |log: f64| nll(scores, truth, log.exp());
    let mut low = RANGE.0.ln();
    let mut high = RANGE.1.ln();
    let mut left = high - ratio * (high - low);
    let mut right = low + ratio * (high - low);
    let mut at_left = cost(left);
    let mut at_right = cost(right);

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
        // Right three times of four with scores 4 apart, one in six in doubt: p = (3·5/6 + 1/6) / 4
        // = 2/3 where 4/T = ln 2.
        let scores = vec![vec![4.0, 0.0]; 4];
        let temperature = fit_temperature(&scores, &[0, 0, 0, 1]);
        assert!((temperature - 4.0 / 2f64.ln()).abs() < 1e-4, "{temperature}");
    }

    #[test]
    fn what_is_always_right_is_as_sure_as_their_number_allows() {
        // p = 1 − 1/(8 + 2) where 4/T = ln 9.
        let temperature = fit_temperature(&vec![vec![4.0, 0.0]; 8], &[0; 8]);
        assert!((temperature - 4.0 / 9f64.ln()).abs() < 1e-4, "{temperature}");
    }

    #[test]
    fn it_stays_in_its_range() {
        assert!(fit_temperature(&[vec![1.0, 0.0]], &[0]) >= RANGE.0);
        assert!(fit_temperature(&[vec![1.0, 0.0]], &[1]) <= RANGE.1);
        assert_eq!(fit_temperature(&[], &[]), 1.0);
    }
}
