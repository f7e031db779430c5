//! Features of mean 0 and standard deviation 1.

use ndarray::{Array1, Array2, Axis};

/// A standard deviation below which a feature is taken for constant.
const LEAST: f64 = 1e-9;

/// What is taken from each feature, and what the rest is multiplied by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standardizer {
    pub mean: Array1<f64>,
    pub scale: Array1<f64>,
}

impl Standardizer {
    /// Of these rows' features; those that are constant become 0.
    pub fn fit(features: &Array2<f32>) -> Self {
        let n = features.nrows().max(1) as f64;
        let mut mean = Array1::<f64>::zeros(features.ncols());
        for row in features.axis_iter(Axis(0)) {
            mean.zip_mut_with(&row, |sum, value| *sum += f64::from(*value) / n);
        }

        let mut variance = Array1::<f64>::zeros(features.ncols());
        for row in features.axis_iter(Axis(0)) {
            let squares = variance.iter_mut().zip(&mean).zip(&row);
            squares.for_each(|((sum, mean), value)| *sum += (f64::from(*value) - mean).powi(2) / n);
        }

        let scale = variance.mapv(|v| if v.sqrt() > LEAST { 1.0 / v.sqrt() } else { 0.0 });
        Self { mean, scale }
    }

    /// Standardizes the rows.
    pub fn apply(&self, mut features: Array2<f32>) -> Array2<f32> {
        for mut row in features.axis_iter_mut(Axis(0)) {
            let values = row.iter_mut().zip(&self.mean).zip(&self.scale);
            values.for_each(|((value, mean), scale)| {
                *value = ((f64::from(*value) - mean) * scale) as f32
            });
        }
        features
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn columns_get_mean_0_and_deviation_1_and_constants_vanish() {
        let features = array![[1.0, 5.0], [3.0, 5.0]];
        let standardizer = Standardizer::fit(&features);
        assert_eq!(standardizer.apply(features), array![[-1.0, 0.0], [1.0, 0.0]]);
        assert_eq!(standardizer.apply(array![[5.0, 9.0]]), array![[3.0, 0.0]]);
    }
}
