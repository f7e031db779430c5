//! What an answer denotes: a number or formula, a set, a tuple, a matrix, a relation, a word.

use crate::math::expression::Expr;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Amount(Amount),
    Text(String),
    Infinity {
        negative: bool,
    },
    /// `(a, b, …)`; two of them may also be the open interval.
    Tuple(Vec<Self>),
    /// `[a, b)`; an open interval `(a, b)` is a [`Tuple`](Self::Tuple).
    Interval {
        ends: Box<[Self; 2]>,
        closed: [bool; 2],
    },
    /// `{a, b}` or a list, `a, b` or `a and b`.
    Set(Vec<Self>, Joint),
    Named(Named),
    Operation(SetOperator, Box<[Self; 2]>),
    /// `{x | condition}`
    Where(Box<Self>),
    /// Rows of equal length.
    Matrix(Vec<Vec<Self>>),
    Relation(Relation),
}

impl Value {
    /// Whether it is written as one number.
    pub(crate) fn is_number(&self) -> bool {
        matches!(self, Self::Amount(Amount { expr: Expr::Number(_), .. }))
    }
}

/// A number or formula with what is written around it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Amount {
    /// As written: 75 for `75%`.
    pub expr: Expr,
    /// Whether it is written as one decimal, `0.333`, and may thus be rounded.
    pub decimal: bool,
    pub percent: bool,
    /// Empty where there is none.
    pub unit: String,
}

/// How the members of a list are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joint {
    Comma,
    Or,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    Empty,
    Naturals,
    Integers,
    Rationals,
    Reals,
    Complexes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetOperator {
    Union,
    Intersection,
    Difference,
}

/// `a < b ≤ c`: one sign fewer than sides.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Relation {
    pub sides: Vec<Value>,
    pub signs: Vec<Sign>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

impl Sign {
    /// The sign that says the same with the sides exchanged.
    pub fn flipped(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            same => same,
        }
    }

    /// `=` or `∈`.
    pub fn equates(self) -> bool {
        matches!(self, Self::Equal | Self::In)
    }

    /// `<`, `≤`, `>` or `≥`.
    pub fn orders(self) -> bool {
        matches!(self, Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual)
    }
}

impl Relation {
    /// Whether it is an equation, or a chain of them.
    pub fn equates(&self) -> bool {
        self.signs.iter().all(|sign| sign.equates())
    }
}

impl Amount {
    pub fn of(expr: Expr) -> Self {
        Self { expr, decimal: false, percent: false, unit: String::new() }
    }
}

impl Value {
    pub fn of(expr: Expr) -> Self {
        Self::Amount(Amount::of(expr))
    }

    /// The formula of an amount, a percentage as its hundredth; `None` for whatever is no number.
    pub fn expr(&self) -> Option<Expr> {
        match self {
            Self::Amount(amount) if amount.percent => {
                Some(Expr::quotient(amount.expr.clone(), Expr::integer(100)))
            }
            Self::Amount(amount) => Some(amount.expr.clone()),
            _ => None,
        }
    }

    /// Whether it is a set of some kind other than a tuple.
    pub fn is_set(&self) -> bool {
        matches!(
            self,
            Self::Interval { .. }
                | Self::Set(..)
                | Self::Named(_)
                | Self::Operation(..)
                | Self::Where(_)
        )
    }
}
