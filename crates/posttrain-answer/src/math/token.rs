//! The words of mathematical notation, LaTeX and plain alike.

use num_rational::BigRational;

use crate::math::expression::Function;
use crate::math::value::{Named, SetOperator, Sign};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Number(Literal),
    /// One letter, with its subscript: `x`, `alpha`, `x_12`.
    Letter(String),
    /// Letters in a row that are a word or a unit: `Evelyn`, `cm`.
    Word(String),
    /// `\text{…}` and its like.
    Text(String),
    Function(Function),
    Log,
    Frac,
    Sqrt,
    Binom,
    Over,
    Open(Fence),
    Close(Fence),
    Bar,
    Mid,
    Comma,
    Semicolon,
    And,
    Or,
    Plus,
    Minus,
    PlusMinus,
    MinusPlus,
    Times,
    Divide,
    Colon,
    Caret,
    Underscore,
    Bang,
    Percent,
    Degree,
    Sign(Sign),
    NotIn,
    Approximately,
    Set(SetOperator),
    Infinity,
    Named(Named),
    Pi,
    Matrix(Brackets),
    EndMatrix,
    Cell,
    Row,
}

/// A number as it is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Literal {
    pub value: BigRational,
    /// Whether it has a decimal point or an exponent.
    pub decimal: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fence {
    Round,
    Square,
    /// `{`, which groups in LaTeX.
    Group,
    /// `\{`
    Brace,
    Angle,
    Floor,
    Ceil,
}

/// What stands around a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Brackets {
    Any,
    /// Bars: a determinant.
    Bars,
    /// A list of lines: `cases`.
    Lines,
}

/// Why a text is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It is not of the grammar.
    Syntax,
    /// It is longer, deeper or larger than what is read.
    Bound(&'static str),
}
