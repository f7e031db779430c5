//! The two element kinds that the CPU kernels read and write: f32, and bf16 as its upper sixteen
//! bits.

/// A number of a tensor, widened to f32 for arithmetic.
pub trait Element: Copy + Send + Sync {
    /// The value in f32, exactly.
    fn widen(self) -> f32;

    /// The nearest value of this kind, ties to even.
    fn narrow(value: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }
}

/// A bf16 by its bits: the sign, the exponent and the upper seven bits of the mantissa of an f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(pub u16);

impl Element for Bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    // Finite values only: a NaN whose mantissa is all ones would carry into the sign. The kernels
    // check before.
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        let bits = value.to_bits();
        let half_minus_tie = 0x7fff + ((bits >> 16) & 1);
        Self((bits.wrapping_add(half_minus_tie) >> 16) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bf16_rounds_as_libtorch_does(value in -1e30f32..1e30) {
            let rounded = tch::Tensor::from_slice(&[value]).to_kind(tch::Kind::BFloat16).double_value(&[0]);
            prop_assert_eq!(f64::from(Bf16::narrow(value).widen()), rounded);
        }
    }

    #[test]
    fn every_bf16_survives_the_way_there_and_back() {
        for bits in (0..=u16::MAX).filter(|bits| Bf16(*bits).widen().is_finite()) {
            assert_eq!(Bf16::narrow(Bf16(bits).widen()), Bf16(bits));
        }
    }
}
