//! The interval of a share.

/// The 95% Wilson score interval of `successes` out of `n`, as (low, high); (0, 1) for no trial at all.
///
/// `(p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n)`, z = 1.96 (Wilson, 1927). Unlike the normal approximation it
/// stays within [0, 1] and has a width at 0 and 1.
///
/// ```
/// let (low, high) = posttrain_train::wilson_interval(50, 100);
/// assert!((low - 0.4038).abs() < 1e-4 && (high - 0.5962).abs() < 1e-4);
/// assert_eq!(posttrain_train::wilson_interval(0, 0), (0.0, 1.0));
/// ```
pub fn wilson_interval(successes: usize, n: usize) -> (f64, f64) {
    const Z: f64 = 1.959_963_984_540_054;
    if n == 0 {
        return (0.0, 1.0);
    }
    let (n, z2) = (n as f64, Z * Z);
    let p = successes as f64 / n;
    let centre = p + z2 / (2.0 * n);
    let width = Z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    (((centre - width) / scale).max(0.0), ((centre + width) / scale).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_stay_within_bounds_and_have_a_width() {
        assert!(wilson_interval(0, 250).0 < 1e-12);
        assert!(wilson_interval(0, 250).1 > 0.01);
        assert!(wilson_interval(250, 250).1 > 1.0 - 1e-12);
        assert!(wilson_interval(250, 250).0 < 0.99);
    }
}
