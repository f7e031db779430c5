//! Powers in canonical form: of numbers by their primes, of sums as atoms, with variables in the
//! exponent.

use num_bigint::BigInt;
use num_rational::{BigRational, Ratio};

use crate::math::canonical::{Algebra, Fraction};
use crate::math::expression::Constant;
use crate::math::factor::Factor;
use crate::math::polynomial::{Atom, Exponent, Id, Monomial, Polynomial, bounded, one, power_of};

/// The largest whole power of a sum that is multiplied out.
const MAX_POWER: i64 = 100;

impl Algebra {
    pub(crate) fn power(&mut self, base: &Fraction, exponent: &Fraction) -> Option<Fraction> {
        let Some(number) = exponent.as_number() else { return self.symbolic_power(base, exponent) };
        let (Ok(over), Ok(under)) = (i64::try_from(number.numer()), i64::try_from(number.denom()))
        else {
            return self.opaque(format!("{}^{}", base.key(), number), Atom::Other);
        };
        if under == 1 {
            // 10^(10^10) stays as it is.
            let large = || {
                base.as_number()
                    .filter(|value| *value.numer() != BigInt::ZERO)
                    .map(|value| format!("{value}^{over}"))
            };
            return match self.whole_power(base, over) {
                None => large().and_then(|key| self.opaque(key, Atom::Other)),
                power => power,
            };
        }
        let exponent = bounded(Ratio::new(over, under))?;
        if let Some(value) = base.as_number() {
            return self.power_of_number(&value, exponent);
        }
        match base.over.as_term() {
            Some((monomial, value))
                if base.under == Polynomial::one() && self.is_positive(monomial, value) =>
            {
                let (monomial, value) = (monomial.clone(), value.clone());
                let number = self.power_of_number(&value, exponent)?;
                let raised = self.raised(&monomial, exponent)?;
                self.times(&number, &raised)
            }
            _ => self.radical(base, exponent),
        }
    }

    pub(crate) fn whole_power(&mut self, base: &Fraction, count: i64) -> Option<Fraction> {
        let (base, count) = if count < 0 {
            let flipped = Fraction { over: base.under.clone(), under: base.over.clone() };
            ((!flipped.under.is_zero()).then_some(flipped)?, count.checked_neg()?)
        } else {
            (base.clone(), count)
        };
        let over = self.polynomial_power(&base.over, count)?;
        Some(Fraction { over, under: self.polynomial_power(&base.under, count)? })
    }

    pub(crate) fn polynomial_power(&mut self, base: &Polynomial, count: i64) -> Option<Polynomial> {
        if let Some((monomial, value)) = base.as_term() {
            let value = power_of(value, count)?;
            let raised = scaled(monomial, Exponent::from_integer(count))?;
            return self.atoms.reduced(raised, value).map(Polynomial::from);
        }
        if count > MAX_POWER {
            return None;
        }
        let mut result = Polynomial::one();
        for _ in 0..count {
            result = self.atoms.times(&result, base)?;
        }
        Some(result)
    }

    /// A fractional power of a rational number: of its primes, and of −1 where the power is a half.
    pub(crate) fn power_of_number(
        &mut self,
        value: &BigRational,
        exponent: Exponent,
    ) -> Option<Fraction> {
        if *value.numer() == BigInt::ZERO {
            return (*exponent.numer() > 0).then(|| Fraction::number(value.clone()));
        }
        let mut result = Fraction::number(one());
        if value.numer().sign() == num_bigint::Sign::Minus {
            if *exponent.denom() != 2 {
                return self.opaque(format!("({value})^{exponent}"), Atom::Other);
            }
            let unit = self.atom_of(None, Some(Constant::I))?;
            result = self.whole_power(&unit, *exponent.numer())?;
        }
        for (part, sign) in [(value.numer(), 1), (value.denom(), -1)] {
            for (prime, count) in self.factors(part)? {
                let power = bounded(exponent.checked_times(count * sign)?)?;
                let term = self.root_of_prime(prime, power)?;
                result = self.times(&result, &term)?;
            }
        }
        Some(result)
    }

    pub(crate) fn root_of_prime(&mut self, prime: Factor, power: Exponent) -> Option<Fraction> {
        let id = match &prime {
            Factor::Prime(prime) => self.atoms.id(format!("prime {prime}"), Atom::Prime(*prime))?,
            Factor::Large(rest) => {
                let radicand = Polynomial::constant(BigRational::from_integer(rest.clone()));
                self.atoms.id(format!("radical {rest}"), Atom::Radical(radicand))?
            }
        };
        let whole = power.floor();
        // A radical's negative powers are those of the polynomial below.
        let base = match prime {
            Factor::Prime(prime) => BigInt::from(prime),
            Factor::Large(rest) => rest,
        };
        let value = power_of(&BigRational::from_integer(base), whole.to_integer())?;
        Some(Fraction::of(Polynomial::term(Monomial::of(id, power - whole), value)))
    }

    /// Whether a term is positive for all real values of its variables: it has only primes, π, e
    /// and powers of those.
    pub(crate) fn is_positive(&self, monomial: &Monomial, value: &BigRational) -> bool {
        let positive = |id: &Id| {
            matches!(
                self.atoms.atom(*id),
                Some(Atom::Pi | Atom::E | Atom::Prime(_) | Atom::Exponential)
            )
        };
        value.numer().sign() == num_bigint::Sign::Plus
            && monomial.0.iter().all(|(id, _)| positive(id))
    }

    /// Whether a monomial is surely real for real values of its variables.
    pub(crate) fn is_real(&self, monomial: &Monomial) -> bool {
        let whole = |exponent: &Exponent| exponent.is_integer();
        let real = |(id, exponent): &(Id, Exponent)| match self.atoms.atom(*id) {
            Some(Atom::Pi | Atom::E | Atom::Prime(_)) => true,
            Some(Atom::Symbol) => whole(exponent),
            _ => false,
        };
        monomial.0.iter().all(real)
    }

    pub(crate) fn raised(&mut self, monomial: &Monomial, exponent: Exponent) -> Option<Fraction> {
        let raised = scaled(monomial, exponent)?;
        self.atoms.reduced(raised, one()).map(|reduced| Fraction::of(Polynomial::from(reduced)))
    }

    /// A fractional power of a sum: its positive rational content to that power, times an atom.
    pub(crate) fn radical(&mut self, base: &Fraction, exponent: Exponent) -> Option<Fraction> {
        let below = base.under.as_constant().filter(|value| *value == one());
        if below.is_none() {
            return self.opaque(format!("{}^{exponent}", base.key()), Atom::Other);
        }
        let leading = base.over.leading()?;
        let content = if leading.numer().sign() == num_bigint::Sign::Minus {
            -leading
        } else {
            leading.clone()
        };
        let radicand = base.over.scaled(&content.recip());
        let id = self
            .atoms
            .id(format!("radical {}", radicand.key()), Atom::Radical(radicand.clone()))?;
        let whole = exponent.floor();
        let scale = self.power_of_number(&content, exponent)?;
        let root = Self::power_of_atom(id, exponent - whole);
        let rest = self.whole_power(&Fraction::of(radicand), whole.to_integer())?;
        let product = self.times(&scale, &root)?;
        self.times(&product, &rest)
    }

    /// A power with variables in the exponent, term by term: `2^(2n + 1)` is `2 · (2^n)^2`.
    pub(crate) fn symbolic_power(
        &mut self,
        base: &Fraction,
        exponent: &Fraction,
    ) -> Option<Fraction> {
        let opaque =
            |base: &Fraction, exponent: &Fraction| format!("{}^{}", base.key(), exponent.key());
        let below = exponent.under.as_constant().filter(|value| *value == one());
        let Some(bases) = self.bases(base).filter(|_| below.is_some()) else {
            return self.opaque(opaque(base, exponent), Atom::Other);
        };
        let mut result = Fraction::number(one());
        for (monomial, value) in &exponent.over.0 {
            for (key, power, positive) in &bases {
                let factor = Ratio::new(
                    i64::try_from(value.numer()).ok()?,
                    i64::try_from(value.denom()).ok()?,
                );
                let factor = bounded(bounded(factor)?.checked_times(*power)?)?;
                let positive = &(*positive && self.is_real(monomial));
                let term = if monomial.is_one() {
                    self.power(base, &Fraction::number(value.clone()))?
                } else if *positive || factor.is_integer() {
                    let atom = if *positive { Atom::Exponential } else { Atom::Other };
                    let id = self.atoms.id(format!("{key}^{}", monomial.key()), atom)?;
                    Self::power_of_atom(id, factor)
                } else {
                    return self.opaque(opaque(base, exponent), Atom::Other);
                };
                result = self.times(&result, &term)?;
                if monomial.is_one() {
                    break;
                }
            }
        }
        Some(result)
    }

    /// What a base of a symbolic power is made of: key, power, and whether it is positive.
    pub(crate) fn bases(&mut self, base: &Fraction) -> Option<Vec<(String, i64, bool)>> {
        if let Some(value) = base.as_number() {
            let positive = value.numer().sign() == num_bigint::Sign::Plus;
            let mut bases = Vec::new();
            for (part, sign) in [(value.numer(), 1), (value.denom(), -1)] {
                let factors = self.factors(part)?;
                bases.extend(
                    factors.into_iter().map(|(factor, count)| (factor.key(), count * sign, true)),
                );
            }
            return positive.then_some(bases);
        }
        let (monomial, value) = base.over.as_term().filter(|_| base.under == Polynomial::one())?;
        match monomial.0.as_slice() {
            [(id, exponent)] if *value == one() && *exponent == Exponent::from_integer(1) => {
                let positive = matches!(self.atoms.atom(*id), Some(Atom::E | Atom::Pi));
                Some(vec![(format!("a{id}"), 1, positive)])
            }
            _ => None,
        }
    }
}

/// `monomial^exponent`, not reduced.
fn scaled(monomial: &Monomial, exponent: Exponent) -> Option<Monomial> {
    let zero = Exponent::from_integer(0);
    let raise = |(id, power): &(Id, Exponent)| {
        let over = i128::from(*power.numer()) * i128::from(*exponent.numer());
        let under = i128::from(*power.denom()) * i128::from(*exponent.denom());
        Some((*id, bounded(Ratio::new(i64::try_from(over).ok()?, i64::try_from(under).ok()?))?))
    };
    let raised = monomial.0.iter().map(raise).collect::<Option<Vec<_>>>()?;
    Some(Monomial(raised.into_iter().filter(|(_, power)| *power != zero).collect()))
}

/// Multiplication by a count, checked.
trait Times: Sized {
    fn checked_times(self, count: i64) -> Option<Self>;
}

impl Times for Exponent {
    fn checked_times(self, count: i64) -> Option<Self> {
        self.numer().checked_mul(count).map(|over| Self::new(over, *self.denom()))
    }
}
