//! Sums, products and powers of whatever can be added and multiplied.

use num_bigint::BigInt;
use num_rational::BigRational;

use crate::math::expression::{Expr, Function};
use crate::math::operators::{
    less, negated, percent, plus, quotient, raised, ratio, scalar, times, with_unit,
};
use crate::math::parser::Parser;
use crate::math::token::{Fence, Token, Unread};
use crate::math::value::Value;

/// Exclamation marks in a row.
const MAX_MARKS: u32 = 3;

impl Parser<'_> {
    /// `a + b − c`
    pub(crate) fn sum(&mut self) -> Result<Value, Unread> {
        let mut left = self.signed_product()?;
        loop {
            let negative = match self.peek() {
                Some(Token::Plus) => false,
                Some(Token::Minus) => true,
                Some(Token::PlusMinus) => self.plus_minus(false),
                Some(Token::MinusPlus) => self.plus_minus(true),
                _ => return Ok(left),
            };
            self.at += 1;
            let right = self.signed_product()?;
            left = if negative { less(left, right)? } else { plus(left, right)? };
        }
    }

    /// A product with its signs: `−x`, `− −x`, `±x`.
    fn signed_product(&mut self) -> Result<Value, Unread> {
        let mut negative = false;
        loop {
            negative ^= match self.peek() {
                Some(Token::Plus) => false,
                Some(Token::Minus) => true,
                Some(Token::PlusMinus) => self.plus_minus(false),
                Some(Token::MinusPlus) => self.plus_minus(true),
                _ => break,
            };
            self.at += 1;
        }
        let value = self.product()?;
        if negative { negated(value) } else { Ok(value) }
    }

    fn product(&mut self) -> Result<Value, Unread> {
        let mut mixed = self.mixed_number();
        let mut left = match mixed.take() {
            Some(value) if self.eat(&Token::Percent) => percent(value)?,
            Some(value) => value,
            None => self.power()?,
        };
        loop {
            let literal = self.read(|token| matches!(token, Token::Number(_)));
            left = match self.peek() {
                Some(Token::Times) => {
                    self.at += 1;
                    let right = self.signed_factor()?;
                    times(left, right)?
                }
                Some(Token::Divide) => {
                    self.at += 1;
                    let right = self.signed_factor()?;
                    quotient(left, right)?
                }
                Some(Token::Colon) => {
                    self.at += 1;
                    let right = self.signed_factor()?;
                    ratio(left, right)?
                }
                Some(Token::Number(_)) if literal => return Err(Unread::Syntax),
                Some(token) if self.begins_factor(token) => {
                    let right = self.power()?;
                    times(left, right)?
                }
                _ => return Ok(left),
            };
        }
    }

    /// `2 · −3`
    fn signed_factor(&mut self) -> Result<Value, Unread> {
        let mut negative = false;
        while let Some(Token::Minus | Token::Plus) = self.peek() {
            negative ^= self.peek() == Some(&Token::Minus);
            self.at += 1;
        }
        let value = self.power()?;
        if negative { negated(value) } else { Ok(value) }
    }

    /// Whether a factor begins here without a sign of multiplication before it.
    fn begins_factor(&self, token: &Token) -> bool {
        match token {
            Token::Bar => self.bars == 0,
            // `[` may also close `]0, 1[`.
            Token::Open(Fence::Square) => !matches!(
                self.peek_at(1),
                None | Some(
                    Token::Close(_) | Token::Set(_) | Token::Comma | Token::And | Token::Or
                )
            ),
            Token::Open(fence) => *fence != Fence::Brace,
            Token::Number(_)
            | Token::Letter(_)
            | Token::Word(_)
            | Token::Text(_)
            | Token::Function(_)
            | Token::Log
            | Token::Frac
            | Token::Sqrt
            | Token::Binom
            | Token::Pi
            | Token::Matrix(_) => true,
            _ => false,
        }
    }

    /// `4\frac{2}{3}` and `4 2/3`, where all of them are whole numbers.
    fn mixed_number(&mut self) -> Option<Value> {
        let whole = |token: Option<&Token>| match token {
            Some(Token::Number(literal)) if literal.value.is_integer() && !literal.decimal => {
                Some(literal.value.clone())
            }
            _ => None,
        };
        let first = whole(self.peek())?;
        let start = self.at;
        let parts = match (self.peek_at(1), self.peek_at(2)) {
            (Some(Token::Number(_)), Some(Token::Divide)) => {
                let parts = (whole(self.peek_at(1)), whole(self.peek_at(3)));
                self.at += 4;
                parts
            }
            (Some(Token::Frac), _) => {
                self.at += 2;
                let over = self.whole_argument();
                (over, self.whole_argument())
            }
            _ => return None,
        };
        match parts {
            (Some(over), Some(under)) if *under.numer() != BigInt::ZERO => {
                Some(Value::of(Expr::Number(first + over / under)))
            }
            _ => {
                self.at = start;
                None
            }
        }
    }

    /// A whole number, in braces or bare.
    fn whole_argument(&mut self) -> Option<BigRational> {
        let braced = self.eat(&Token::Open(Fence::Group));
        let Some(Token::Number(literal)) = self.next() else { return None };
        let ends = !braced || self.eat(&Token::Close(Fence::Group));
        (ends && literal.value.is_integer()).then(|| literal.value.clone())
    }

    /// A primary with what is written behind it: `x^2`, `5!`, `50%`, `90°`.
    pub(crate) fn power(&mut self) -> Result<Value, Unread> {
        let mut value = self.primary()?;
        let mut marks = 0;
        loop {
            match self.peek() {
                Some(Token::Caret) => {
                    self.at += 1;
                    value = if self.eat_degree() {
                        with_unit(value, "°")?
                    } else {
                        raised(value, self.nested(Self::exponent)?)?
                    };
                }
                Some(Token::Bang) => {
                    self.at += 1;
                    marks += 1;
                    value = Value::of(Expr::function(Function::Factorial, scalar(value)?));
                }
                Some(Token::Percent) => {
                    self.at += 1;
                    marks += 1;
                    value = percent(value)?;
                }
                Some(Token::Degree) => {
                    self.at += 1;
                    marks += 1;
                    value = with_unit(value, "°")?;
                }
                _ => return Ok(value),
            }
            if marks > MAX_MARKS {
                return Err(Unread::Syntax);
            }
        }
    }

    /// Goes on past `{\circ}` behind a `^`.
    fn eat_degree(&mut self) -> bool {
        let braced = matches!(
            (self.peek(), self.peek_at(1), self.peek_at(2)),
            (
                Some(Token::Open(Fence::Group)),
                Some(Token::Degree),
                Some(Token::Close(Fence::Group))
            )
        );
        let length = if braced { 3 } else { usize::from(self.peek() == Some(&Token::Degree)) };
        self.at += length;
        length > 0
    }

    /// `{3}`, `3`, `-3`, `(n + 1)`, and powers of powers from the right: `2^3^2`.
    fn exponent(&mut self) -> Result<Value, Unread> {
        let mut negative = false;
        while let Some(Token::Minus | Token::Plus) = self.peek() {
            negative ^= self.peek() == Some(&Token::Minus);
            self.at += 1;
        }
        let base = self.primary()?;
        let value = if self.eat(&Token::Caret) {
            let exponent = self.nested(Self::exponent)?;
            raised(base, exponent)?
        } else {
            base
        };
        if negative { negated(value) } else { Ok(value) }
    }
}
