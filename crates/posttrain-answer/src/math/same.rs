//! Whether two answers are the same.

use std::borrow::Cow;

use num_bigint::BigInt;
use num_rational::BigRational;

use crate::math::expression::Expr;
use crate::math::real_set::RealSet;
use crate::math::relation::{same_chain, same_link, solutions};
use crate::math::same_number::{Sameness, distance, same_number};
use crate::math::unit::{contradict, same as same_unit};
use crate::math::value::{Amount, Relation, Sign, Value};
use crate::number::power_of_ten;
use crate::number::{Percent, Units};
use crate::text::{Case, Normalizer};

/// What a comparison depends on beside the two answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Decimals agree with what they are rounded from to this many places.
    pub decimals: u32,
    pub percent: Percent,
    pub units: Units,
}

/// A decimal that is accepted must also have so much of the value right: three digits.
const RELATIVE: (i64, i64) = (1, 1000);

impl Rules {
    /// Whether `response` answers as `reference` does. Not symmetric: the reference decides what
    /// form is asked for.
    pub fn same(self, reference: &Value, response: &Value) -> Sameness {
        let (reference, response) = (alone(reference), alone(response));
        let (reference, response) = unwrapped(reference, response);
        match (reference.as_ref(), response.as_ref()) {
            (Value::Amount(left), Value::Amount(right)) => self.same_amount(left, right),
            (Value::Relation(left), Value::Relation(right)) => self.same_relation(left, right),
            (Value::Infinity { negative: left }, Value::Infinity { negative: right }) => {
                Sameness::of(left == right)
            }
            (Value::Matrix(left), Value::Matrix(right)) => self.same_rows(left, right),
            // `1, 2` for the point (1, 2): the order counts; `(1, 2)` for the numbers 1 and 2: it
            // does not.
            (Value::Tuple(left), Value::Tuple(right) | Value::Set(right, _)) => {
                self.in_order(left, right)
            }
            (Value::Set(left, _), Value::Set(right, _) | Value::Tuple(right)) => {
                self.in_any_order(left, right)
            }
            (Value::Text(_), _) | (_, Value::Text(_)) => same_text(&reference, &response),
            (left, right) if asks_for_solutions(left) && is_range(right) => {
                by_solutions(left, right)
            }
            (left, right) => self.same_range(left, right),
        }
    }

    fn same_amount(self, reference: &Amount, response: &Amount) -> Sameness {
        if !self.units_agree(reference, response) {
            return Sameness::Different;
        }
        let hundredth = |amount: &Amount| match amount.percent {
            true => Expr::quotient(amount.expr.clone(), Expr::integer(100)),
            false => amount.expr.clone(),
        };
        let rounded = reference.decimal || response.decimal;
        if self.percent == Percent::AsReference && reference.percent != response.percent {
            return Sameness::Different;
        }
        // 12 may stand for 12%, but 0.12 does not for 0.12%.
        let whole = distance(&reference.expr, &Expr::integer(0))
            .is_some_and(|size| *size.numer() >= *size.denom());
        let either = self.percent == Percent::EitherReading
            && reference.percent != response.percent
            && whole;
        let exact = self.same_value(&hundredth(reference), &hundredth(response), rounded);
        exact.or(|| match either {
            true => self.same_value(&reference.expr, &response.expr, rounded),
            false => Sameness::Different,
        })
    }

    fn units_agree(self, reference: &Amount, response: &Amount) -> bool {
        let same = || {
            let plain = |unit: &str| unit.to_lowercase().replace(' ', "");
            plain(&reference.unit) == plain(&response.unit)
        };
        match self.units {
            Units::Optional => !contradict(&reference.unit, &response.unit),
            Units::Required => {
                let both = !reference.unit.is_empty() && !response.unit.is_empty();
                same() || (both && same_unit(&reference.unit, &response.unit))
            }
        }
    }

    /// Whether two formulas have the same value; `rounded`: whether one of them is a decimal.
    fn same_value(self, reference: &Expr, response: &Expr, rounded: bool) -> Sameness {
        if rounded && self.is_close(reference, response) {
            return Sameness::Same;
        }
        same_number(reference, response)
    }

    /// Whether the two are at most half a unit of the last decimal apart and have three digits in
    /// common. Nothing is rounded to a whole number: 17 is not 17.0000004.
    fn is_close(self, reference: &Expr, response: &Expr) -> bool {
        if reference.as_integer().or(response.as_integer()).is_some() {
            return false;
        }
        let Some(apart) = distance(reference, response) else { return false };
        let half = power_of_ten(-i64::from(self.decimals)) / BigInt::from(2);
        let relative = BigRational::new(RELATIVE.0.into(), RELATIVE.1.into());
        let size = distance(reference, &Expr::integer(0)).unwrap_or_else(|| half.clone());
        apart <= half && apart <= relative * size
    }

    fn same_relation(self, reference: &Relation, response: &Relation) -> Sameness {
        if is_solved(reference) && !is_solved(response) {
            return Sameness::Different;
        }
        if !reference.equates() || !response.equates() {
            return same_chain(reference, response);
        }
        let ends =
            |relation: &Relation| (relation.sides.first().cloned(), relation.sides.last().cloned());
        let (Some(left), Some(right)) =
            (ends(reference).0.zip(ends(reference).1), ends(response).0.zip(ends(response).1))
        else {
            return Sameness::Different;
        };
        let sides = self.same(&left.0, &right.0).and(|| self.same(&left.1, &right.1));
        sides.or(|| same_link((&left.0, Sign::Equal, &left.1), (&right.0, Sign::Equal, &right.1)))
    }

    fn same_rows(self, reference: &[Vec<Value>], response: &[Vec<Value>]) -> Sameness {
        if reference.len() != response.len() {
            return Sameness::Different;
        }
        let rows = reference.iter().zip(response);
        rows.fold(Sameness::Same, |so_far, (left, right)| so_far.and(|| self.in_order(left, right)))
    }

    fn in_order(self, reference: &[Value], response: &[Value]) -> Sameness {
        if reference.len() != response.len() {
            return Sameness::Different;
        }
        let members = reference.iter().zip(response);
        members.fold(Sameness::Same, |so_far, (left, right)| so_far.and(|| self.same(left, right)))
    }

    /// Whether each member of one side has one on the other. A member that is there twice counts
    /// once.
    fn in_any_order(self, reference: &[Value], response: &[Value]) -> Sameness {
        let mut unknown = None;
        let mut used = vec![false; response.len()];
        for wanted in reference {
            let mut found = false;
            for (member, used) in response.iter().zip(&mut used) {
                match self.same(wanted, member) {
                    Sameness::Same => (found, *used) = (true, true),
                    Sameness::Different => {}
                    Sameness::Unknown(reason) => unknown = Some(reason),
                }
            }
            if !found {
                return unknown.map_or(Sameness::Different, Sameness::Unknown);
            }
        }
        match unknown {
            _ if used.iter().all(|used| *used) => Sameness::Same,
            Some(reason) => Sameness::Unknown(reason),
            None => Sameness::Different,
        }
    }

    /// Sets of real numbers by their pieces; others part by part.
    fn same_range(self, reference: &Value, response: &Value) -> Sameness {
        if let (Value::Amount(_), false) | (Value::Matrix(_) | Value::Relation(_), _) =
            (reference, response.is_set())
        {
            return Sameness::Different;
        }
        match (RealSet::of(reference), RealSet::of(response)) {
            (Some(left), Some(right)) if left.is_same(&right) => Sameness::Same,
            _ => self.same_parts(reference, response),
        }
    }

    fn same_parts(self, reference: &Value, response: &Value) -> Sameness {
        match (reference, response) {
            (
                Value::Interval { ends: left, closed: one },
                Value::Interval { ends: right, closed: other },
            ) => {
                Sameness::of(one == other).and(|| self.in_order(left.as_slice(), right.as_slice()))
            }
            (Value::Interval { ends: left, closed: [false, false] }, Value::Tuple(right)) => {
                self.in_order(left.as_slice(), right)
            }
            (Value::Tuple(left), Value::Interval { ends: right, closed: [false, false] }) => {
                self.in_order(left, right.as_slice())
            }
            (Value::Operation(one, left), Value::Operation(other, right)) => {
                let same = || self.in_order(left.as_slice(), right.as_slice());
                Sameness::of(one == other).and(same)
            }
            (Value::Where(left), Value::Where(right)) => self.same(left, right),
            (Value::Named(left), Value::Named(right)) => Sameness::of(left == right),
            _ => Sameness::Different,
        }
    }
}

/// A set or tuple with one member is its member.
fn alone(value: &Value) -> &Value {
    match value {
        Value::Set(members, _) if members.len() == 1 => &members[0],
        other => other,
    }
}

/// What is compared where one side says `x = 5` and the other `5`: the reference decides what is
/// asked for.
///
/// An equation for a number is its last side (or its first, where the last is but a name: `5 = x`);
/// a number for an assignment is compared with what is assigned.
fn unwrapped<'v>(reference: &'v Value, response: &'v Value) -> (Cow<'v, Value>, Cow<'v, Value>) {
    let equation = |value: &Value| matches!(value, Value::Relation(relation) if relation.equates());
    match (reference, response) {
        (_, Value::Relation(relation)) if relation.equates() && !equation(reference) => {
            (Cow::Borrowed(reference), Cow::Borrowed(alone(assigned(relation))))
        }
        (Value::Relation(relation), _) if is_assignment(relation) && !equation(response) => {
            (Cow::Borrowed(alone(assigned(relation))), Cow::Borrowed(response))
        }
        _ => (Cow::Borrowed(reference), Cow::Borrowed(response)),
    }
}

fn is_assignment(relation: &Relation) -> bool {
    relation.equates()
        && (is_name(&relation.sides[0]) || relation.sides.last().is_some_and(is_name))
}

fn assigned(relation: &Relation) -> &Value {
    match (relation.sides.first(), relation.sides.last()) {
        (Some(first), Some(last)) if is_name(last) && !is_name(first) => first,
        (_, Some(last)) => last,
        _ => &relation.sides[0],
    }
}

fn is_name(value: &Value) -> bool {
    match value {
        Value::Amount(amount) => amount.expr.is_name() && !amount.percent,
        Value::Tuple(members) => members.iter().all(is_name),
        Value::Text(_) => true,
        _ => false,
    }
}

/// An inequality, or several that `or` joins, whose solutions the response may give instead.
fn asks_for_solutions(reference: &Value) -> bool {
    match reference {
        Value::Relation(relation) => !relation.equates(),
        Value::Set(members, _) => members.iter().all(asks_for_solutions),
        _ => false,
    }
}

fn is_range(value: &Value) -> bool {
    value.is_set() || matches!(value, Value::Tuple(ends) if ends.len() == 2)
}

/// Whether every side is a name or has no variable: `x = 5`, `1 < x`, but not `2x = 10`, which may
/// be the question.
fn is_solved(relation: &Relation) -> bool {
    let constant = |side: &Value| side.expr().is_none_or(|expr| !expr.has_symbols());
    relation.sides.iter().all(|side| is_name(side) || constant(side))
}

/// Inequalities that hold together or by turns: `x > 1 and x < 3`.
fn is_split(value: &Value) -> bool {
    let solved = |member: &Value| matches!(member, Value::Relation(relation) if !relation.equates() && is_solved(relation));
    matches!(value, Value::Set(members, _) if members.iter().all(solved))
}

fn by_solutions(reference: &Value, response: &Value) -> Sameness {
    let got = RealSet::of(response).or_else(|| solutions(response).filter(|_| is_split(response)));
    let sets = solutions(reference).zip(got);
    Sameness::of(sets.is_some_and(|(wanted, got)| wanted.is_same(&got)))
}

/// Words are compared without case and punctuation; letters that LaTeX multiplies are a word.
fn same_text(reference: &Value, response: &Value) -> Sameness {
    let normalizer = Normalizer { case: Case::Insensitive, ..Normalizer::default() };
    let texts = text_of(reference).zip(text_of(response));
    Sameness::of(
        texts.is_some_and(|(reference, response)| normalizer.matches(&response, &reference)),
    )
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::Amount(amount) if amount.unit.is_empty() => amount.expr.letters(),
        Value::Amount(amount) => Some(format!("{} {}", amount.expr.letters()?, amount.unit)),
        _ => None,
    }
}
