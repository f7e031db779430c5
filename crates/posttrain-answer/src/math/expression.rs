//! The expression that an answer denotes, before anything is computed.

use num_bigint::BigInt;
use num_rational::BigRational;

/// A number or formula. The parser bounds its depth, so that walking it may recurse.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    Number(BigRational),
    /// A variable with its subscript: `x`, `alpha`, `x_12`.
    Symbol(String),
    Constant(Constant),
    Sum(Vec<Self>),
    Product(Vec<Self>),
    Power(Box<Self>, Box<Self>),
    /// The `degree`-th root, real for a negative radicand of odd degree.
    Root(u32, Box<Self>),
    Function(Function, Box<Self>),
    Binomial(Box<Self>, Box<Self>),
    /// A function that is only named: `f(x)`.
    Apply(String, Vec<Self>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Constant {
    Pi,
    E,
    /// The imaginary unit.
    I,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Function {
    Sin,
    Cos,
    Tan,
    Cot,
    Sec,
    Csc,
    Arcsin,
    Arccos,
    Arctan,
    Sinh,
    Cosh,
    Tanh,
    /// The natural logarithm.
    Ln,
    Exp,
    Abs,
    Floor,
    Ceil,
    Factorial,
}

impl Expr {
    pub fn integer(value: i64) -> Self {
        Self::Number(BigRational::from_integer(BigInt::from(value)))
    }

    pub fn negated(self) -> Self {
        match self {
            Self::Number(value) => Self::Number(-value),
            other => Self::product(Self::integer(-1), other),
        }
    }

    /// `left + right`, flat.
    pub fn sum(left: Self, right: Self) -> Self {
        let mut terms = if let Self::Sum(terms) = left { terms } else { vec![left] };
        terms.push(right);
        Self::Sum(terms)
    }

    /// `left · right`, flat.
    pub fn product(left: Self, right: Self) -> Self {
        let mut factors = if let Self::Product(factors) = left { factors } else { vec![left] };
        factors.push(right);
        Self::Product(factors)
    }

    /// `left / right`; two numbers make one.
    pub fn quotient(left: Self, right: Self) -> Self {
        match (left, right) {
            (Self::Number(left), Self::Number(right)) if *right.numer() != BigInt::ZERO => {
                Self::Number(left / right)
            }
            (left, right) => Self::product(left, Self::power(right, Self::integer(-1))),
        }
    }

    pub fn power(base: Self, exponent: Self) -> Self {
        Self::Power(Box::new(base), Box::new(exponent))
    }

    pub fn function(function: Function, argument: Self) -> Self {
        Self::Function(function, Box::new(argument))
    }

    /// The logarithm to a base.
    pub fn logarithm(base: Self, argument: Self) -> Self {
        Self::quotient(Self::function(Function::Ln, argument), Self::function(Function::Ln, base))
    }

    pub fn as_number(&self) -> Option<&BigRational> {
        if let Self::Number(value) = self { Some(value) } else { None }
    }

    /// The whole number that this literally is.
    pub fn as_integer(&self) -> Option<&BigInt> {
        self.as_number().filter(|value| value.is_integer()).map(BigRational::numer)
    }

    /// The expressions that it is made of.
    pub fn parts(&self) -> Vec<&Self> {
        match self {
            Self::Number(_) | Self::Symbol(_) | Self::Constant(_) => vec![],
            Self::Sum(parts) | Self::Product(parts) | Self::Apply(_, parts) => {
                parts.iter().collect()
            }
            Self::Power(left, right) | Self::Binomial(left, right) => vec![left, right],
            Self::Root(_, argument) | Self::Function(_, argument) => vec![argument],
        }
    }

    /// Calls `visit` for this expression and all that it is made of.
    pub fn walk<'e>(&'e self, visit: &mut impl FnMut(&'e Self)) {
        visit(self);
        for part in self.parts() {
            part.walk(visit);
        }
    }

    /// How many expressions it is made of.
    pub fn size(&self) -> usize {
        1 + self.parts().into_iter().map(Self::size).sum::<usize>()
    }

    /// Whether it has a variable or a function that is only named.
    pub fn has_symbols(&self) -> bool {
        matches!(self, Self::Symbol(_) | Self::Apply(..))
            || self.parts().into_iter().any(Self::has_symbols)
    }

    /// Whether something may be assigned to it: names alone, as in `f(x)`, `AB`, `S/T` or `|AB|`.
    pub fn is_name(&self) -> bool {
        match self {
            Self::Symbol(_) | Self::Constant(_) | Self::Apply(..) => true,
            Self::Product(factors) => factors.iter().all(Self::is_name),
            Self::Power(base, exponent) => {
                exponent.as_integer() == Some(&BigInt::from(-1)) && base.is_name()
            }
            Self::Function(Function::Abs, argument) => argument.is_name(),
            _ => false,
        }
    }

    /// The letters of a product of variables, which is how a word is read in LaTeX: `odd` is o·d·d.
    pub fn letters(&self) -> Option<String> {
        match self {
            Self::Symbol(name) => Some(name.clone()),
            Self::Constant(Constant::E) => Some("e".to_owned()),
            Self::Constant(Constant::I) => Some("i".to_owned()),
            Self::Product(factors) => factors.iter().map(Self::letters).collect(),
            _ => None,
        }
    }
}
