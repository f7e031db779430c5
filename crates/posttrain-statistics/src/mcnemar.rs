//! McNemar's test: whether two that answer the same questions are equally often right.

/// McNemar's exact test. Only questions on which the two disagree say anything: were both equally
/// good, each of those would fall to either side like a coin.
///
/// ```
/// use posttrain_statistics::McNemar;
///
/// // One to three of four: 2 · (C(4,0) + C(4,1)) / 2⁴ = 10/16.
/// let test = McNemar::new(1, 3);
/// assert!((test.p - 0.625).abs() < 1e-12);
/// // The observed outcome by half: 10/16 − C(4,1)/2⁴.
/// assert!((test.mid_p - 0.375).abs() < 1e-12);
/// assert_eq!(McNemar::new(0, 0).p, 1.0);
/// ```
///
/// McNemar (1947), in the exact form of `statsmodels.stats.contingency_tables.mcnemar(exact=True)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct McNemar {
    /// Two-sided p: `min(1, 2 · P(X ≤ min(b, c)))` of X ~ Binomial(b + c, ½).
    pub p: f64,
    /// Mid-p: `p − P(X = min(b, c))`, less conservative (Fagerland, Lydersen, Laake, 2013). 1 for b
    /// = c.
    pub mid_p: f64,
}

impl McNemar {
    /// From the questions that only the first got right, and those that only the second did. O(b +
    /// c).
    #[must_use]
    pub fn new(first_only: usize, second_only: usize) -> Self {
        let (n, k) = (first_only + second_only, first_only.min(second_only));
        if first_only == second_only {
            return Self { p: 1.0, mid_p: 1.0 };
        }
        let point = binomial_half(n, k);
        // P(X ≤ k) = P(X = k) · (1 + k/(n−k+1) · (1 + …)), which falls fast and never overflows.
        let mut share = 1.0;
        let mut below = 0.0;
        for i in (1..=k).rev() {
            share *= i as f64 / (n - i + 1) as f64;
            below += share;
            if share < f64::EPSILON * below {
                break;
            }
        }
        let p = (2.0 * point * (1.0 + below)).min(1.0);
        Self { p, mid_p: (p - point).max(0.0) }
    }
}

/// P(X = k) of X ~ Binomial(n, ½), for k ≤ n/2, through logarithms: 2⁻ⁿ alone would vanish.
fn binomial_half(n: usize, k: usize) -> f64 {
    let choose: f64 = (1..=k).map(|j| ((n - k + j) as f64 / j as f64).ln()).sum();
    (choose - n as f64 * std::f64::consts::LN_2).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn many_disagreements_neither_overflow_nor_vanish() {
        let test = McNemar::new(50_000, 50_400);
        assert!((0.1..0.3).contains(&test.p), "{test:?}");
        assert_eq!(McNemar::new(0, 5_000).p, 0.0);
    }

    proptest! {
        #[test]
        fn p_is_a_probability_symmetric_and_falls_with_the_imbalance(b in 0usize..300, c in 0usize..300) {
            let test = McNemar::new(b, c);
            prop_assert!((0.0..=1.0).contains(&test.p) && (0.0..=test.p).contains(&test.mid_p));
            prop_assert_eq!(test, McNemar::new(c, b));
            if b.min(c) > 0 {
                // One more disagreement turned to the larger side.
                prop_assert!(McNemar::new(b.min(c) - 1, b.max(c) + 1).p <= test.p + 1e-12);
            }
        }
    }
}
