//! The values of functions at a point.

use num_rational::BigRational;

use crate::math::complex::Complex;
use crate::math::evaluate::{Evaluator, MAX_COUNT};
use crate::math::expression::{Expr, Function};
use crate::math::real::Real;

impl<R: Real> Evaluator<R> {
    pub(crate) fn function(
        &mut self,
        function: Function,
        argument: &Complex<R>,
    ) -> Option<Complex<R>> {
        self.spend(1)?;
        match function {
            Function::Sin => argument.circular(&self.half).map(|(sine, _)| sine),
            Function::Cos => argument.circular(&self.half).map(|(_, cosine)| cosine),
            Function::Sec => self.inverse_of(&argument.circular(&self.half)?.1),
            Function::Csc => self.inverse_of(&argument.circular(&self.half)?.0),
            Function::Tan => self.circular_quotient(argument, false),
            Function::Cot => self.circular_quotient(argument, true),
            Function::Arcsin => self.arcsine(argument),
            Function::Arccos => {
                let right = Complex::real(R::pi().multiply(&self.half));
                Some(right.add(&self.arcsine(argument)?.negate()))
            }
            Function::Arctan => self.arctangent(argument),
            Function::Sinh => self.hyperbolic(argument).map(|(sinh, _)| sinh),
            Function::Cosh => self.hyperbolic(argument).map(|(_, cosh)| cosh),
            Function::Tanh => {
                let (sinh, cosh) = self.hyperbolic(argument)?;
                Some(sinh.multiply(&cosh.reciprocal(&self.one)?))
            }
            Function::Ln => self.logarithm(argument),
            Function::Exp => argument.exponential(),
            Function::Abs => argument.absolute().map(Complex::real),
            Function::Floor => Self::step(argument, false),
            Function::Ceil => Self::step(argument, true),
            Function::Factorial => self.factorial(argument),
        }
    }

    /// One over a sine or cosine, which is 0 as far as the precision tells where it is tiny.
    pub(crate) fn inverse_of(&mut self, value: &Complex<R>) -> Option<Complex<R>> {
        let tiny = value.exponent().is_none_or(|exponent| exponent < -40);
        if tiny { self.no_value() } else { value.reciprocal(&self.one) }
    }

    pub(crate) fn circular_quotient(
        &mut self,
        argument: &Complex<R>,
        turned: bool,
    ) -> Option<Complex<R>> {
        let (sine, cosine) = argument.circular(&self.half)?;
        let (over, under) = if turned { (cosine, sine) } else { (sine, cosine) };
        Some(over.multiply(&self.inverse_of(&under)?))
    }

    /// `−i ln(iz + √(1 − z²))`.
    pub(crate) fn arcsine(&self, z: &Complex<R>) -> Option<Complex<R>> {
        let one = Complex::real(self.one.clone());
        let rest = one.add(&z.multiply(z).negate()).square_root(&self.half)?;
        let result = z.times_i().add(&rest).logarithm()?.times_i().negate();
        Some(self.real_inside(result, z))
    }

    /// `(i/2) (ln(1 − iz) − ln(1 + iz))`.
    pub(crate) fn arctangent(&self, z: &Complex<R>) -> Option<Complex<R>> {
        let one = Complex::real(self.one.clone());
        let left = one.add(&z.times_i().negate()).logarithm()?;
        let right = one.add(&z.times_i()).logarithm()?;
        let result =
            left.add(&right.negate()).times_i().multiply(&Complex::real(self.half.clone()));
        Some(if z.im.is_none() { Complex::real(result.re) } else { result })
    }

    /// Drops the rounding error in the imaginary part of what is real: an arcsine from −1 to 1.
    pub(crate) fn real_inside(&self, result: Complex<R>, z: &Complex<R>) -> Complex<R> {
        let inside = z.absolute().is_some_and(|size| !self.one.add(&size.negate()).is_negative());
        if z.im.is_none() && inside { Complex::real(result.re) } else { result }
    }

    pub(crate) fn hyperbolic(&self, z: &Complex<R>) -> Option<(Complex<R>, Complex<R>)> {
        let half = Complex::real(self.half.clone());
        let (up, down) = (z.exponential()?, z.negate().exponential()?);
        Some((up.add(&down.negate()).multiply(&half), up.add(&down).multiply(&half)))
    }

    pub(crate) fn step(argument: &Complex<R>, up: bool) -> Option<Complex<R>> {
        let value = &argument.re;
        let (whole, close) = value.nearest().filter(|_| argument.im.is_none())?;
        let rest = value.add(&R::of(&BigRational::from_integer(whole.clone()))?.negate());
        let result = match (close, up) {
            (false, false) if rest.is_negative() => whole - 1,
            (false, true) if !rest.is_negative() => whole + 1,
            _ => whole,
        };
        R::of(&BigRational::from_integer(result)).map(Complex::real)
    }

    /// The whole number from 0 to [`MAX_COUNT`] that a value is.
    pub(crate) fn count(value: &Complex<R>) -> Option<i64> {
        let (whole, close) = value.re.nearest().filter(|_| value.im.is_none())?;
        i64::try_from(whole).ok().filter(|count| close && (0..=MAX_COUNT).contains(count))
    }

    pub(crate) fn factorial(&mut self, argument: &Complex<R>) -> Option<Complex<R>> {
        if argument.re.is_negative() {
            return self.no_value();
        }
        let count = Self::count(argument)?;
        self.spend(count)?;
        let factors = (2..=count).map(Self::number);
        let product = factors
            .into_iter()
            .try_fold(self.one.clone(), |product, factor| Some(product.multiply(&factor?)));
        product.map(Complex::real)
    }

    /// `n (n − 1) … (n − k + 1) / k!`, for any `n` and a whole `k`.
    pub(crate) fn binomial(&mut self, n: &Expr, k: &Expr) -> Option<Complex<R>> {
        let (n, k) = (self.value(n)?, self.value(k)?);
        let count = Self::count(&k)?;
        self.spend(2 * count)?;
        let mut product = Complex::real(self.one.clone());
        for index in 0..count {
            let factor = n.add(&Complex::real(Self::number(-index)?));
            let under = Complex::real(Self::number(index + 1)?).reciprocal(&self.one)?;
            product = product.multiply(&factor).multiply(&under);
        }
        Some(product)
    }
}
