//! Polynomials with rational coefficients in atoms: variables, π, e, i, roots of primes, and
//! whatever is not taken apart.

use std::collections::{BTreeMap, HashMap};

use num_bigint::BigInt;
use num_rational::{BigRational, Ratio};

/// The most terms of a polynomial.
const MAX_TERMS: usize = 512;
/// The most bits of a coefficient's numerator and denominator.
pub(crate) const MAX_BITS: u64 = 10_000;
/// Products of terms that one comparison may cost.
const MAX_WORK: usize = 20_000;
/// The largest numerator and denominator of an exponent.
const MAX_EXPONENT: i64 = 1_000_000;

/// An atom's number in its [`Atoms`].
pub(crate) type Id = u16;
pub(crate) type Exponent = Ratio<i64>;

/// A product of powers of atoms, sorted by atom, none to the power 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Monomial(pub Vec<(Id, Exponent)>);

/// A sum of monomials with coefficients that are not 0.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Polynomial(pub BTreeMap<Monomial, BigRational>);

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Atom {
    Symbol,
    Pi,
    E,
    /// i² is −1.
    I,
    /// Only its powers between 0 and 1 stand in a monomial.
    Prime(u32),
    /// A power from 0 to 1 of a polynomial, likewise.
    Radical(Polynomial),
    /// A power whose base is positive.
    Exponential,
    Other,
}

/// The atoms of a comparison. Both sides share one, so that the same atom has the same number.
#[derive(Debug, Default)]
pub(crate) struct Atoms {
    atoms: Vec<Atom>,
    ids: HashMap<String, Id>,
    work: usize,
}

impl Monomial {
    pub fn of(id: Id, exponent: Exponent) -> Self {
        Self(if exponent == Exponent::from_integer(0) { vec![] } else { vec![(id, exponent)] })
    }

    pub fn is_one(&self) -> bool {
        self.0.is_empty()
    }

    /// A key that equal monomials share.
    pub fn key(&self) -> String {
        self.0
            .iter()
            .map(|(id, exponent)| format!("a{id}^{exponent}"))
            .collect::<Vec<_>>()
            .join("*")
    }

    /// Both together; the exponents are not yet reduced.
    fn times(&self, other: &Self) -> Option<Self> {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut product = Vec::with_capacity(self.0.len() + other.0.len());
        loop {
            match (left.peek(), right.peek()) {
                (Some(l), Some(r)) if l.0 == r.0 => {
                    let exponent = bounded(l.1 + r.1)?;
                    product
                        .extend((exponent != Exponent::from_integer(0)).then_some((l.0, exponent)));
                    left.next();
                    right.next();
                }
                (Some(l), Some(r)) if l.0 < r.0 => product.extend(left.next()),
                (_, Some(_)) => product.extend(right.next()),
                (Some(_), None) => product.extend(left.next()),
                (None, None) => return Some(Self(product)),
            }
        }
    }
}

/// `exponent` if it is small enough to be computed with.
pub(crate) fn bounded(exponent: Exponent) -> Option<Exponent> {
    (exponent.numer().abs() <= MAX_EXPONENT && *exponent.denom() <= MAX_EXPONENT)
        .then_some(exponent)
}

impl Polynomial {
    pub fn constant(value: BigRational) -> Self {
        Self::term(Monomial::default(), value)
    }

    pub fn one() -> Self {
        Self::constant(one())
    }

    pub fn term(monomial: Monomial, value: BigRational) -> Self {
        let nonzero = *value.numer() != BigInt::ZERO;
        Self(nonzero.then_some((monomial, value)).into_iter().collect())
    }

    pub fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    /// The rational number that it is.
    pub fn as_constant(&self) -> Option<BigRational> {
        match self.as_term() {
            Some((monomial, value)) if monomial.is_one() => Some(value.clone()),
            None if self.is_zero() => Some(BigRational::from_integer(BigInt::ZERO)),
            _ => None,
        }
    }

    /// The only term.
    pub fn as_term(&self) -> Option<(&Monomial, &BigRational)> {
        self.0.iter().next().filter(|_| self.0.len() == 1)
    }

    pub fn scaled(&self, by: &BigRational) -> Self {
        Self(
            self.0.iter().map(|(monomial, value)| (monomial.clone(), product(value, by))).collect(),
        )
    }

    /// The coefficient of the last monomial.
    pub fn leading(&self) -> Option<&BigRational> {
        self.0.last_key_value().map(|(_, value)| value)
    }

    /// A key that equal polynomials share.
    pub fn key(&self) -> String {
        self.0
            .iter()
            .map(|(monomial, value)| format!("{value}{}", monomial.key()))
            .collect::<Vec<_>>()
            .join("+")
    }

    fn insert(&mut self, monomial: Monomial, value: BigRational) -> Option<()> {
        let total = match self.0.remove(&monomial) {
            Some(old) => sum(&old, &value),
            None => value,
        };
        if total.numer().bits().max(total.denom().bits()) > MAX_BITS {
            return None;
        }
        if *total.numer() != BigInt::ZERO {
            self.0.insert(monomial, total);
        }
        (self.0.len() <= MAX_TERMS).then_some(())
    }

    pub fn plus(mut self, other: &Self) -> Option<Self> {
        for (monomial, value) in &other.0 {
            self.insert(monomial.clone(), value.clone())?;
        }
        Some(self)
    }
}

pub(crate) fn one() -> BigRational {
    BigRational::from_integer(BigInt::from(1))
}

impl Atoms {
    /// The number of the atom with this key.
    pub fn id(&mut self, key: String, atom: Atom) -> Option<Id> {
        if let Some(id) = self.ids.get(&key) {
            return Some(*id);
        }
        let id = Id::try_from(self.atoms.len()).ok()?;
        self.atoms.push(atom);
        self.ids.insert(key, id);
        Some(id)
    }

    pub fn atom(&self, id: Id) -> Option<&Atom> {
        self.atoms.get(usize::from(id))
    }

    /// Counts work; `None` where it was too much.
    pub fn spend(&mut self, work: usize) -> Option<()> {
        self.work += work;
        (self.work <= MAX_WORK).then_some(())
    }

    pub fn times(&mut self, left: &Polynomial, right: &Polynomial) -> Option<Polynomial> {
        self.spend(left.0.len() * right.0.len() + 1)?;
        let mut result = Polynomial::default();
        for (one, value) in &left.0 {
            for (other, factor) in &right.0 {
                let reduced = self.reduced(one.times(other)?, product(value, factor))?;
                result = match reduced {
                    Reduced::Term(monomial, value) => {
                        result.insert(monomial, value)?;
                        result
                    }
                    Reduced::Many(polynomial) => result.plus(&polynomial)?,
                };
            }
        }
        Some(result)
    }

    /// A term with its exponents reduced: roots of primes below 1, i² as −1, radicals multiplied
    /// out.
    pub fn reduced(&mut self, monomial: Monomial, value: BigRational) -> Option<Reduced> {
        let reducible = |(id, exponent): &(Id, Exponent)| match self.atom(*id) {
            Some(Atom::I) => *exponent != Exponent::from_integer(1),
            Some(Atom::Prime(_) | Atom::Radical(_)) => {
                exponent.floor() != Exponent::from_integer(0)
            }
            _ => false,
        };
        if !monomial.0.iter().any(reducible) {
            return Some(Reduced::Term(monomial, value));
        }
        let (mut kept, mut value) = (Vec::with_capacity(monomial.0.len()), value);
        let mut radicals = Vec::new();
        for (id, exponent) in monomial.0 {
            let whole = exponent.floor();
            let count = whole.to_integer();
            let rest = match self.atom(id) {
                Some(Atom::I) => {
                    if count.rem_euclid(4) >= 2 {
                        value = -value;
                    }
                    Exponent::from_integer(count.rem_euclid(2))
                }
                Some(Atom::Prime(prime)) => {
                    value = product(
                        &value,
                        &power_of(&BigRational::from_integer(BigInt::from(*prime)), count)?,
                    );
                    exponent - whole
                }
                Some(Atom::Radical(radicand)) => {
                    radicals.push((radicand.clone(), count));
                    exponent - whole
                }
                _ => exponent,
            };
            kept.extend((rest != Exponent::from_integer(0)).then_some((id, rest)));
        }
        let mut result = Polynomial::term(Monomial(kept), value);
        for (radicand, count) in radicals {
            for _ in 0..u32::try_from(count).ok()? {
                result = self.times(&result, &radicand)?;
            }
        }
        Some(Reduced::Many(result))
    }
}

/// The product; for whole numbers without the search for a common divisor, which is most of the
/// work.
fn product(left: &BigRational, right: &BigRational) -> BigRational {
    if left.is_integer() && right.is_integer() {
        return BigRational::from_integer(left.numer() * right.numer());
    }
    left * right
}

/// The sum, likewise.
fn sum(left: &BigRational, right: &BigRational) -> BigRational {
    if left.is_integer() && right.is_integer() {
        return BigRational::from_integer(left.numer() + right.numer());
    }
    left + right
}

/// What a product of two terms is.
pub(crate) enum Reduced {
    Term(Monomial, BigRational),
    Many(Polynomial),
}

impl From<Reduced> for Polynomial {
    fn from(reduced: Reduced) -> Self {
        match reduced {
            Reduced::Term(monomial, value) => Self::term(monomial, value),
            Reduced::Many(polynomial) => polynomial,
        }
    }
}

/// `base^count` if it has at most [`MAX_BITS`] bits; `None` also for a negative power of 0.
pub(crate) fn power_of(base: &BigRational, count: i64) -> Option<BigRational> {
    let bits = base.numer().bits().max(base.denom().bits());
    let trivial = base.is_integer() && base.numer().bits() <= 1;
    let size = bits.checked_mul(count.unsigned_abs())?;
    if (size > MAX_BITS && !trivial) || (count < 0 && *base.numer() == BigInt::ZERO) {
        return None;
    }
    if count == 0 {
        return Some(one());
    }
    // 1, 0 and −1 have powers as large as one likes.
    let count = if trivial { count % 2 + if count % 2 == 0 { 2 } else { 0 } } else { count };
    let count = i32::try_from(count).ok()?;
    Some(base.pow(count))
}

#[cfg(test)]
mod tests {
    use super::{Atom, Atoms, Exponent, Monomial, Polynomial, one, power_of};
    use num_bigint::BigInt;
    use num_rational::BigRational;

    #[test]
    fn atoms_reduce() {
        let mut atoms = Atoms::default();
        let two = atoms.id("2".into(), Atom::Prime(2)).unwrap();
        let i = atoms.id("i".into(), Atom::I).unwrap();
        let half = Exponent::new(1, 2);
        let root = Polynomial::term(Monomial::of(two, half), one());
        assert_eq!(atoms.times(&root, &root).unwrap().as_constant().unwrap().to_string(), "2");
        let unit = Polynomial::term(Monomial::of(i, Exponent::from_integer(1)), one());
        let square = atoms.times(&unit, &unit).unwrap();
        assert_eq!(square.as_constant().unwrap().to_string(), "-1");
        assert_eq!(atoms.times(&square, &square).unwrap(), Polynomial::one());
    }

    #[test]
    fn powers_are_bounded() {
        let number = |value: i64| BigRational::from_integer(BigInt::from(value));
        assert_eq!(power_of(&number(2), 10), Some(number(1024)));
        assert_eq!(power_of(&number(-1), 1_000_000_001), Some(number(-1)));
        assert_eq!(power_of(&number(-1), 1_000_000_000), Some(number(1)));
        assert_eq!(power_of(&number(0), -1), None);
        assert_eq!(power_of(&number(0), 0), Some(number(1)));
        assert_eq!(power_of(&number(10), 10_000_000_000), None);
    }
}
