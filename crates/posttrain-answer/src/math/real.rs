//! Real arithmetic in two precisions behind one trait: 64-bit floats to tell most answers apart,
//! [`Precise`] to be sure.
//!
//! [`Precise`]: crate::math::precise::Precise

use num_bigint::BigInt;
use num_rational::BigRational;

/// Arguments of sine and cosine from here on lose too much of a 64-bit float's precision.
const MAX_ANGLE: f64 = 1e4;

/// A real number of some precision. Operations that have no result, or none within bounds, give
/// `None`.
pub(crate) trait Real: Clone {
    fn of(value: &BigRational) -> Option<Self>;
    fn pi() -> Self;
    fn add(&self, other: &Self) -> Self;
    fn multiply(&self, other: &Self) -> Self;
    fn negate(&self) -> Self;
    fn divide(&self, other: &Self) -> Option<Self>;
    fn square_root(&self) -> Option<Self>;
    fn exponential(&self) -> Option<Self>;
    fn logarithm(&self) -> Option<Self>;
    /// Sine and cosine.
    fn circular(&self) -> Option<(Self, Self)>;
    /// The angle of the point `(x, self)`.
    fn angle(&self, x: &Self) -> Option<Self>;
    fn is_zero(&self) -> bool;
    fn is_negative(&self) -> bool;
    /// The power of two above its magnitude; `None` for zero.
    fn exponent(&self) -> Option<i64>;
    /// The whole number next to it and whether it is that number as far as its precision tells.
    fn nearest(&self) -> Option<(BigInt, bool)>;
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

impl Real for f64 {
    fn of(value: &BigRational) -> Option<Self> {
        let near = |part: &BigInt| {
            let shift = part.bits().saturating_sub(64);
            let (sign, digits) = (part >> shift).into_parts();
            let head = digits.iter_u64_digits().next().unwrap_or(0) as Self;
            let head = if sign == num_bigint::Sign::Minus { -head } else { head };
            (head, shift as i32)
        };
        let (over, over_shift) = near(value.numer());
        let (under, under_shift) = near(value.denom());
        finite(over / under * Self::powi(2.0, over_shift - under_shift))
            .filter(|value| *value != 0.0 || over == 0.0)
    }

    fn pi() -> Self {
        std::f64::consts::PI
    }

    fn add(&self, other: &Self) -> Self {
        self + other
    }

    fn multiply(&self, other: &Self) -> Self {
        self * other
    }

    fn negate(&self) -> Self {
        -self
    }

    fn divide(&self, other: &Self) -> Option<Self> {
        finite(self / other)
    }

    fn square_root(&self) -> Option<Self> {
        finite(self.sqrt())
    }

    fn exponential(&self) -> Option<Self> {
        finite(self.exp()).filter(|value| *value > 0.0)
    }

    fn logarithm(&self) -> Option<Self> {
        finite(self.ln())
    }

    fn circular(&self) -> Option<(Self, Self)> {
        (self.abs() < MAX_ANGLE).then(|| self.sin_cos())
    }

    fn angle(&self, x: &Self) -> Option<Self> {
        finite(self.atan2(*x))
    }

    fn is_zero(&self) -> bool {
        *self == 0.0
    }

    fn is_negative(&self) -> bool {
        *self < 0.0
    }

    fn exponent(&self) -> Option<i64> {
        (*self != 0.0)
            .then(|| if self.is_finite() { self.abs().log2() as i64 + 1 } else { i64::MAX })
    }

    fn nearest(&self) -> Option<(BigInt, bool)> {
        // Near a step, floor and ceiling are left to the other precision.
        let round = self.round();
        let close = (self - round).abs() < 1e-6;
        (self.abs() < 1e9).then(|| (BigInt::from(round as i64), close))
    }
}
