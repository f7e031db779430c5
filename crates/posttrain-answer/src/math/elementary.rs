//! Roots, logarithms, angles, factorials and binomials in canonical form.

use num_bigint::BigInt;
use num_rational::{BigRational, Ratio};

use crate::math::canonical::{Algebra, Fraction};
use crate::math::expression::{Constant, Expr, Function};
use crate::math::factor::Factor;
use crate::math::polynomial::{Atom, Exponent, Monomial, Polynomial, one};

/// The largest factorial that is computed, and the largest choice of a binomial in a variable.
const MAX_FACTORIAL: u32 = 1000;
const MAX_CHOICE: u32 = 32;

impl Algebra {
    pub(crate) fn root(&mut self, degree: u32, radicand: &Expr) -> Option<Fraction> {
        let radicand = self.fraction(radicand)?;
        let exponent = Ratio::new(1, i64::from(degree));
        let negative =
            radicand.as_number().filter(|value| value.numer().sign() == num_bigint::Sign::Minus);
        match negative {
            Some(value) if degree % 2 == 1 => {
                let root = self.power_of_number(&-value, exponent)?;
                self.times(&Fraction::number(-one()), &root)
            }
            _ if degree % 2 == 1 && radicand.as_number().is_none() => {
                self.opaque(format!("root {degree} of {}", radicand.key()), Atom::Other)
            }
            _ => {
                let exponent = BigRational::new(BigInt::from(1), BigInt::from(degree));
                self.power(&radicand, &Fraction::number(exponent))
            }
        }
    }

    pub(crate) fn function(&mut self, function: Function, argument: &Expr) -> Option<Fraction> {
        let form = self.fraction(argument)?;
        let number = form.as_number();
        match (function, number) {
            (Function::Exp, _) => {
                let base = self.atom_of(None, Some(Constant::E))?;
                self.power(&base, &form)
            }
            (Function::Ln, _) => self.logarithm(&form),
            (Function::Abs, Some(value)) => Some(Fraction::number(magnitude(value))),
            (Function::Floor, Some(value)) => Some(Fraction::number(value.floor())),
            (Function::Ceil, Some(value)) => Some(Fraction::number(value.ceil())),
            (Function::Factorial, Some(value)) => factorial(&value).map(Fraction::number),
            (Function::Tan, _) => self.circular_quotient(Function::Sin, Function::Cos, &form),
            (Function::Cot, _) => self.circular_quotient(Function::Cos, Function::Sin, &form),
            (Function::Sec, _) => self.circular_inverse(Function::Cos, &form),
            (Function::Csc, _) => self.circular_inverse(Function::Sin, &form),
            _ => self.opaque(format!("{function:?} {}", form.key()), Atom::Other),
        }
    }

    pub(crate) fn circular_inverse(
        &mut self,
        function: Function,
        form: &Fraction,
    ) -> Option<Fraction> {
        let value = self.opaque(format!("{function:?} {}", form.key()), Atom::Other)?;
        Some(Fraction { over: value.under, under: value.over })
    }

    pub(crate) fn circular_quotient(
        &mut self,
        over: Function,
        under: Function,
        form: &Fraction,
    ) -> Option<Fraction> {
        let over = self.opaque(format!("{over:?} {}", form.key()), Atom::Other)?;
        let under = self.circular_inverse(under, form)?;
        self.times(&over, &under)
    }

    /// The logarithm of a positive term is the sum of its factors' logarithms.
    pub(crate) fn logarithm(&mut self, form: &Fraction) -> Option<Fraction> {
        let term = form.over.as_term().filter(|_| form.under == Polynomial::one());
        let Some((monomial, value)) =
            term.filter(|(monomial, value)| self.is_positive(monomial, value))
        else {
            return self.opaque(format!("Ln {}", form.key()), Atom::Other);
        };
        let (monomial, value) = (monomial.clone(), value.clone());
        let mut sum = Polynomial::default();
        for (part, sign) in [(value.numer(), 1), (value.denom(), -1)] {
            for (factor, count) in self.factors(part)? {
                sum = sum.plus(
                    &self.logarithm_of(&factor.key(), Exponent::from_integer(count * sign))?,
                )?;
            }
        }
        for (id, exponent) in monomial.0 {
            let part = match self.atoms.atom(id) {
                Some(Atom::E) => Polynomial::constant(rational(exponent)),
                Some(Atom::Prime(prime)) => {
                    let key = Factor::Prime(*prime).key();
                    self.logarithm_of(&key, exponent)?
                }
                _ => self.logarithm_of(&format!("a{id}"), exponent)?,
            };
            sum = sum.plus(&part)?;
        }
        Some(Fraction::of(sum))
    }

    pub(crate) fn logarithm_of(&mut self, key: &str, times: Exponent) -> Option<Polynomial> {
        let id = self.atoms.id(format!("Ln {key}"), Atom::Other)?;
        Some(Polynomial::term(Monomial::of(id, Exponent::from_integer(1)), rational(times)))
    }

    pub(crate) fn binomial(&mut self, n: &Expr, k: &Expr) -> Option<Fraction> {
        let (n, k) = (self.fraction(n)?, self.fraction(k)?);
        let count = k
            .as_number()
            .filter(BigRational::is_integer)
            .and_then(|k| u32::try_from(k.numer()).ok());
        let limit = if n.as_number().is_some() { MAX_FACTORIAL } else { MAX_CHOICE };
        let Some(count) = count.filter(|count| *count <= limit) else {
            return self.opaque(format!("binomial {} {}", n.key(), k.key()), Atom::Other);
        };
        let mut product = Fraction::number(one());
        for index in 0..count {
            let shift =
                Polynomial::constant(BigRational::from_integer(BigInt::from(-i64::from(index))));
            let shift = self.atoms.times(&shift, &n.under)?;
            let over = n.over.clone().plus(&shift)?;
            let by = BigRational::new(BigInt::from(1), BigInt::from(index + 1));
            product =
                self.times(&product, &Fraction { over: over.scaled(&by), under: n.under.clone() })?;
        }
        Some(product)
    }

    pub(crate) fn applied(&mut self, name: &str, arguments: &[Expr]) -> Option<Fraction> {
        let mut key = format!("apply {name}");
        for argument in arguments {
            key = format!("{key}, {}", self.fraction(argument)?.key());
        }
        self.opaque(key, Atom::Other)
    }
}

fn rational(exponent: Exponent) -> BigRational {
    BigRational::new(BigInt::from(*exponent.numer()), BigInt::from(*exponent.denom()))
}

fn magnitude(value: BigRational) -> BigRational {
    if value.numer().sign() == num_bigint::Sign::Minus { -value } else { value }
}

fn factorial(value: &BigRational) -> Option<BigRational> {
    let count = u32::try_from(value.numer())
        .ok()
        .filter(|count| value.is_integer() && *count <= MAX_FACTORIAL)?;
    let product = (2..=count).fold(BigInt::from(1), |product, factor| product * factor);
    Some(BigRational::from_integer(product))
}
