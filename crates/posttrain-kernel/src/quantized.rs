//! Weights of eight and of four bits, and back.

use crate::KernelError;
use crate::simd::{Kernel, dispatch};
use posttrain_tensor::{Element, ValuesMut, bytes, check_shape, floats, values_mut};
use tch::{Kind, Tensor};

/// Weights that share a scale: the largest of them in magnitude.
pub const QUANTIZED_BLOCK: usize = 64;

/// How a weight is stored, as a share of its block's largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantizedForm {
    /// A byte a weight: 255 even steps from −1 to 1, stored from 1 to 255.
    Int8,
    /// Two weights a byte, the first in the upper half: the sixteen levels of NF4, which are as
    /// probable as each other for a normal distribution (Dettmers et al., 2023, appendix E,
    /// <https://arxiv.org/abs/2305.14314>).
    Nf4,
}

/// The levels of NF4.
pub const NF4_LEVELS: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

impl QuantizedForm {
    /// Weights a byte.
    #[must_use]
    pub fn a_byte(self) -> usize {
        match self {
            Self::Int8 => 1,
            Self::Nf4 => 2,
        }
    }

    /// What the code of a weight stands for.
    fn level(self, code: u8) -> f32 {
        match self {
            Self::Int8 => (f32::from(code) - 128.0) / 127.0,
            Self::Nf4 => NF4_LEVELS[usize::from(code & 15)],
        }
    }
}

/// The weights that codes and scales stand for: `count` of them in `kind` (f32 or bf16), flat.
///
/// `codes`: u8, contiguous, [`QuantizedForm::a_byte`] weights each; `scales`: f32, one for every
/// [`QUANTIZED_BLOCK`] weights.
///
/// # Errors
/// [`KernelError`] names the tensor that does not fit.
///
/// ```
/// use posttrain_kernel::{QuantizedForm, dequantize};
/// use tch::{Kind, Tensor};
///
/// let (codes, scales) = (Tensor::from_slice(&[255u8, 128, 1]), Tensor::from_slice(&[2f32]));
/// let weights = dequantize(&codes, &scales, QuantizedForm::Int8, (3, Kind::Float))?;
/// assert_eq!(Vec::<f32>::try_from(weights).unwrap(), [2.0, 0.0, -2.0]);
///
/// let pair = dequantize(&Tensor::from_slice(&[0xf7u8]), &scales, QuantizedForm::Nf4, (2, Kind::Float))?;
/// assert_eq!(Vec::<f32>::try_from(pair).unwrap(), [2.0, 0.0]);
/// # Ok::<(), posttrain_kernel::KernelError>(())
/// ```
pub fn dequantize(
    codes: &Tensor,
    scales: &Tensor,
    form: QuantizedForm,
    (count, kind): (usize, Kind),
) -> Result<Tensor, KernelError> {
    for (argument, tensor, length) in [
        ("codes", codes, count.div_ceil(form.a_byte())),
        ("scales", scales, count.div_ceil(QUANTIZED_BLOCK)),
    ] {
        check_shape(argument, tensor, &[length as i64])?;
    }

    let scale_values = floats("scales", scales)?;
    let codes = bytes("codes", codes)?;
    let mut out = Tensor::f_empty([count as i64], (kind, tch::Device::Cpu))?;

    match values_mut("kind", &mut out)? {
        ValuesMut::F32(out) => dispatch(Dequantize { codes, scales: scale_values, form, out }),
        ValuesMut::Bf16(out) => dispatch(Dequantize { codes, scales: scale_values, form, out }),
    }

    Ok(out)
}

struct Dequantize<'a, E> {
    codes: &'a [u8],
    scales: &'a [f32],
    form: QuantizedForm,
    out: &'a mut [E],
}

impl<E: Element> Kernel for Dequantize<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let blocks = self.codes.chunks(QUANTIZED_BLOCK / self.form.a_byte()).zip(self.scales);
        for ((codes, scale), out) in blocks.zip(self.out.chunks_mut(QUANTIZED_BLOCK)) {
            match self.form {
                QuantizedForm::Int8 => {
                    let step = scale / 127.0;
                    for (out, code) in out.iter_mut().zip(codes) {
                        *out = E::narrow((f32::from(*code) - 128.0) * step);
                    }
                }
                QuantizedForm::Nf4 => {
                    for (pair, code) in out.chunks_mut(2).zip(codes) {
                        for (out, code) in pair.iter_mut().zip([code >> 4, code & 15]) {
                            *out = E::narrow(self.form.level(code) * scale);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_for_its_level_in_every_block() {
        for (form, count) in [(QuantizedForm::Int8, 200), (QuantizedForm::Nf4, 201)] {
            let bytes: Vec<u8> = (0..count / form.a_byte() + count % form.a_byte())
                .map(|i| (i * 37 + 1) as u8)
                .collect();
            let scales: Vec<f32> =
                (0..count.div_ceil(QUANTIZED_BLOCK)).map(|i| 1.0 + i as f32).collect();
            let (codes, scale) = (Tensor::from_slice(&bytes), Tensor::from_slice(&scales));
            let got = Vec::<f32>::try_from(
                dequantize(&codes, &scale, form, (count, Kind::Float)).unwrap(),
            )
            .unwrap();
            for (i, got) in got.iter().enumerate() {
                let byte = bytes[i / form.a_byte()];
                let code = if form == QuantizedForm::Nf4 && i % 2 == 0 { byte >> 4 } else { byte };
                let expected = form.level(code) * scales[i / QUANTIZED_BLOCK];
                assert!((got - expected).abs() < 1e-6, "{form:?} {i}: {got} {expected}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let (codes, scales) = (Tensor::from_slice(&[1u8; 8]), Tensor::from_slice(&[1f32]));
        let refused = |count, kind| {
            dequantize(&codes, &scales, QuantizedForm::Int8, (count, kind)).unwrap_err().to_string()
        };
        assert!(refused(9, Kind::Float).starts_with("`codes` has shape [8]"));
        assert!(refused(8, Kind::Int64).starts_with("`kind` is of kind"));
    }
}
