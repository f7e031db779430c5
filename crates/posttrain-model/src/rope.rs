//! Rotary positions.

use crate::{ModelConfig, ModelError};
use posttrain_tensor::SharedTensor;
use tch::{Device, Kind, Tensor};

/// The cosine and sine of every position's angles: `[N, 1, d/2]` each, in the compute kind; with
/// YaRN multiplied by its attention factor.
///
/// Rotary position embedding (Su et al., 2021, <https://arxiv.org/abs/2104.09864>) in the
/// half-split layout of the Hugging Face checkpoints: dimension `i` turns with dimension `i + d/2`
/// by `position · θ^(−2i/d)`.
#[derive(Debug, Clone)]
pub struct Rotation {
    cos: SharedTensor,
    sin: SharedTensor,
    /// `−sin`, so that a turn is two products and two sums of products.
    back: SharedTensor,
}

/// A model's rotary frequencies, `[d/2]` f32, and what cosine and sine are multiplied by.
#[derive(Debug)]
pub(crate) struct Frequencies {
    values: SharedTensor,
    factor: f64,
}

impl Frequencies {
    /// Those of a configuration, formed in f64.
    pub fn of(config: &ModelConfig, device: Device) -> Result<Self, ModelError> {
        let exact = config.rope_scaling.frequencies(config.rope_theta, config.head_dim);
        let values: Vec<f32> = exact.into_iter().map(|f| f as f32).collect();
        let factor = config.rope_scaling.attention_factor();
        Ok(Self { values: Tensor::f_from_slice(&values)?.f_to_device(device)?.into(), factor })
    }
}

impl Rotation {
    /// The rotation of `positions: [N]`; angles are formed in f32 whatever the model computes in.
    pub(crate) fn new(
        positions: &Tensor,
        frequencies: &Frequencies,
        kind: Kind,
    ) -> Result<Self, ModelError> {
        let angles = positions
            .f_to_kind(Kind::Float)?
            .f_unsqueeze(1)?
            .f_mul(&frequencies.values)?
            .f_unsqueeze(1)?;

        let table = |t: Tensor| {
            let scaled =
                if frequencies.factor == 1.0 { t } else { t.f_mul_scalar(frequencies.factor)? };
            scaled.f_to_kind(kind)
        };

        let sin = table(angles.f_sin()?)?;
        let cos = table(angles.f_cos()?)?;
        let back = sin.f_neg()?;
        Ok(Self { cos: cos.into(), sin: sin.into(), back: back.into() })
    }

    /// Cosines and sines as `[N, d/2]` f32 each, for a kernel that turns on its own.
    ///
    /// # Errors
    /// [`ModelError::Torch`] when memory fails.
    pub fn tables(&self) -> Result<[Tensor; 2], ModelError> {
        let table = |t: &Tensor| {
            Ok::<_, ModelError>(t.f_squeeze_dim(1)?.f_to_kind(Kind::Float)?.f_contiguous()?)
        };
        Ok([table(&self.cos)?, table(&self.sin)?])
    }

    /// `x: [N, heads, d]` rotated to its positions.
    ///
    /// # Errors
    /// [`ModelError::Torch`] if the shape does not fit or memory fails.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let halves = x.f_chunk(2, -1)?;
        let (first, second) = (&halves[0], &halves[1]);
        let left = first.f_mul(&self.cos)?.f_addcmul(second, &self.back)?;
        let right = second.f_mul(&self.cos)?.f_addcmul(first, &self.sin)?;
        Ok(Tensor::f_cat(&[left, right], -1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_zero_is_the_identity_and_scores_depend_on_distance_alone() {
        let frequencies = Frequencies::of(&ModelConfig::tiny(), Device::Cpu).unwrap();
        let x = Tensor::arange(8, (Kind::Float, Device::Cpu)).view([1, 1, 8]);
        let rotated = |position: i64| {
            let positions = Tensor::from_slice(&[position]);
            Rotation::new(&positions, &frequencies, Kind::Float).unwrap().apply(&x).unwrap()
        };
        assert_eq!(rotated(0), x);
        let score = |a, b| (rotated(a) * rotated(b)).sum(Kind::Float).double_value(&[]);
        assert!((score(3, 7) - score(10, 14)).abs() < 1e-3);
        assert!((score(3, 7) - score(3, 9)).abs() > 1e-3);
    }
}
