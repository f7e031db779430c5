//! A frozen weight in eight or four bits, and the linear layer over it.

use crate::ModelError;
use posttrain_kernel::{NF4_LEVELS, QUANTIZED_BLOCK, QuantizedForm, dequantize};
use posttrain_tensor::SharedTensor;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// How the frozen linear layers are kept in memory. Embedding, head, norms, biases and routers are
/// kept as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantize {
    /// In the compute kind.
    #[default]
    None,
    /// 8.5 bits a weight: a byte, and a scale for 64 of them.
    Int8,
    /// 4.5 bits a weight: NF4 (Dettmers et al., 2023, <https://arxiv.org/abs/2305.14314>), and a
    /// scale for 64 of them.
    Nf4,
}

impl std::str::FromStr for Quantize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "int8" => Ok(Self::Int8),
            "nf4" => Ok(Self::Nf4),
            _ => Err(format!("quantize `{text}`: expected none, int8 or nf4")),
        }
    }
}

impl Quantize {
    pub(crate) fn form(self) -> Option<QuantizedForm> {
        match self {
            Self::None => None,
            Self::Int8 => Some(QuantizedForm::Int8),
            Self::Nf4 => Some(QuantizedForm::Nf4),
        }
    }

    /// Bytes that `weights` weights take, computed in `kind`.
    ///
    /// ```
    /// use posttrain_model::Quantize;
    /// assert_eq!(Quantize::None.bytes(128, tch::Kind::BFloat16), 256);
    /// assert_eq!(Quantize::Int8.bytes(128, tch::Kind::BFloat16), 128 + 2 * 4);
    /// assert_eq!(Quantize::Nf4.bytes(128, tch::Kind::BFloat16), 64 + 2 * 4);
    /// ```
    #[must_use]
    pub fn bytes(self, weights: i64, kind: Kind) -> i64 {
        let Some(form) = self.form() else { return weights * kind.elt_size_in_bytes() as i64 };
        let blocks = (weights as u64).div_ceil(QUANTIZED_BLOCK as u64) as i64;
        (weights as u64).div_ceil(form.a_byte() as u64) as i64 + 4 * blocks
    }
}

/// A weight in blocks of 64 with a scale each. Dequantized anew each time that it multiplies: one
/// layer's at a time is in memory whole.
#[derive(Debug)]
pub(crate) struct QuantizedWeight {
    codes: SharedTensor,
    scales: SharedTensor,
    form: QuantizedForm,
    shape: [i64; 2],
    kind: Kind,
}

impl QuantizedWeight {
    /// `weight: [out, in]`, each number to the nearest level of its block; to be computed with in
    /// its kind.
    pub fn of(weight: &Tensor, form: QuantizedForm) -> Result<Self, ModelError> {
        let (out, input) = weight.size2()?;
        let count = out * input;
        let block = QUANTIZED_BLOCK as i64;
        let blocks = (count + block - 1) / block;

        let flat = weight.f_to_kind(Kind::Float)?.f_reshape([count])?;
        let padded =
            flat.f_constant_pad_nd([0, blocks * block - count])?.f_view([blocks, block])?;
        let scales = padded.f_abs()?.f_amax([1].as_slice(), true)?;
        // A block of zeros has any scale.
        let shares = padded.f_div(&scales.f_clamp_min(f64::from(f32::MIN_POSITIVE))?)?;

        let codes = codes(&shares, form)?.f_view([-1])?;
        let used = (count + form.a_byte() as i64 - 1) / form.a_byte() as i64;
        let codes = codes.f_narrow(0, 0, used)?.f_contiguous()?;
        let scales = scales.f_view([-1])?;

        Ok(Self {
            codes: codes.into(),
            scales: scales.into(),
            form,
            shape: [out, input],
            kind: weight.kind(),
        })
    }

    /// The weight `[out, in]` in the compute kind.
    pub fn dequantized(&self) -> Result<Tensor, ModelError> {
        let count = self.shape[0] * self.shape[1];
        if self.codes.device() == Device::Cpu {
            let flat =
                dequantize(&self.codes, &self.scales, self.form, (count as usize, self.kind))?;
            return Ok(flat.f_view(self.shape)?);
        }

        let shares = match self.form {
            QuantizedForm::Int8 => {
                self.codes.f_to_kind(Kind::Float)?.f_sub_scalar(128.0)?.f_mul_scalar(1.0 / 127.0)?
            }
            QuantizedForm::Nf4 => {
                let halves = [
                    self.codes.f_bitwise_right_shift_tensor_scalar(4)?,
                    self.codes.f_bitwise_and(15)?,
                ];
                let codes = Tensor::f_stack(&halves, 1)?.f_view([-1])?.f_narrow(0, 0, count)?;
                let levels = Tensor::f_from_slice(&NF4_LEVELS)?.f_to_device(self.codes.device())?;
                levels.f_index_select(0, &codes.f_to_kind(Kind::Int)?)?
            }
        };

        let block = QUANTIZED_BLOCK as i64;
        let blocks = self.scales.size()[0];
        let padded =
            shares.f_constant_pad_nd([0, blocks * block - count])?.f_view([blocks, block])?;
        let flat = padded.f_mul(&self.scales.f_unsqueeze(1)?)?.f_to_kind(self.kind)?;
        Ok(flat.f_view([-1])?.f_narrow(0, 0, count)?.f_view(self.shape)?)
    }

    pub fn shape(&self) -> [i64; 2] {
        self.shape
    }
}

/// The codes of shares in [−1, 1], u8.
fn codes(shares: &Tensor, form: QuantizedForm) -> Result<Tensor, ModelError> {
    match form {
        QuantizedForm::Int8 => Ok(shares
            .f_mul_scalar(127.0)?
            .f_round()?
            .f_add_scalar(128.0)?
            .f_to_kind(Kind::Uint8)?),
        QuantizedForm::Nf4 => {
            let borders: Vec<f32> =
                NF4_LEVELS.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
            let borders = Tensor::f_from_slice(&borders)?.f_to_device(shares.device())?;
            let levels = shares
                .f_bucketize(&borders, true, false)?
                .f_to_kind(Kind::Uint8)?
                .f_view([-1, 2])?;
            let (upper, lower) = (levels.f_select(1, 0)?, levels.f_select(1, 1)?);
            Ok(upper.f_mul_scalar(16)?.f_add(&lower)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relative_error(form: QuantizedForm) -> f64 {
        tch::manual_seed(3);
        let weight = Tensor::randn([96, 80], (Kind::Float, Device::Cpu)) * 0.02;
        let back = QuantizedWeight::of(&weight, form).unwrap().dequantized().unwrap();
        (back - &weight).norm().double_value(&[]) / weight.norm().double_value(&[])
    }

    /// A normal weight's blocks of 64 reach 2.4 deviations: a 127th of that, over √12, is 0.6% of a
    /// deviation; NF4's own table gives 9%.
    #[test]
    fn the_error_is_what_the_levels_allow() {
        let (int8, nf4) = (relative_error(QuantizedForm::Int8), relative_error(QuantizedForm::Nf4));
        println!("relative error of a normal weight: int8 {int8:.4}, nf4 {nf4:.4}");
        assert!(int8 < 0.008 && nf4 > 0.05 && nf4 < 0.1, "{int8} {nf4}");
    }

    #[test]
    fn levels_zeros_and_odd_counts_come_back_exactly() {
        let levels: Vec<f32> = NF4_LEVELS.iter().map(|l| l * 3.0).collect();
        let weight =
            Tensor::from_slice(&[&levels[..], &[0.0; 65], &[-3.0; 4]].concat()).view([5, 17]);
        let back = QuantizedWeight::of(&weight, QuantizedForm::Nf4).unwrap().dequantized().unwrap();
        assert!((back - &weight).abs().max().double_value(&[]) < 1e-6);
    }
}
