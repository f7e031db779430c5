//! L-BFGS (Liu and Nocedal, 1989), for smooth convex functions of many variables.

use std::collections::VecDeque;

/// How many steps the curvature is estimated from.
const MEMORY: usize = 10;
/// What share of the decrease that the slope promises a step must make (Armijo).
const DECREASE: f64 = 1e-4;
/// How often a step is halved.
const HALVINGS: usize = 30;

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop {
    /// Where no component of the gradient is larger.
    pub tolerance: f64,
    /// After so many steps in any case.
    pub max_iterations: usize,
}

/// Where the search ended.
#[derive(Debug, Clone)]
pub(crate) struct Minimum {
    pub at: Vec<f64>,
    pub iterations: usize,
    pub converged: bool,
}

/// Steps taken and how the gradient changed with each.
#[derive(Default)]
struct Curvature {
    pairs: VecDeque<Pair>,
}

struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    /// `stepᵀ change`.
    product: f64,
}

/// Walks from `at` to where `function`, which gives value and gradient, is least.
pub(crate) fn minimize(
    mut at: Vec<f64>,
    stop: Stop,
    function: impl Fn(&[f64]) -> (f64, Vec<f64>),
) -> Minimum {
    let (mut value, mut gradient) = function(&at);
    let mut curvature = Curvature::default();
    for iterations in 0..stop.max_iterations {
        if largest(&gradient) <= stop.tolerance {
            return Minimum { at, iterations, converged: true };
        }

        let direction = curvature.direction(&gradient);
        let slope = dot(&direction, &gradient);
        let step = search(&function, &at, value, &direction, slope);
        let Some((next, next_value, next_gradient)) = step else {
            return Minimum { at, iterations, converged: false };
        };

        curvature.learn(difference(&next, &at), difference(&next_gradient, &gradient));
        at = next;
        value = next_value;
        gradient = next_gradient;
    }

    let converged = largest(&gradient) <= stop.tolerance;
    Minimum { at, iterations: stop.max_iterations, converged }
}

/// The first of the halved steps that decreases the function enough; none where rounding is all
/// that is left.
fn search(
    function: impl Fn(&[f64]) -> (f64, Vec<f64>),
    at: &[f64],
    value: f64,
    direction: &[f64],
    slope: f64,
) -> Option<(Vec<f64>, f64, Vec<f64>)> {
    // Values are sums of products in f32.
    let rounding = f64::from(f32::EPSILON) * value.abs();
    let mut length = 1.0;

    for _ in 0..HALVINGS {
        let next: Vec<f64> = at.iter().zip(direction).map(|(x, d)| x + length * d).collect();
        let (next_value, gradient) = function(&next);
        if next_value <= value + DECREASE * length * slope + rounding {
            return Some((next, next_value, gradient));
        }
        length /= 2.0;
    }
    None
}

impl Curvature {
    fn learn(&mut self, step: Vec<f64>, change: Vec<f64>) {
        let product = dot(&step, &change);
        // Of a convex function it is positive, unless all is rounding.
        if product > f64::EPSILON * dot(&change, &change) {
            self.pairs.push_back(Pair { step, change, product });
        }
        if self.pairs.len() > MEMORY {
            self.pairs.pop_front();
        }
    }

    /// Minus the estimated inverse Hessian times the gradient, by the two loops of Nocedal (1980).
    fn direction(&self, gradient: &[f64]) -> Vec<f64> {
        let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
        let mut shares = Vec::with_capacity(self.pairs.len());
        for pair in self.pairs.iter().rev() {
            let share = dot(&pair.step, &direction) / pair.product;
            add(&mut direction, -share, &pair.change);
            shares.push(share);
        }

        let scale = match self.pairs.back() {
            Some(pair) => pair.product / dot(&pair.change, &pair.change),
            None => 1.0 / dot(gradient, gradient).sqrt().max(1.0),
        };
        direction.iter_mut().for_each(|d| *d *= scale);

        for (pair, share) in self.pairs.iter().zip(shares.into_iter().rev()) {
            let back = dot(&pair.change, &direction) / pair.product;
            add(&mut direction, share - back, &pair.step);
        }
        direction
    }
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(l, r)| l * r).sum()
}

fn add(to: &mut [f64], scale: f64, values: &[f64]) {
    to.iter_mut().zip(values).for_each(|(to, value)| *to += scale * value);
}

fn difference(left: &[f64], right: &[f64]) -> Vec<f64> {
    left.iter().zip(right).map(|(l, r)| l - r).collect()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| value.abs().max(largest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOP: Stop = Stop { tolerance: 1e-9, max_iterations: 200 };

    #[test]
    fn finds_the_least_of_a_badly_scaled_bowl() {
        // Σ cᵢ (xᵢ − i)² with c from 1 to 1000.
        let scale = |i: usize| 10f64.powf(i as f64 / 3.0);
        let bowl = |x: &[f64]| {
            let far: Vec<f64> = x.iter().enumerate().map(|(i, x)| x - i as f64).collect();
            let value = far.iter().enumerate().map(|(i, far)| scale(i) * far * far).sum();
            (value, far.iter().enumerate().map(|(i, far)| 2.0 * scale(i) * far).collect())
        };
        let minimum = minimize(vec![0.0; 10], STOP, bowl);
        assert!(minimum.converged);
        assert!(
            minimum.at.iter().enumerate().all(|(i, x)| (x - i as f64).abs() < 1e-8),
            "{minimum:?}"
        );
    }

    #[test]
    fn says_so_where_it_did_not_get_there() {
        let far = |x: &[f64]| ((x[0] - 1e6).powi(2), vec![2.0 * (x[0] - 1e6)]);
        assert!(!minimize(vec![0.0], Stop { max_iterations: 1, ..STOP }, far).converged);
        assert_eq!(minimize(vec![1e6], STOP, far).iterations, 0);
    }
}
