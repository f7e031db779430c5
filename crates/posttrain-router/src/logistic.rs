//! Multinomial logistic regression with L2, by full-batch L-BFGS.
#![expect(clippy::needless_pass_by_value, reason = "a view of an array is a reference itself")]

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

use crate::distribution::{log_softmax, softmax};
use crate::lbfgs::{Minimum, Stop, minimize};

/// Rows that are computed together. Sums are formed block by block in this order, on however many
/// threads.
const BLOCK: usize = 256;

/// Labels of rows of features: `[N, D] f32` and a label's place a row.
#[derive(Clone, Copy)]
pub(crate) struct Problem<'a> {
    pub features: ArrayView2<'a, f32>,
    pub truth: &'a [usize],
    pub labels: usize,
}

/// A linear layer: `weights [L, D]`, `bias [L]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Logistic {
    pub weights: Array2<f64>,
    pub bias: Array1<f64>,
}

/// A fit, and how it ended.
pub(crate) struct Fitted {
    pub model: Logistic,
    pub iterations: usize,
    pub converged: bool,
}

impl Logistic {
    /// Everything zero: all labels equally probable.
    pub fn zero(labels: usize, dimension: usize) -> Self {
        Self { weights: Array2::zeros((labels, dimension)), bias: Array1::zeros(labels) }
    }

    /// Minimizes `1/N Σ −ln p(truth) + l2/2 · ‖weights‖²` from here on; the bias is free.
    /// (scikit-learn's `C` is `1/(N·l2)`.)
    pub fn fit(self, problem: Problem<'_>, l2: f64, stop: Stop) -> Fitted {
        let shape = self.weights.dim();
        let Minimum { at, iterations, converged } =
            minimize(self.flat(), stop, |at| objective(problem, l2, &Self::from_flat(at, shape)));
        Fitted { model: Self::from_flat(&at, shape), iterations, converged }
    }

    /// `[N, L]`: the labels' scores of each row.
    pub fn scores(&self, features: ArrayView2<'_, f32>) -> Vec<Vec<f64>> {
        let weights = self.weights.mapv(|weight| weight as f32);
        let blocks: Vec<Vec<Vec<f64>>> =
            blocks(features).map(|block| block_scores(block, &weights, &self.bias)).collect();
        blocks.into_iter().flatten().collect()
    }

    fn flat(&self) -> Vec<f64> {
        self.weights.iter().chain(&self.bias).copied().collect()
    }

    fn from_flat(flat: &[f64], (labels, dimension): (usize, usize)) -> Self {
        let weights =
            Array2::from_shape_fn((labels, dimension), |(label, at)| flat[label * dimension + at]);
        Self {
            weights,
            bias: Array1::from_shape_fn(labels, |label| flat[labels * dimension + label]),
        }
    }
}

fn blocks<'a>(
    features: ArrayView2<'a, f32>,
) -> impl IndexedParallelIterator<Item = ArrayView2<'a, f32>> {
    let count = features.nrows().div_ceil(BLOCK);
    (0..count).into_par_iter().map(move |block| {
        let end = ((block + 1) * BLOCK).min(features.nrows());
        features.split_at(Axis(0), end).0.split_at(Axis(0), block * BLOCK).1
    })
}

fn block_scores(
    block: ArrayView2<'_, f32>,
    weights: &Array2<f32>,
    bias: &Array1<f64>,
) -> Vec<Vec<f64>> {
    let add = |row: ArrayView1<'_, f32>| {
        row.iter().zip(bias).map(|(score, bias)| f64::from(*score) + bias).collect()
    };
    block.dot(&weights.t()).rows().into_iter().map(add).collect()
}

/// The sums over a block: of `−ln p(truth)`, and of its gradient.
struct BlockSums {
    cost: f64,
    weights: Array2<f32>,
    bias: Vec<f64>,
}

impl BlockSums {
    fn new(
        block: ArrayView2<'_, f32>,
        truth: &[usize],
        weights: &Array2<f32>,
        bias: &Array1<f64>,
    ) -> Self {
        let labels = bias.len();
        let mut sums = Self { cost: 0.0, weights: Array2::zeros((0, 0)), bias: vec![0.0; labels] };
        let mut residuals = Array2::<f32>::zeros((labels, block.nrows()));

        for (row, (scores, &truth)) in
            block_scores(block, weights, bias).iter().zip(truth).enumerate()
        {
            sums.cost -= log_softmax(scores)[truth];
            for (label, p) in softmax(scores, 1.0).into_iter().enumerate() {
                let residual = p - f64::from(u8::from(label == truth));
                residuals[[label, row]] = residual as f32;
                sums.bias[label] += residual;
            }
        }

        sums.weights = residuals.dot(&block);
        sums
    }
}

/// The value and the gradient, weights before bias.
fn objective(problem: Problem<'_>, l2: f64, model: &Logistic) -> (f64, Vec<f64>) {
    let weights = model.weights.mapv(|weight| weight as f32);
    let sums = blocks(problem.features)
        .zip(problem.truth.par_chunks(BLOCK))
        .map(|(block, truth)| BlockSums::new(block, truth, &weights, &model.bias));
    let sums: Vec<BlockSums> = sums.collect();

    let share = 1.0 / problem.truth.len() as f64;
    let mut gradient =
        Logistic { weights: &model.weights * l2, bias: Array1::zeros(problem.labels) };
    for block in &sums {
        gradient.weights.zip_mut_with(&block.weights, |sum, part| *sum += share * f64::from(*part));
        gradient.bias.iter_mut().zip(&block.bias).for_each(|(sum, part)| *sum += share * part);
    }

    let cost = share * sums.iter().map(|block| block.cost).sum::<f64>();
    let penalty = l2 / 2.0 * model.weights.iter().map(|weight| weight * weight).sum::<f64>();
    (cost + penalty, gradient.flat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::SafeTensors;

    const STOP: Stop = Stop { tolerance: 1e-7, max_iterations: 1000 };

    struct Fixture(Vec<u8>);

    impl Fixture {
        fn read(name: &str) -> Self {
            let path = format!(
                "{}/tests/fixtures/logistic/{name}.safetensors",
                env!("CARGO_MANIFEST_DIR")
            );
            Self(std::fs::read(path).unwrap())
        }

        fn values<const N: usize, T>(
            &self,
            name: &str,
            value: fn([u8; N]) -> T,
        ) -> (Vec<usize>, Vec<T>) {
            let tensors = SafeTensors::deserialize(&self.0).unwrap();
            let view = tensors.tensor(name).unwrap();
            let (bytes, rest) = view.data().as_chunks::<N>();
            assert!(rest.is_empty());
            (view.shape().to_vec(), bytes.iter().map(|bytes| value(*bytes)).collect())
        }

        fn doubles(&self, name: &str) -> Vec<f64> {
            self.values(name, f64::from_le_bytes).1
        }
    }

    fn close<'a>(
        got: impl IntoIterator<Item = &'a f64>,
        expected: &[f64],
        tolerance: f64,
        what: &str,
    ) {
        let got: Vec<f64> = got.into_iter().copied().collect();
        assert_eq!(got.len(), expected.len());
        let far = got.iter().zip(expected).map(|(g, e)| (g - e).abs()).fold(0.0, f64::max);
        assert!(far < tolerance, "{what} is off by {far}");
    }

    #[test]
    fn the_fit_is_that_of_scikit_learn() {
        for (name, labels) in [("three_labels", 3), ("a_row_a_label", 4)] {
            let fixture = Fixture::read(name);
            let (shape, features) = fixture.values("features", f32::from_le_bytes);
            let features = Array2::from_shape_vec((shape[0], shape[1]), features).unwrap();
            let truth: Vec<usize> = fixture
                .values("truth", i64::from_le_bytes)
                .1
                .into_iter()
                .map(|label| label as usize)
                .collect();
            let problem = Problem { features: features.view(), truth: &truth, labels };
            for (at, l2) in fixture.doubles("l2").into_iter().enumerate() {
                let fitted = Logistic::zero(labels, shape[1]).fit(problem, l2, STOP);
                assert!(fitted.converged, "{name}, {l2}: {} iterations", fitted.iterations);
                close(
                    &fitted.model.weights,
                    &fixture.doubles(&format!("weights.{at}")),
                    2e-4,
                    "a weight",
                );
                close(&fitted.model.bias, &fixture.doubles(&format!("bias.{at}")), 2e-4, "a bias");
                let scores = fitted.model.scores(features.view());
                let probabilities: Vec<f64> =
                    scores.iter().flat_map(|scores| softmax(scores, 1.0)).collect();
                close(
                    &probabilities,
                    &fixture.doubles(&format!("probabilities.{at}")),
                    1e-4,
                    "a probability",
                );
            }
        }
    }

    #[test]
    fn the_gradient_is_the_slope_and_blocks_make_no_difference() {
        // More rows than a block, not a multiple of it.
        let value = |row: usize, at: usize| ((row * 7 + at * 13) % 11) as f32 / 11.0 - 0.4;
        let features = Array2::from_shape_fn((600, 5), |(row, at)| value(row, at));
        let truth: Vec<usize> = (0..600).map(|row| row * row % 3).collect();
        let problem = Problem { features: features.view(), truth: &truth, labels: 3 };
        let at: Vec<f64> = (0..18).map(|i| f64::from(i) / 10.0 - 0.8).collect();
        let cost = |at: &[f64]| objective(problem, 0.1, &Logistic::from_flat(at, (3, 5)));
        let (_, gradient) = cost(&at);
        for i in 0..at.len() {
            let shifted = |by: f64| {
                let mut at = at.clone();
                at[i] += by;
                cost(&at).0
            };
            let slope = (shifted(0.01) - shifted(-0.01)) / 0.02;
            assert!((slope - gradient[i]).abs() < 1e-4, "{i}: {slope} {}", gradient[i]);
        }
    }

    #[test]
    fn one_label_needs_no_fit() {
        let features = Array2::<f32>::ones((3, 2));
        let problem = Problem { features: features.view(), truth: &[0, 0, 0], labels: 1 };
        let fitted = Logistic::zero(1, 2).fit(problem, 0.1, STOP);
        assert!(fitted.converged && fitted.iterations == 0);
    }
}
