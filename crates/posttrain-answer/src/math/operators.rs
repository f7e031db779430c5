//! What sums, products and powers of two values are.

use num_bigint::BigInt;

use crate::math::expression::Expr;
use crate::math::matrix::{matrix_product, matrix_sum, scaled};
use crate::math::token::Unread;
use crate::math::unit::{is_statement, scale};
use crate::math::value::{Amount, SetOperator, Value};

/// The formula of an amount, percent and all.
pub(crate) fn scalar(value: Value) -> Result<Expr, Unread> {
    match value {
        Value::Amount(amount) if !amount.percent => Ok(amount.expr),
        other => other.expr().ok_or(Unread::Syntax),
    }
}

pub(crate) fn negated(value: Value) -> Result<Value, Unread> {
    match value {
        Value::Amount(amount) => {
            Ok(Value::Amount(Amount { expr: amount.expr.negated(), ..amount }))
        }
        Value::Infinity { negative } => Ok(Value::Infinity { negative: !negative }),
        Value::Matrix(rows) => scaled(rows, &Expr::integer(-1)),
        _ => Err(Unread::Syntax),
    }
}

pub(crate) fn plus(left: Value, right: Value) -> Result<Value, Unread> {
    if let (Value::Matrix(left), Value::Matrix(right)) = (&left, &right) {
        return matrix_sum(left, right);
    }
    let unit = common_unit(&left, &right);
    let (left, right) = (scalar(left)?, scalar(right)?);
    Ok(Value::Amount(Amount { unit, ..Amount::of(Expr::sum(left, right)) }))
}

pub(crate) fn less(left: Value, right: Value) -> Result<Value, Unread> {
    if left.is_set() && right.is_set() {
        return Ok(Value::Operation(SetOperator::Difference, Box::new([left, right])));
    }
    if matches!(left, Value::Matrix(_)) {
        return plus(left, negated(right)?);
    }
    let unit = common_unit(&left, &right);
    let (left, right) = (scalar(left)?, scalar(right)?);
    Ok(Value::Amount(Amount { unit, ..Amount::of(Expr::sum(left, right.negated())) }))
}

/// A product. Words behind a number are its unit; a word before one must be a currency or lead to
/// it.
pub(crate) fn times(left: Value, right: Value) -> Result<Value, Unread> {
    match (left, right) {
        (Value::Text(text), Value::Amount(amount)) if leads(&text) => Ok(Value::Amount(amount)),
        (Value::Text(text), Value::Amount(amount))
            if text.chars().all(crate::number::quantity::is_currency) =>
        {
            with_unit(Value::Amount(amount), &text)
        }
        (Value::Text(left), Value::Text(right)) => Ok(Value::Text(format!("{left} {right}"))),
        (amount @ Value::Amount(_), Value::Text(unit)) => with_unit(amount, &unit),
        (Value::Text(text), Value::Amount(amount)) => match amount.expr.letters() {
            Some(letters) => Ok(Value::Text(format!("{text} {letters}"))),
            None => Err(Unread::Syntax),
        },
        (Value::Matrix(left), Value::Matrix(right)) => matrix_product(&left, &right),
        (Value::Matrix(rows), factor @ Value::Amount(_))
        | (factor @ Value::Amount(_), Value::Matrix(rows)) => scaled(rows, &scalar(factor)?),
        (left, right) => {
            let unit = common_unit(&left, &right);
            Ok(Value::Amount(Amount {
                unit,
                ..Amount::of(Expr::product(scalar(left)?, scalar(right)?))
            }))
        }
    }
}

pub(crate) fn quotient(left: Value, right: Value) -> Result<Value, Unread> {
    match (left, right) {
        (Value::Text(left), Value::Text(right)) => Ok(Value::Text(format!("{left}/{right}"))),
        (Value::Amount(amount), Value::Text(unit)) => {
            let unit = format!("{}/{unit}", amount.unit);
            Ok(Value::Amount(Amount { unit, ..amount }))
        }
        (Value::Amount(left), Value::Amount(right))
            if !right.unit.is_empty() && !left.unit.is_empty() =>
        {
            let unit = format!("{}/{}", left.unit, right.unit);
            let expr = Expr::quotient(scalar(Value::Amount(left))?, scalar(Value::Amount(right))?);
            Ok(Value::Amount(Amount { unit, ..Amount::of(expr) }))
        }
        (left, right) => {
            let unit = common_unit(&left, &right);
            Ok(Value::Amount(Amount {
                unit,
                ..Amount::of(Expr::quotient(scalar(left)?, scalar(right)?))
            }))
        }
    }
}

/// `7:32` is a number; `12:00` has no value and is told by its text.
pub(crate) fn ratio(left: Value, right: Value) -> Result<Value, Unread> {
    match (&left, right.expr().as_ref().and_then(Expr::as_integer)) {
        (Value::Amount(Amount { expr: Expr::Number(left), .. }), Some(right))
            if *right == BigInt::ZERO =>
        {
            Ok(Value::Text(format!("{left}:00")))
        }
        _ => quotient(left, right),
    }
}

pub(crate) fn raised(base: Value, exponent: Value) -> Result<Value, Unread> {
    match base {
        // `cm^2`
        Value::Text(unit) => match scalar(exponent)? {
            Expr::Number(power) => Ok(Value::Text(format!("{unit}^{power}"))),
            _ => Err(Unread::Syntax),
        },
        base => Ok(Value::of(Expr::power(scalar(base)?, scalar(exponent)?))),
    }
}

pub(crate) fn percent(value: Value) -> Result<Value, Unread> {
    match value {
        Value::Amount(amount) if !amount.percent => {
            Ok(Value::Amount(Amount { percent: true, ..amount }))
        }
        _ => Err(Unread::Syntax),
    }
}

pub(crate) fn with_unit(value: Value, unit: &str) -> Result<Value, Unread> {
    if is_statement(unit) {
        return Err(Unread::Syntax);
    }
    let (factor, unit) = scale(unit).map_or((None, unit), |(factor, unit)| (Some(factor), unit));
    match (value, factor) {
        (Value::Amount(amount), Some(factor)) if amount.unit.is_empty() => {
            let expr = Expr::product(amount.expr, Expr::Number(BigInt::from(factor).into()));
            Ok(Value::Amount(Amount { expr, unit: unit.to_owned(), ..amount }))
        }
        // `15 cm` behind a unit: `15 cm tall`.
        (Value::Amount(amount), None) => {
            let unit = if amount.unit.is_empty() {
                unit.to_owned()
            } else {
                format!("{} {unit}", amount.unit)
            };
            Ok(Value::Amount(Amount { unit, ..amount }))
        }
        _ => Err(Unread::Syntax),
    }
}

fn common_unit(left: &Value, right: &Value) -> String {
    match (left, right) {
        (Value::Amount(left), Value::Amount(right)) if left.unit.is_empty() => right.unit.clone(),
        (Value::Amount(left), _) => left.unit.clone(),
        _ => String::new(),
    }
}

/// Words before a number that do not change it.
fn leads(text: &str) -> bool {
    let word = text.trim_matches(|c: char| !c.is_alphanumeric()).to_ascii_lowercase();
    matches!(word.as_str(), "about" | "approximately" | "approx" | "exactly" | "rs" | "usd")
}
