//! Scores as probabilities, and what is one.

use crate::{Decision, RouterError};

/// How far from 1 the probabilities of a decision may add up.
const TOLERANCE: f64 = 1e-6;

/// `exp(sᵢ/T) / Σ exp(sⱼ/T)`; uniform where no score is finite.
pub(crate) fn softmax(scores: &[f64], temperature: f64) -> Vec<f64> {
    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !highest.is_finite() {
        return vec![1.0 / scores.len() as f64; scores.len()];
    }

    let weights: Vec<f64> =
        scores.iter().map(|score| ((score - highest) / temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

/// `ln Σ exp(sᵢ)` of finite scores.
pub(crate) fn log_sum_exp(scores: &[f64]) -> f64 {
    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    highest + scores.iter().map(|score| (score - highest).exp()).sum::<f64>().ln()
}

/// The logarithm of [`softmax`] of finite scores at temperature 1, without its underflow.
pub(crate) fn log_softmax(scores: &[f64]) -> Vec<f64> {
    let total = log_sum_exp(scores);
    scores.iter().map(|score| score - total).collect()
}

/// Checks what a router answered: a decision a question, of a known label, with a distribution.
pub(crate) fn check(
    router: &str,
    decisions: &[Decision],
    questions: usize,
    labels: usize,
) -> Result<(), RouterError> {
    if decisions.len() != questions {
        let expected = format!("{questions}, one a question");
        return Err(RouterError::answer(
            router,
            "the number of decisions",
            decisions.len().to_string(),
            expected,
        ));
    }
    decisions.iter().try_for_each(|decision| check_one(router, decision, labels))
}

fn check_one(router: &str, decision: &Decision, labels: usize) -> Result<(), RouterError> {
    let Decision { label, probabilities, seconds } = decision;
    if *label >= labels {
        return Err(RouterError::answer(
            router,
            "the label's place",
            label.to_string(),
            format!("less than {labels}"),
        ));
    }

    let shares = probabilities.iter().all(|p| (0.0..=1.0 + TOLERANCE).contains(p));
    if probabilities.len() != labels
        || !shares
        || (probabilities.iter().sum::<f64>() - 1.0).abs() > TOLERANCE
    {
        let expected = format!("{labels} numbers from 0 to 1 that add up to 1");
        return Err(RouterError::answer(
            router,
            "the probabilities",
            format!("{probabilities:?}"),
            expected,
        ));
    }

    if !(seconds.is_finite() && *seconds >= 0.0) {
        return Err(RouterError::answer(
            router,
            "the time",
            seconds.to_string(),
            "a finite number of seconds, at least 0",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_a_finite_score_all_are_equal() {
        assert_eq!(softmax(&[f64::NEG_INFINITY; 2], 1.0), [0.5, 0.5]);
        assert_eq!(softmax(&[f64::NEG_INFINITY, -1e300], 1.0), [0.0, 1.0]);
    }

    #[test]
    fn what_is_no_decision_is_named() {
        let decision = |label, probabilities, seconds| [Decision { label, probabilities, seconds }];
        for (wrong, part) in [
            (decision(2, vec![0.5, 0.5], 0.0), "the label's place"),
            (decision(0, vec![1.0], 0.0), "the probabilities"),
            (decision(0, vec![f64::NAN, 1.0], 0.0), "the probabilities"),
            (decision(0, vec![0.7, 0.7], 0.0), "the probabilities"),
            (decision(0, vec![1.5, -0.5], 0.0), "the probabilities"),
            (decision(0, vec![0.5, 0.5], f64::NAN), "the time"),
        ] {
            assert!(check("r", &wrong, 1, 2).unwrap_err().to_string().contains(part));
        }
        assert!(
            check("r", &[], 1, 2).unwrap_err().to_string().contains("the number of decisions is 0")
        );
        check("r", &decision(1, vec![0.5, 0.5], 0.0), 1, 2).unwrap();
    }

    proptest! {
        #[test]
        fn probabilities_add_up_to_one(scores in prop::collection::vec(-1e4..1e4f64, 1..9), temperature in 0.01..100.0f64) {
            let probabilities = softmax(&scores, temperature);
            prop_assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            prop_assert!(probabilities.iter().all(|p| (0.0..=1.0).contains(p)));
        }
    }
}
