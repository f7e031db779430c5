//! The value of an expression at a point, in either precision.
//!
//! A variable's value is a fixed function of its name and of the number of the point, so that both
//! sides of a comparison see the same one without agreeing on anything.

use num_bigint::BigInt;
use num_rational::BigRational;

use crate::math::complex::Complex;
use crate::math::expression::{Constant, Expr};
use crate::math::real::Real;

/// How many points there are.
pub(crate) const POINTS: u64 = 4;
/// The largest whole exponent that is computed by multiplying, and the largest factorial.
pub(crate) const MAX_COUNT: i64 = 20_000;
/// The largest power of two that a result may reach.
const MAX_MAGNITUDE: i64 = 1 << 49;
/// Multiplications that one evaluation may cost.
const MAX_WORK: i64 = 100_000;

/// Evaluates expressions at one point.
pub(crate) struct Evaluator<R> {
    point: u64,
    names: Names,
    /// The largest exponent of any term of a sum: what was rounded there is lost to the result.
    pub scale: i64,
    /// Whether a value was missing because there is none: a division by zero, the logarithm of 0.
    pub pole: bool,
    work: i64,
    pub(crate) one: R,
    pub(crate) half: R,
}

/// How variables are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Names {
    /// `X` is `x`.
    pub fold_case: bool,
    /// Variables are small whole numbers, as factorials need.
    pub whole: bool,
}

impl<R: Real> Evaluator<R> {
    pub fn new(point: u64, names: Names) -> Option<Self> {
        let one = R::of(&BigRational::from_integer(BigInt::from(1)))?;
        let half = R::of(&BigRational::new(BigInt::from(1), BigInt::from(2)))?;
        Some(Self { point, names, scale: i64::MIN, pole: false, work: MAX_WORK, one, half })
    }

    /// The value, or `None` at a pole, beyond a bound and where a function has none.
    pub fn value(&mut self, expr: &Expr) -> Option<Complex<R>> {
        let value = match expr {
            Expr::Number(number) => Complex::real(R::of(number)?),
            Expr::Symbol(name) => self.symbol(name)?,
            Expr::Constant(constant) => self.constant(*constant)?,
            Expr::Sum(terms) => self.sum(terms)?,
            Expr::Product(factors) => self.product(factors)?,
            Expr::Power(base, exponent) => self.power(base, exponent)?,
            Expr::Root(degree, radicand) => self.root(*degree, radicand)?,
            Expr::Function(function, argument) => {
                let argument = self.value(argument)?;
                self.function(*function, &argument)?
            }
            Expr::Binomial(n, k) => self.binomial(n, k)?,
            Expr::Apply(name, arguments) => self.applied(name, arguments)?,
        };
        let bounded = value.exponent().is_none_or(|exponent| exponent <= MAX_MAGNITUDE);
        bounded.then_some(value)
    }

    pub(crate) fn number(value: i64) -> Option<R> {
        R::of(&BigRational::from_integer(BigInt::from(value)))
    }

    pub(crate) fn no_value<T>(&mut self) -> Option<T> {
        self.pole = true;
        None
    }

    fn inverted(&mut self, value: &Complex<R>) -> Option<Complex<R>> {
        if value.is_zero() { self.no_value() } else { value.reciprocal(&self.one) }
    }

    pub(crate) fn logarithm(&mut self, value: &Complex<R>) -> Option<Complex<R>> {
        if value.is_zero() { self.no_value() } else { value.logarithm() }
    }

    pub(crate) fn spend(&mut self, work: i64) -> Option<()> {
        self.work -= work;
        (self.work > 0).then_some(())
    }

    /// From 2 to 4, or a whole number from 3 to 40; the points differ in the variables' signs.
    fn symbol(&self, name: &str) -> Option<Complex<R>> {
        let hash = self.hash(name);
        if self.names.whole {
            return Self::number(3 + (hash % 38) as i64).map(Complex::real);
        }
        let value =
            BigRational::new(BigInt::from((1 << 20) + hash % (1 << 20)), BigInt::from(1 << 19));
        let negative = match self.point {
            0 => false,
            1 => true,
            _ => hash >> 40 & 1 == 1,
        };
        R::of(&if negative { -value } else { value }).map(Complex::real)
    }

    /// FNV-1a over the name and the point, then mixed.
    fn hash(&self, name: &str) -> u64 {
        let start = 0xcbf2_9ce4_8422_2325 ^ (self.point << 32);
        let hash = name.bytes().fold(start, |hash, byte| {
            let byte = if self.names.fold_case { byte.to_ascii_lowercase() } else { byte };
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ (mixed >> 29)
    }

    fn constant(&self, constant: Constant) -> Option<Complex<R>> {
        Some(match constant {
            Constant::Pi => Complex::real(R::pi()),
            Constant::E => Complex::real(self.one.exponential()?),
            Constant::I => Complex::real(self.one.clone()).times_i(),
        })
    }

    fn sum(&mut self, terms: &[Expr]) -> Option<Complex<R>> {
        let mut sum: Option<Complex<R>> = None;
        for term in terms {
            let value = self.value(term)?;
            self.scale = self.scale.max(value.exponent().unwrap_or(i64::MIN));
            sum = Some(sum.map_or(value.clone(), |sum| sum.add(&value)));
        }
        self.spend(terms.len() as i64)?;
        sum
    }

    fn product(&mut self, factors: &[Expr]) -> Option<Complex<R>> {
        let mut product = Complex::real(self.one.clone());
        for factor in factors {
            product = product.multiply(&self.value(factor)?);
            self.spend(1)?;
            if product.exponent().is_some_and(|exponent| exponent > MAX_MAGNITUDE) {
                return None;
            }
        }
        Some(product)
    }

    fn power(&mut self, base: &Expr, exponent: &Expr) -> Option<Complex<R>> {
        if let Some(count) = exponent.as_integer() {
            let base = self.value(base)?;
            return match i64::try_from(count) {
                Ok(count) if count.abs() <= MAX_COUNT => self.whole_power(&base, count),
                // 10^(10^10), by its logarithm; its sign is that of an even or odd power.
                _ => self.large_power(&base, exponent),
            };
        }
        let variable = base.has_symbols();
        let base = self.value(base)?;
        // x^(2/3) of a real variable is (∛x)², which is real; of a number it is the principal
        // value.
        let odd_root = variable && base.im.is_none() && base.re.is_negative();
        if let Some(number) =
            exponent.as_number().filter(|number| odd_root && number.denom().bit(0))
        {
            let (odd, exponent) = (number.numer().bit(0), Complex::real(R::of(number)?));
            let power = self.logarithm(&base.negate())?.multiply(&exponent).exponential()?;
            return Some(if odd { power.negate() } else { power });
        }
        let exponent = self.value(exponent)?;
        self.logarithm(&base)?.multiply(&exponent).exponential()
    }

    fn large_power(&mut self, base: &Complex<R>, exponent: &Expr) -> Option<Complex<R>> {
        let negative = base.im.is_some() || base.re.is_negative() || base.is_zero();
        if negative {
            return None;
        }
        let exponent = self.value(exponent)?;
        base.logarithm()?.multiply(&exponent).exponential()
    }

    fn whole_power(&mut self, base: &Complex<R>, count: i64) -> Option<Complex<R>> {
        let mut result = Complex::real(self.one.clone());
        let mut square = base.clone();
        let mut rest = count.unsigned_abs();
        while rest > 0 {
            if rest & 1 == 1 {
                result = result.multiply(&square);
            }
            rest >>= 1;
            square = square.multiply(&square);
            self.spend(2)?;
            if result
                .exponent()
                .max(square.exponent())
                .is_some_and(|exponent| exponent > MAX_MAGNITUDE && rest > 0)
            {
                return None;
            }
        }
        if count < 0 { self.inverted(&result) } else { Some(result) }
    }

    fn root(&mut self, degree: u32, radicand: &Expr) -> Option<Complex<R>> {
        let value = self.value(radicand)?;
        if degree == 2 {
            return value.square_root(&self.half);
        }
        if value.is_zero() {
            return Some(value);
        }
        let negative = degree % 2 == 1 && value.im.is_none() && value.re.is_negative();
        let base = if negative { value.negate() } else { value };
        let degree = Complex::real(Self::number(i64::from(degree))?).reciprocal(&self.one)?;
        let root = base.logarithm()?.multiply(&degree).exponential()?;
        Some(if negative { root.negate() } else { root })
    }

    /// An unknown function is one that no answer means: `a₁ √2 + a₁² + a₂ √2 …`, with coefficients
    /// of its name.
    fn applied(&mut self, name: &str, arguments: &[Expr]) -> Option<Complex<R>> {
        let mut sum = self.symbol(name)?;
        for (index, argument) in arguments.iter().enumerate() {
            let value = self.value(argument)?;
            let weight = self.symbol(&format!("{name}({index})"))?;
            sum = sum.add(&value.multiply(&value)).add(&value.multiply(&weight));
        }
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::{Evaluator, Names};
    use crate::math::expression::{Expr, Function};
    use crate::math::precise::Precise;
    use crate::math::real::Real;

    const NAMES: Names = Names { fold_case: false, whole: false };

    fn near(expr: &Expr, expected: f64) {
        let value = Evaluator::<f64>::new(0, NAMES).unwrap().value(expr).unwrap();
        assert!(
            (value.re - expected).abs() < 1e-12 * expected.abs().max(1.0) && value.im.is_none(),
            "{expr:?} {value:?}"
        );
        let precise = Evaluator::<Precise>::new(0, NAMES).unwrap().value(expr).unwrap();
        let apart = precise.re.add(
            &Precise::of(&num_rational::BigRational::from_float(expected).unwrap())
                .unwrap()
                .negate(),
        );
        assert!(apart.exponent().is_none_or(|exponent| exponent < -38), "{expr:?}");
    }

    #[test]
    fn functions_have_their_values() {
        let half = || Expr::quotient(Expr::integer(1), Expr::integer(2));
        let of = |function, argument| Expr::function(function, argument);
        near(&of(Function::Sin, half()), 0.5f64.sin());
        near(&of(Function::Arcsin, half()), 0.5f64.asin());
        near(&of(Function::Arccos, half()), 0.5f64.acos());
        near(&of(Function::Arctan, Expr::integer(2)), 2f64.atan());
        near(&of(Function::Tanh, half()), 0.5f64.tanh());
        near(&of(Function::Cot, half()), 1.0 / 0.5f64.tan());
        near(&of(Function::Floor, half().negated()), -1.0);
        near(&of(Function::Ceil, half()), 1.0);
        near(&of(Function::Factorial, Expr::integer(10)), 3_628_800.0);
        near(&Expr::Root(3, Box::new(Expr::integer(-8))), -2.0);
        near(&Expr::Binomial(Box::new(Expr::integer(10)), Box::new(Expr::integer(3))), 120.0);
        near(&Expr::power(Expr::integer(2), half()), 2f64.sqrt());
        near(&Expr::power(Expr::integer(2), Expr::integer(-3)), 0.125);
    }

    #[test]
    fn what_has_no_value_has_none() {
        let value = |expr: &Expr| Evaluator::<Precise>::new(0, NAMES).unwrap().value(expr);
        let huge = Expr::power(Expr::integer(10), Expr::integer(10_000_000_000_000_000));
        assert!(value(&Expr::power(Expr::integer(0), Expr::integer(-1))).is_none());
        assert!(value(&Expr::function(Function::Factorial, Expr::integer(100_000))).is_none());
        assert!(value(&Expr::function(Function::Factorial, Expr::integer(-1))).is_none());
        assert!(value(&Expr::function(Function::Ln, Expr::integer(0))).is_none());
        assert!(value(&Expr::function(Function::Sin, huge.clone())).is_none());
        assert!(value(&Expr::power(Expr::integer(10), huge)).is_none());
    }
}
