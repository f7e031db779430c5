//! The canonical form of an expression: one polynomial over another.
//!
//! Two expressions whose forms agree (`a/b` and `c/d` with `ad − bc = 0`) are equal wherever both
//! are defined. Where the only atoms are variables, roots of primes, i and one of π and e,
//! expressions whose forms differ are different: products of powers below 1 of distinct primes are
//! linearly independent over the rationals (Besicovitch, 1940), and π and e are transcendental.

use num_bigint::BigInt;
use num_rational::BigRational;

use crate::math::evaluate::Names;
use crate::math::expression::{Constant, Expr};
use crate::math::polynomial::{Atom, Atoms, Exponent, Id, Monomial, Polynomial, one};

/// One polynomial over another that is not 0.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fraction {
    pub over: Polynomial,
    pub under: Polynomial,
}

/// Brings expressions into canonical form. `None` everywhere: too large, or undefined.
pub(crate) struct Algebra {
    pub(crate) atoms: Atoms,
    names: Names,
}

impl Fraction {
    pub(crate) fn of(over: Polynomial) -> Self {
        Self { over, under: Polynomial::one() }
    }

    pub(crate) fn number(value: BigRational) -> Self {
        Self::of(Polynomial::constant(value))
    }

    pub(crate) fn as_number(&self) -> Option<BigRational> {
        let (over, under) = (self.over.as_constant()?, self.under.as_constant()?);
        (*under.numer() != BigInt::ZERO).then(|| over / under)
    }

    /// The same with the lower polynomial's last coefficient 1.
    fn normalized(self) -> Self {
        let Some(leading) = self.under.leading().cloned().filter(|value| *value != one()) else {
            return self;
        };
        let by = leading.recip();
        Self { over: self.over.scaled(&by), under: self.under.scaled(&by) }
    }

    pub(crate) fn key(&self) -> String {
        format!("({})/({})", self.over.key(), self.under.key())
    }
}

impl Algebra {
    pub fn new(names: Names) -> Self {
        Self { atoms: Atoms::default(), names }
    }

    /// Whether two expressions have the same form; `Some(false)` only where that makes them
    /// different.
    pub fn same(&mut self, left: &Expr, right: &Expr) -> Option<bool> {
        let (left, right) = (self.fraction(left)?, self.fraction(right)?);
        let cross = self.cross(&left, &right)?;
        match (cross.is_zero(), self.is_decisive(&cross)) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }

    /// `ad − bc` for `a/b` and `c/d`.
    fn cross(&mut self, left: &Fraction, right: &Fraction) -> Option<Polynomial> {
        let (ad, bc) = (
            self.atoms.times(&left.over, &right.under)?,
            self.atoms.times(&right.over, &left.under)?,
        );
        ad.plus(&bc.scaled(&-one()))
    }

    /// Whether a polynomial that is not 0 has a value that is not 0.
    fn is_decisive(&self, polynomial: &Polynomial) -> bool {
        let atoms = || {
            polynomial
                .0
                .keys()
                .flat_map(|monomial| &monomial.0)
                .filter_map(|(id, _)| self.atoms.atom(*id))
        };
        let known = |atom: &Atom| {
            matches!(atom, Atom::Symbol | Atom::Pi | Atom::E | Atom::I | Atom::Prime(_))
        };
        atoms().all(known)
            && !(atoms().any(|atom| *atom == Atom::Pi) && atoms().any(|atom| *atom == Atom::E))
    }

    /// The `factor` that is not 0 with `left = factor · right`, and whether that holds for the
    /// numerators alone.
    pub fn proportion(&mut self, left: &Expr, right: &Expr) -> Option<(BigRational, bool)> {
        let (left, right) = (self.fraction(left)?, self.fraction(right)?);
        let factor = left.over.leading()? / right.over.leading()?;
        (left.over == right.over.scaled(&factor)).then_some((factor, left.under != right.under))
    }

    /// `(a, b)` where the expression is `a · symbol + b` with rational `a` and `b`.
    pub fn linear(&mut self, expr: &Expr, symbol: &str) -> Option<(BigRational, BigRational)> {
        let form = self.fraction(expr)?;
        let under = form.under.as_constant()?.recip();
        let id = self.symbol(symbol)?;
        let mut parts =
            [BigRational::from_integer(BigInt::ZERO), BigRational::from_integer(BigInt::ZERO)];
        for (monomial, value) in &form.over.0 {
            let place = match monomial.0.as_slice() {
                [] => 1,
                [(atom, exponent)] if *atom == id && *exponent == Exponent::from_integer(1) => 0,
                _ => return None,
            };
            parts[place] = value * &under;
        }
        let [slope, rest] = parts;
        Some((slope, rest))
    }

    pub(crate) fn fraction(&mut self, expr: &Expr) -> Option<Fraction> {
        let form = match expr {
            Expr::Number(value) => Fraction::number(value.clone()),
            Expr::Symbol(name) => self.atom_of(Some(name), None)?,
            Expr::Constant(constant) => self.atom_of(None, Some(*constant))?,
            Expr::Sum(terms) => self.sum(terms)?,
            Expr::Product(factors) => self.product(factors)?,
            Expr::Power(base, exponent) => {
                let (base, exponent) = (self.fraction(base)?, self.fraction(exponent)?);
                self.power(&base, &exponent)?
            }
            Expr::Root(degree, radicand) => self.root(*degree, radicand)?,
            Expr::Function(function, argument) => self.function(*function, argument)?,
            Expr::Binomial(n, k) => self.binomial(n, k)?,
            Expr::Apply(name, arguments) => self.applied(name, arguments)?,
        };
        (!form.under.is_zero()).then(|| form.normalized())
    }

    fn symbol(&mut self, name: &str) -> Option<Id> {
        let name = if self.names.fold_case { name.to_ascii_lowercase() } else { name.to_owned() };
        self.atoms.id(format!("symbol {name}"), Atom::Symbol)
    }

    pub(crate) fn atom_of(
        &mut self,
        name: Option<&String>,
        constant: Option<Constant>,
    ) -> Option<Fraction> {
        let id = match (name, constant) {
            (Some(name), _) => self.symbol(name)?,
            (None, Some(Constant::Pi)) => self.atoms.id("π".to_owned(), Atom::Pi)?,
            (None, Some(Constant::E)) => self.atoms.id("e".to_owned(), Atom::E)?,
            (None, _) => self.atoms.id("i".to_owned(), Atom::I)?,
        };
        Some(Self::power_of_atom(id, Exponent::from_integer(1)))
    }

    pub(crate) fn power_of_atom(id: Id, exponent: Exponent) -> Fraction {
        Fraction::of(Polynomial::term(Monomial::of(id, exponent), one()))
    }

    fn sum(&mut self, terms: &[Expr]) -> Option<Fraction> {
        let mut sum = Fraction::number(BigRational::from_integer(BigInt::ZERO));
        for term in terms {
            let term = self.fraction(term)?;
            sum = if sum.under == term.under {
                Fraction { over: sum.over.plus(&term.over)?, under: sum.under }
            } else {
                let over = self.atoms.times(&sum.over, &term.under)?;
                let other = self.atoms.times(&term.over, &sum.under)?;
                Fraction {
                    over: over.plus(&other)?,
                    under: self.atoms.times(&sum.under, &term.under)?,
                }
            };
        }
        Some(sum)
    }

    fn product(&mut self, factors: &[Expr]) -> Option<Fraction> {
        let mut product = Fraction::number(one());
        for factor in factors {
            let factor = self.fraction(factor)?;
            product = self.times(&product, &factor)?;
        }
        Some(product)
    }

    pub(crate) fn times(&mut self, left: &Fraction, right: &Fraction) -> Option<Fraction> {
        let over = self.atoms.times(&left.over, &right.over)?;
        Some(Fraction { over, under: self.atoms.times(&left.under, &right.under)? })
    }

    pub(crate) fn opaque(&mut self, key: String, atom: Atom) -> Option<Fraction> {
        self.atoms.spend(1 + key.len() / 64)?;
        let id = self.atoms.id(key, atom)?;
        Some(Self::power_of_atom(id, Exponent::from_integer(1)))
    }
}
