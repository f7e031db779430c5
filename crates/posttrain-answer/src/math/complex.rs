//! Complex numbers over either precision. Every function takes its principal value.

use crate::math::real::Real;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Complex<R> {
    pub re: R,
    /// `None` is exactly 0, so that real answers cost what reals cost.
    pub im: Option<R>,
}

impl<R: Real> Complex<R> {
    pub fn real(re: R) -> Self {
        Self { re, im: None }
    }

    fn new(re: R, im: R) -> Self {
        Self { re, im: Some(im).filter(|im| !im.is_zero()) }
    }

    fn zero(&self) -> R {
        self.re.add(&self.re.negate())
    }

    pub fn imaginary(&self) -> R {
        self.im.clone().unwrap_or_else(|| self.zero())
    }

    pub fn is_zero(&self) -> bool {
        self.re.is_zero() && self.im.is_none()
    }

    /// The larger exponent of its two parts.
    pub fn exponent(&self) -> Option<i64> {
        self.re.exponent().max(self.im.as_ref().and_then(Real::exponent))
    }

    pub fn add(&self, other: &Self) -> Self {
        let im = match (&self.im, &other.im) {
            (Some(left), Some(right)) => Some(left.add(right)),
            (left, right) => left.clone().or_else(|| right.clone()),
        };
        Self { re: self.re.add(&other.re), im: im.filter(|im| !im.is_zero()) }
    }

    pub fn negate(&self) -> Self {
        Self { re: self.re.negate(), im: self.im.as_ref().map(Real::negate) }
    }

    pub fn multiply(&self, other: &Self) -> Self {
        match (&self.im, &other.im) {
            (None, None) => Self::real(self.re.multiply(&other.re)),
            (Some(im), None) => Self::new(self.re.multiply(&other.re), im.multiply(&other.re)),
            (None, Some(im)) => Self::new(self.re.multiply(&other.re), self.re.multiply(im)),
            (Some(left), Some(right)) => {
                let re = self.re.multiply(&other.re).add(&left.multiply(right).negate());
                Self::new(re, self.re.multiply(right).add(&left.multiply(&other.re)))
            }
        }
    }

    fn norm(&self) -> R {
        let im = self.imaginary();
        self.re.multiply(&self.re).add(&im.multiply(&im))
    }

    pub fn absolute(&self) -> Option<R> {
        match &self.im {
            None => Some(if self.re.is_negative() { self.re.negate() } else { self.re.clone() }),
            Some(_) => self.norm().square_root(),
        }
    }

    pub fn reciprocal(&self, one: &R) -> Option<Self> {
        match &self.im {
            None => one.divide(&self.re).map(Self::real),
            Some(im) => {
                let scale = one.divide(&self.norm())?;
                Some(Self::new(self.re.multiply(&scale), im.negate().multiply(&scale)))
            }
        }
    }

    pub fn exponential(&self) -> Option<Self> {
        let scale = self.re.exponential()?;
        let Some(im) = &self.im else { return Some(Self::real(scale)) };
        let (sine, cosine) = im.circular()?;
        Some(Self::new(scale.multiply(&cosine), scale.multiply(&sine)))
    }

    pub fn logarithm(&self) -> Option<Self> {
        match &self.im {
            None if self.re.is_zero() => None,
            None if self.re.is_negative() => {
                Some(Self::new(self.re.negate().logarithm()?, R::pi()))
            }
            None => self.re.logarithm().map(Self::real),
            Some(im) => Some(Self::new(self.absolute()?.logarithm()?, im.angle(&self.re)?)),
        }
    }

    pub fn square_root(&self, half: &R) -> Option<Self> {
        match &self.im {
            None if self.re.is_negative() => {
                Some(Self::new(self.zero(), self.re.negate().square_root()?))
            }
            None => self.re.square_root().map(Self::real),
            Some(_) => self.logarithm()?.multiply(&Self::real(half.clone())).exponential(),
        }
    }

    /// Sine and cosine: by Euler's formula off the real line.
    pub fn circular(&self, half: &R) -> Option<(Self, Self)> {
        let Some(im) = &self.im else {
            let (sine, cosine) = self.re.circular()?;
            return Some((Self::real(sine), Self::real(cosine)));
        };
        // sin(a + bi) = sin a cosh b + i cos a sinh b, cos(a + bi) = cos a cosh b − i sin a sinh b
        let (sine, cosine) = self.re.circular()?;
        let (up, down) = (im.exponential()?, im.negate().exponential()?);
        let cosh = up.add(&down).multiply(half);
        let sinh = up.add(&down.negate()).multiply(half);
        let sin = Self::new(sine.multiply(&cosh), cosine.multiply(&sinh));
        Some((sin, Self::new(cosine.multiply(&cosh), sine.multiply(&sinh).negate())))
    }

    /// `i · self`.
    pub fn times_i(&self) -> Self {
        Self::new(self.imaginary().negate(), self.re.clone())
    }
}
