//! Binary floating point of 256 bits, and the functions that answers need.

use std::cmp::Ordering;
use std::sync::LazyLock;

use num_bigint::{BigInt, Sign};
use num_rational::BigRational;

use crate::math::real::Real;

/// Bits of a mantissa: 77 decimal digits.
const BITS: u64 = 256;
/// Bits behind the point in the series, so that what is rounded there is not seen.
const FIXED: u64 = BITS + 64;
/// Bits of the constants: enough to reduce arguments below `2^MAX_ARGUMENT`.
const CONSTANT: u64 = FIXED + 128;
/// The largest power of two that an exponential's or an angle's magnitude may reach.
const MAX_ARGUMENT: i64 = 48;
/// The largest exponent of a number: far beyond `10^10^10`.
const MAX_EXPONENT: i64 = 1 << 50;
/// What counts as a whole number: nearer to it than `2^-WHOLE`.
const WHOLE: i64 = 100;

/// `π · 2^CONSTANT` by Machin's formula, `16 arctan(1/5) − 4 arctan(1/239)`.
static PI: LazyLock<BigInt> =
    LazyLock::new(|| inverse_series(5, true) * 16 - inverse_series(239, true) * 4);
/// `ln 2 · 2^CONSTANT`, `18 artanh(1/26) − 2 artanh(1/4801) + 8 artanh(1/8749)`.
static LN2: LazyLock<BigInt> = LazyLock::new(|| {
    inverse_series(26, false) * 18 - inverse_series(4801, false) * 2
        + inverse_series(8749, false) * 8
});

/// `mantissa · 2^exponent`, the mantissa of at most 256 bits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Precise {
    mantissa: BigInt,
    exponent: i64,
}

impl Precise {
    fn new(mantissa: BigInt, exponent: i64) -> Self {
        let excess = mantissa.bits().saturating_sub(BITS);
        Self { mantissa: mantissa >> excess, exponent: exponent + excess as i64 }
    }

    /// `value · 2^bits`, rounded down; the caller bounds the exponent.
    fn fixed(&self, bits: u64) -> BigInt {
        shifted(&self.mantissa, self.exponent + bits as i64)
    }

    fn from_f64(value: f64) -> Self {
        let value = BigRational::from_float(value)
            .unwrap_or_else(|| BigRational::from_integer(BigInt::ZERO));
        // A float's denominator is a power of two.
        let exponent = value.denom().bits() as i64 - 1;
        Self::new(value.numer().clone(), -exponent)
    }

    /// Mantissa as a float from 1/2 to 1, and the exponent.
    fn split(&self) -> (f64, i64) {
        let bits = self.mantissa.bits() as i64;
        let head = shifted(&self.mantissa, 60 - bits);
        let head = i64::try_from(head).unwrap_or(0) as f64;
        (head / f64::powi(2.0, 60), self.exponent + bits)
    }

    /// `floor(self / constant)` to the nearest and what remains, both in fixed point.
    fn reduced(&self, constant: &BigInt) -> Option<(BigInt, BigInt)> {
        if self.exponent().is_some_and(|exponent| exponent > MAX_ARGUMENT) {
            return None;
        }
        let value = self.fixed(CONSTANT);
        let times = floor_quotient(&(&value * 2 + constant), &(constant * 2));
        let rest = value - &times * constant;
        Some((times, rest >> (CONSTANT - FIXED)))
    }
}

impl Real for Precise {
    fn of(value: &BigRational) -> Option<Self> {
        Self::new(value.numer().clone(), 0).divide(&Self::new(value.denom().clone(), 0))
    }

    fn pi() -> Self {
        Self::new(PI.clone(), -(CONSTANT as i64))
    }

    fn add(&self, other: &Self) -> Self {
        let (high, low) =
            if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        if high.is_zero() || low.is_zero() {
            return if high.is_zero() { low.clone() } else { high.clone() };
        }
        let apart = high.exponent - low.exponent;
        // `low` may have all of its bits below those of `high`.
        if apart > 2 * BITS as i64 {
            return high.clone();
        }
        Self::new((&high.mantissa << apart as u64) + &low.mantissa, low.exponent)
    }

    fn multiply(&self, other: &Self) -> Self {
        Self::new(&self.mantissa * &other.mantissa, self.exponent + other.exponent)
    }

    fn negate(&self) -> Self {
        Self { mantissa: -&self.mantissa, exponent: self.exponent }
    }

    fn divide(&self, other: &Self) -> Option<Self> {
        if other.is_zero() {
            return None;
        }
        let shift = BITS + other.mantissa.bits();
        let quotient = (&self.mantissa << shift) / &other.mantissa;
        Some(Self::new(quotient, self.exponent - other.exponent - shift as i64))
    }

    fn square_root(&self) -> Option<Self> {
        if self.is_negative() {
            return None;
        }
        let shift = 2 * BITS as i64 + (self.exponent & 1);
        let radicand = &self.mantissa << shift as u64;
        Some(Self::new(radicand.sqrt(), (self.exponent - shift) / 2))
    }

    fn exponential(&self) -> Option<Self> {
        // e^x = 2^k · e^r, and e^r = (e^(r/4096))^4096.
        const HALVINGS: u64 = 12;
        let (times, rest) = self.reduced(&LN2)?;
        let small = rest >> HALVINGS;
        let one = BigInt::from(1) << FIXED;
        let (mut sum, mut term) = (one.clone(), one);
        for index in 1u32.. {
            term = ((term * &small) >> FIXED) / index;
            if term.bits() <= 1 {
                break;
            }
            sum += &term;
        }
        for _ in 0..HALVINGS {
            sum = (&sum * &sum) >> FIXED;
        }
        let times = i64::try_from(times).ok()?;
        Some(Self::new(sum, times - FIXED as i64))
    }

    fn logarithm(&self) -> Option<Self> {
        if self.is_negative() || self.is_zero() {
            return None;
        }
        let (head, exponent) = self.split();
        let target = Self { mantissa: self.mantissa.clone(), exponent: self.exponent - exponent };
        let mut estimate = Self::from_f64(head.ln());
        // y + 2 (x − e^y) / (x + e^y) triples the right bits: 50, 150, 450.
        for _ in 0..2 {
            let power = estimate.exponential()?;
            let step = target.add(&power.negate()).divide(&target.add(&power))?;
            estimate = estimate.add(&step).add(&step);
        }
        let ln2 = Self::new(LN2.clone(), -(CONSTANT as i64));
        Some(estimate.add(&ln2.multiply(&Self::new(BigInt::from(exponent), 0))))
    }

    fn circular(&self) -> Option<(Self, Self)> {
        let half_pi = &*PI >> 1;
        let (quarters, rest) = self.reduced(&half_pi)?;
        let square = -((&rest * &rest) >> FIXED);
        let one = BigInt::from(1) << FIXED;
        let sine = Self::new(series(rest, &square, 2), -(FIXED as i64));
        let cosine = Self::new(series(one, &square, 1), -(FIXED as i64));
        let quarter = i64::try_from(quarters).ok()?.rem_euclid(4);
        Some(match quarter {
            0 => (sine, cosine),
            1 => (cosine, sine.negate()),
            2 => (sine.negate(), cosine.negate()),
            _ => (cosine.negate(), sine),
        })
    }

    fn angle(&self, x: &Self) -> Option<Self> {
        if self.is_zero() && x.is_zero() {
            return None;
        }
        let radius = self.multiply(self).add(&x.multiply(x)).square_root()?;
        let (sine, cosine) = (self.divide(&radius)?, x.divide(&radius)?);
        let near = |value: &Self| {
            let (head, exponent) = value.split();
            head * f64::powi(2.0, exponent.clamp(-1000, 10) as i32)
        };
        let estimate = Self::from_f64(near(&sine).atan2(near(&cosine)));
        // The sine of what is missing, some 2^-50; its arcsine to the third order is right to
        // 2^-250.
        let (s, c) = estimate.circular()?;
        let missing = sine.multiply(&c).add(&cosine.multiply(&s).negate());
        let cube = missing.multiply(&missing).multiply(&missing);
        let sixth = cube.divide(&Self::new(BigInt::from(6), 0))?;
        Some(estimate.add(&missing).add(&sixth))
    }

    fn is_zero(&self) -> bool {
        self.mantissa.sign() == Sign::NoSign
    }

    fn is_negative(&self) -> bool {
        self.mantissa.sign() == Sign::Minus
    }

    fn exponent(&self) -> Option<i64> {
        let exponent = self.exponent + self.mantissa.bits() as i64;
        (!self.is_zero()).then(|| if exponent.abs() > MAX_EXPONENT { i64::MAX } else { exponent })
    }

    fn nearest(&self) -> Option<(BigInt, bool)> {
        if self.exponent().is_some_and(|exponent| exponent > WHOLE) {
            return None;
        }
        let half = Self::new(BigInt::from(1), -1);
        let whole = self.add(&half).fixed(0);
        let rest = self.add(&Self::new(-&whole, 0));
        let close = rest.exponent().is_none_or(|exponent| exponent.cmp(&-WHOLE) == Ordering::Less);
        Some((whole, close))
    }
}

/// Division that rounds down, for a positive divisor.
fn floor_quotient(value: &BigInt, divisor: &BigInt) -> BigInt {
    let quotient = value / divisor;
    if value.sign() == Sign::Minus && &quotient * divisor != *value {
        quotient - 1
    } else {
        quotient
    }
}

/// `value · 2^by`, rounded down.
fn shifted(value: &BigInt, by: i64) -> BigInt {
    if by >= 0 { value << by as u64 } else { value >> by.unsigned_abs() }
}

/// `first · (1 + s/(k(k+1)) · (1 + s/((k+2)(k+3)) · …))` for `first` and `s` in fixed point.
fn series(first: BigInt, square: &BigInt, mut index: u32) -> BigInt {
    let (mut sum, mut term) = (first.clone(), first);
    while term.bits() > 1 {
        term = ((term * square) >> FIXED) / (index * (index + 1));
        sum += &term;
        index += 2;
    }
    sum
}

/// `arctan(1/n) · 2^CONSTANT`, or `artanh(1/n) · 2^CONSTANT`.
fn inverse_series(n: u32, alternates: bool) -> BigInt {
    let guard = 32;
    let mut power = (BigInt::from(1) << (CONSTANT + guard)) / n;
    let mut sum = BigInt::ZERO;
    for index in 0u32.. {
        let term = &power / (2 * index + 1);
        if term.sign() == Sign::NoSign {
            break;
        }
        sum = if alternates && index % 2 == 1 { sum - term } else { sum + term };
        power /= n * n;
    }
    sum >> guard
}

#[cfg(test)]
mod tests {
    use super::{Precise, Real};
    use num_bigint::BigInt;
    use num_rational::BigRational;

    fn number(over: i64, under: i64) -> Precise {
        Precise::of(&BigRational::new(BigInt::from(over), BigInt::from(under))).unwrap()
    }

    /// Whether two numbers agree to 230 bits.
    fn close(left: &Precise, right: &Precise) -> bool {
        left.add(&right.negate()).exponent().is_none_or(|exponent| exponent < -230)
    }

    #[test]
    fn functions_undo_each_other_to_230_bits() {
        for (over, under) in [(1, 3), (7, 2), (22, 7), (1, 1000), (355, 113), (19, 20), (41, 40)] {
            let x = number(over, under);
            assert!(close(&x.exponential().unwrap().logarithm().unwrap(), &x), "{over}/{under}");
            let root = x.square_root().unwrap();
            assert!(close(&root.multiply(&root), &x), "{over}/{under}");
            let (sine, cosine) = x.circular().unwrap();
            assert!(
                close(&sine.multiply(&sine).add(&cosine.multiply(&cosine)), &number(1, 1)),
                "{over}/{under}"
            );
            let angle = sine.angle(&cosine).unwrap();
            let turns = angle.add(&x.negate()).divide(&Precise::pi()).unwrap();
            assert!(turns.nearest().unwrap().1, "{over}/{under}");
        }
    }

    #[test]
    fn constants_are_right() {
        // The first 40 decimals of π and of e.
        let decimals = |digits: &str| {
            let over: BigInt = digits.parse().unwrap();
            Precise::of(&BigRational::new(over, BigInt::from(10).pow(40))).unwrap()
        };
        let near =
            |left: &Precise, right: &Precise| left.add(&right.negate()).exponent().unwrap() < -130;
        assert!(near(&Precise::pi(), &decimals("31415926535897932384626433832795028841971")));
        assert!(near(
            &number(1, 1).exponential().unwrap(),
            &decimals("27182818284590452353602874713526624977572")
        ));
        assert!(near(
            &number(2, 1).logarithm().unwrap(),
            &decimals("6931471805599453094172321214581765680755")
        ));
    }

    #[test]
    fn near_misses_are_told_apart() {
        // e^(π√163) misses 262537412640768744 by 7.5e-13.
        let power =
            Precise::pi().multiply(&number(163, 1).square_root().unwrap()).exponential().unwrap();
        assert!(!power.nearest().unwrap().1);
        let rest = power.add(&number(262_537_412_640_768_744, 1).negate());
        assert_eq!(rest.exponent(), Some(-40));
    }

    #[test]
    fn bounds_hold() {
        let huge = number(2, 1).multiply(&Precise::new(BigInt::from(1), 60));
        assert!(huge.exponential().is_none() && huge.circular().is_none());
        assert!(number(0, 1).logarithm().is_none() && number(-1, 1).square_root().is_none());
        assert!(number(1, 1).divide(&number(0, 1)).is_none());
    }
}
