//! Dropout whose masks follow from a seed, not from the process-wide generator.

use crate::LoraError;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tch::Tensor;

/// Inverted dropout: an input is zero with the probability, else divided by what remains.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dropout {
    probability: f64,
    seed: u64,
}

impl Dropout {
    pub fn new(probability: f64, seed: u64) -> Self {
        Self { probability, seed }
    }

    /// `x` with the mask of layer `index`; the same seed and index give the same mask.
    pub fn apply(&self, x: &Tensor, index: usize) -> Result<Tensor, LoraError> {
        let mut rng = ChaCha8Rng::seed_from_u64(
            self.seed.wrapping_add((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        );

        let threshold = (self.probability * 65_536.0) as u32;
        let keep = (1.0 / (1.0 - self.probability)) as f32;
        let mut bytes = vec![0u8; x.numel() * 2];
        rng.fill_bytes(&mut bytes);

        let mask: Vec<f32> = bytes
            .chunks_exact(2)
            .map(|pair| {
                let draw = u32::from(u16::from_le_bytes([pair[0], pair[1]]));
                if draw < threshold { 0.0 } else { keep }
            })
            .collect();

        let mask = Tensor::f_from_slice(&mask)?
            .f_view(x.size().as_slice())?
            .f_to_device(x.device())?
            .f_to_kind(x.kind())?;
        Ok(x.f_mul(&mask)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn drops_its_share_keeps_the_mean_and_repeats() {
        let x = Tensor::ones([100, 100], (Kind::Float, Device::Cpu));
        let dropout = Dropout::new(0.25, 3);
        let once = dropout.apply(&x, 1).unwrap();
        assert_eq!(once, dropout.apply(&x, 1).unwrap());
        assert_ne!(once, dropout.apply(&x, 2).unwrap());
        let dropped = 1.0 - once.count_nonzero(None::<i64>).int64_value(&[]) as f64 / 1e4;
        assert!((dropped - 0.25).abs() < 0.02, "{dropped}");
        assert!((once.mean(Kind::Float).double_value(&[]) - 1.0).abs() < 0.03);
    }
}
