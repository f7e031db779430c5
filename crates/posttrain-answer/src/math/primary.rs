//! What sums and products are made of: numbers, names, brackets, fractions, roots, functions,
//! matrices.

use num_bigint::BigInt;

use crate::math::expression::{Constant, Expr, Function};
use crate::math::operators::{negated, quotient, scalar};
use crate::math::parser::Parser;
use crate::math::token::{Fence, Token, Unread};
use crate::math::value::{Amount, Value};

/// Letters that are functions where a bracket follows; others are factors.
const FUNCTION_LETTERS: [&str; 6] = ["f", "g", "h", "F", "G", "H"];
/// The largest degree of a root that is one; others are powers.
const MAX_DEGREE: u32 = 1000;

impl Parser<'_> {
    pub(crate) fn primary(&mut self) -> Result<Value, Unread> {
        let Some(token) = self.next() else { return Err(Unread::Syntax) };
        match token {
            Token::Number(literal) => {
                let amount = Amount::of(Expr::Number(literal.value.clone()));
                Ok(Value::Amount(Amount { decimal: literal.decimal, ..amount }))
            }
            Token::Letter(name) => self.letter(name),
            Token::Word(text) | Token::Text(text) => Ok(Value::Text(text.clone())),
            Token::Pi => Ok(Value::of(Expr::Constant(Constant::Pi))),
            Token::Infinity => Ok(Value::Infinity { negative: false }),
            Token::Named(named) => Ok(Value::Named(*named)),
            Token::Open(fence) => self.opened(*fence),
            Token::Close(Fence::Square) => self.reversed(),
            Token::Bar => self.absolute(),
            Token::Frac => self.nested(Self::fraction),
            Token::Sqrt => self.nested(Self::root),
            Token::Binom => self.nested(Self::binomial),
            Token::Function(function) => self.nested(|parser| parser.function(*function)),
            Token::Log => self.nested(Self::logarithm),
            Token::Matrix(brackets) => self.nested(|parser| parser.matrix(*brackets)),
            _ => Err(Unread::Syntax),
        }
    }

    fn letter(&mut self, name: &str) -> Result<Value, Unread> {
        let applied = FUNCTION_LETTERS.contains(&name.trim_end_matches('\''))
            && self.peek() == Some(&Token::Open(Fence::Round));
        if applied {
            self.at += 1;
            return self.applied(name);
        }
        Ok(Value::of(match name {
            "e" => Expr::Constant(Constant::E),
            "i" => Expr::Constant(Constant::I),
            _ => Expr::Symbol(name.to_owned()),
        }))
    }

    fn applied(&mut self, name: &str) -> Result<Value, Unread> {
        let (arguments, _) = self.nested(|parser| parser.members(false))?;
        self.expect(&Token::Close(Fence::Round))?;
        let arguments = arguments.into_iter().map(scalar).collect::<Result<Vec<_>, _>>()?;
        Ok(Value::of(Expr::Apply(name.to_owned(), arguments)))
    }

    fn opened(&mut self, fence: Fence) -> Result<Value, Unread> {
        match fence {
            Fence::Floor | Fence::Ceil => {
                let inner = self.nested(|parser| parser.sum())?;
                self.expect(&Token::Close(fence))?;
                let function = if fence == Fence::Floor { Function::Floor } else { Function::Ceil };
                Ok(Value::of(Expr::function(function, scalar(inner)?)))
            }
            _ => self.bracketed(fence),
        }
    }

    /// `]a, b[`, the open interval of French and German usage.
    fn reversed(&mut self) -> Result<Value, Unread> {
        let (mut members, _) = self.nested(|parser| parser.members(false))?;
        let open = match self.next() {
            Some(Token::Open(Fence::Square)) => true,
            Some(Token::Close(Fence::Square)) => false,
            _ => return Err(Unread::Syntax),
        };
        match (members.pop(), members.pop()) {
            (Some(high), Some(low)) if members.is_empty() => {
                Ok(Value::Interval { ends: Box::new([low, high]), closed: [false, !open] })
            }
            _ => Err(Unread::Syntax),
        }
    }

    fn absolute(&mut self) -> Result<Value, Unread> {
        self.bars += 1;
        let inner = self.nested(|parser| parser.sum());
        self.bars -= 1;
        self.expect(&Token::Bar)?;
        Ok(Value::of(Expr::function(Function::Abs, scalar(inner?)?)))
    }

    fn fraction(&mut self) -> Result<Value, Unread> {
        let upper = self.primary()?;
        let lower = self.primary()?;
        quotient(upper, lower)
    }

    fn binomial(&mut self) -> Result<Value, Unread> {
        let (n, k) = (scalar(self.primary()?)?, scalar(self.primary()?)?);
        Ok(Value::of(Expr::Binomial(Box::new(n), Box::new(k))))
    }

    fn root(&mut self) -> Result<Value, Unread> {
        let mut degree = Expr::integer(2);
        if self.eat(&Token::Open(Fence::Square)) {
            degree = scalar(self.sum()?)?;
            self.expect(&Token::Close(Fence::Square))?;
        }
        let radicand = scalar(self.primary()?)?;
        let small = degree.as_integer().and_then(|degree| u32::try_from(degree).ok());
        Ok(Value::of(match small.filter(|degree| (1..=MAX_DEGREE).contains(degree)) {
            Some(degree) => Expr::Root(degree, Box::new(radicand)),
            None => Expr::power(radicand, Expr::quotient(Expr::integer(1), degree)),
        }))
    }

    /// `\sin x`, `\sin^2 x`, `\sin^{-1} x`, `\sin(x)`.
    fn function(&mut self, function: Function) -> Result<Value, Unread> {
        let power =
            if self.eat(&Token::Caret) { Some(scalar(self.signed_argument()?)?) } else { None };
        let argument = self.function_argument()?;
        let minus_one = power.as_ref().and_then(Expr::as_integer) == Some(&BigInt::from(-1));
        let inverse = match function {
            Function::Sin => Some(Function::Arcsin),
            Function::Cos => Some(Function::Arccos),
            Function::Tan => Some(Function::Arctan),
            _ => None,
        };
        Ok(Value::of(match (inverse.filter(|_| minus_one), power) {
            (Some(inverse), _) => Expr::function(inverse, argument),
            (None, Some(power)) => Expr::power(Expr::function(function, argument), power),
            (None, None) => Expr::function(function, argument),
        }))
    }

    fn signed_argument(&mut self) -> Result<Value, Unread> {
        let negative = self.eat(&Token::Minus);
        let value = self.primary()?;
        if negative { negated(value) } else { Ok(value) }
    }

    /// `\log x` to base 10, `\log_2 x`, `\log_{b} x`.
    fn logarithm(&mut self) -> Result<Value, Unread> {
        let mut base = Expr::integer(10);
        if self.eat(&Token::Underscore) {
            base = scalar(self.primary()?)?;
        }
        let power =
            if self.eat(&Token::Caret) { Some(scalar(self.signed_argument()?)?) } else { None };
        let logarithm = Expr::logarithm(base, self.function_argument()?);
        Ok(Value::of(match power {
            Some(power) => Expr::power(logarithm, power),
            None => logarithm,
        }))
    }

    /// A bracket, or a product up to the next sign or function: `\sin 2x \cos y` is
    /// `(sin 2x)(cos y)`.
    fn function_argument(&mut self) -> Result<Expr, Unread> {
        if let Some(Token::Open(Fence::Round | Fence::Square | Fence::Group)) = self.peek() {
            return in_radians(self.primary()?);
        }
        let negative = self.eat(&Token::Minus);
        let mut product = in_radians(self.power()?)?;
        while let Some(
            Token::Number(_) | Token::Letter(_) | Token::Frac | Token::Sqrt | Token::Pi,
        ) = self.peek()
        {
            product = Expr::product(product, in_radians(self.power()?)?);
        }
        Ok(if negative { product.negated() } else { product })
    }
}

/// An argument; an angle in degrees as the number that it is.
fn in_radians(argument: Value) -> Result<Expr, Unread> {
    let degrees = matches!(&argument, Value::Amount(amount) if amount.unit == "°");
    let argument = scalar(argument)?;
    let degree = || Expr::quotient(Expr::Constant(Constant::Pi), Expr::integer(180));
    Ok(if degrees { Expr::product(argument, degree()) } else { argument })
}
