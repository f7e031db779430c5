//! Equations and inequalities: which of them say the same, and which numbers satisfy one.

use num_bigint::{BigInt, Sign as NumberSign};
use num_rational::BigRational;

use crate::math::canonical::Algebra;
use crate::math::expression::{Expr, Function};
use crate::math::real_set::RealSet;
use crate::math::same_number::{Sameness, names_of, same_number};
use crate::math::value::{Joint, Relation, Sign, Value};

/// Whether two single relations between numbers say the same: `y = 2x + 1` and `2y − 4x = 2`,
/// `x > 3` and `6 < 2x`.
pub(crate) fn same_link(left: (&Value, Sign, &Value), right: (&Value, Sign, &Value)) -> Sameness {
    let sides =
        |link: (&Value, Sign, &Value)| Some(Expr::sum(link.0.expr()?, link.2.expr()?.negated()));
    let Some((one, other)) = sides(left).zip(sides(right)) else {
        // A side that is no number, such as `0 < ∞`, is the same as it is written.
        return Sameness::of(left == right);
    };
    let (sign, wanted) = (right.1, left.1);
    if sign != wanted && sign != wanted.flipped() {
        return Sameness::Different;
    }
    match Algebra::new(names_of(&one, &other)).proportion(&one, &other) {
        Some((_, true)) if wanted.orders() => Sameness::Different,
        Some((factor, _)) => {
            let negative = factor.numer().sign() == NumberSign::Minus;
            let kept = if negative { wanted.flipped() } else { wanted };
            Sameness::of(kept == sign)
        }
        // Not rational multiples of each other; they may still be equal by an identity.
        None => {
            let equal = || Sameness::of(wanted == sign).and(|| same_number(&one, &other));
            let opposite = || {
                Sameness::of(wanted.flipped() == sign)
                    .and(|| same_number(&one, &other.clone().negated()))
            };
            equal().or(opposite)
        }
    }
}

/// Whether two chains of inequalities say the same link by link, in this order or the other.
pub(crate) fn same_chain(left: &Relation, right: &Relation) -> Sameness {
    if left.signs.len() != right.signs.len() {
        return Sameness::Different;
    }
    let reversed = Relation {
        sides: right.sides.iter().rev().cloned().collect(),
        signs: right.signs.iter().rev().map(|sign| sign.flipped()).collect(),
    };
    in_order(left, right)
        .or(|| if left.signs.len() > 1 { in_order(left, &reversed) } else { Sameness::Different })
}

fn in_order(left: &Relation, right: &Relation) -> Sameness {
    (0..left.signs.len()).fold(Sameness::Same, |so_far, at| {
        so_far.and(|| same_link(link(left, at), link(right, at)))
    })
}

fn link(relation: &Relation, at: usize) -> (&Value, Sign, &Value) {
    (&relation.sides[at], relation.signs[at], &relation.sides[at + 1])
}

/// The numbers that satisfy an inequality in one variable, or a list of them; `None` where that is
/// not linear.
pub(crate) fn solutions(value: &Value) -> Option<RealSet> {
    match value {
        Value::Relation(relation) if relation.signs.iter().any(|sign| !sign.equates()) => {
            chain_solutions(relation)
        }
        Value::Set(members, joint) => {
            let mut sets = members.iter().map(solutions);
            let first = sets.next()??;
            sets.try_fold(first, |all, set| {
                let set = set?;
                Some(if *joint == Joint::Or { all.union(set) } else { all.intersected(&set) })
            })
        }
        _ => None,
    }
}

fn chain_solutions(relation: &Relation) -> Option<RealSet> {
    let symbol = only_symbol(relation)?;
    let mut all = RealSet::of(&Value::Named(crate::math::value::Named::Reals))?;
    for at in 0..relation.signs.len() {
        let (left, sign, right) = link(relation, at);
        // An end at infinity says nothing.
        if matches!(left, Value::Infinity { .. }) || matches!(right, Value::Infinity { .. }) {
            continue;
        }
        all = all.intersected(&link_solutions(&left.expr()?, sign, &right.expr()?, &symbol)?);
    }
    Some(all)
}

/// The only variable of a relation; the value of a function that is only named is one.
fn only_symbol(relation: &Relation) -> Option<String> {
    let sides = relation.sides.iter().filter_map(Value::expr).collect::<Vec<_>>();
    let mut names: Vec<&str> = Vec::new();
    for side in &sides {
        if let Expr::Apply(name, _) = side {
            names.push(name);
            continue;
        }
        side.walk(&mut |expr| {
            if let Expr::Symbol(name) | Expr::Apply(name, _) = expr {
                names.push(name);
            }
        });
    }
    let first = names.first().map(|name| (*name).to_owned())?;
    names.iter().all(|name| *name == first).then_some(first)
}

fn link_solutions(left: &Expr, sign: Sign, right: &Expr, symbol: &str) -> Option<RealSet> {
    match (left, right) {
        (Expr::Function(Function::Abs, inner), bound) => {
            return absolute(inner, sign, bound, symbol);
        }
        (bound, Expr::Function(Function::Abs, inner)) => {
            return absolute(inner, sign.flipped(), bound, symbol);
        }
        (Expr::Symbol(_) | Expr::Apply(..), bound) if !bound.has_symbols() => {
            return half_line(bound, sign);
        }
        (bound, Expr::Symbol(_) | Expr::Apply(..)) if !bound.has_symbols() => {
            return half_line(bound, sign.flipped());
        }
        _ => {}
    }
    let difference = Expr::sum(left.clone(), right.clone().negated());
    let (slope, rest) =
        Algebra::new(names_of(&difference, &difference)).linear(&difference, symbol)?;
    if *slope.numer() == BigInt::ZERO {
        return None;
    }
    let root: BigRational = -rest / &slope;
    let sign = if slope.numer().sign() == NumberSign::Minus { sign.flipped() } else { sign };
    half_line(&Expr::Number(root), sign)
}

/// `|a| < b` is `−b < a < b`; `|a| > b` is `a < −b` or `a > b`.
fn absolute(inner: &Expr, sign: Sign, bound: &Expr, symbol: &str) -> Option<RealSet> {
    if bound.has_symbols() || inner == bound {
        return None;
    }
    let above = link_solutions(inner, sign, bound, symbol)?;
    let below = link_solutions(inner, sign.flipped(), &bound.clone().negated(), symbol)?;
    match sign {
        Sign::Less | Sign::LessOrEqual => Some(above.intersected(&below)),
        Sign::Greater | Sign::GreaterOrEqual => Some(above.union(below)),
        _ => None,
    }
}

/// The numbers on one side of `bound`.
fn half_line(bound: &Expr, sign: Sign) -> Option<RealSet> {
    let end = Value::of(bound.clone());
    let (lowest, highest) =
        (Value::Infinity { negative: true }, Value::Infinity { negative: false });
    match sign {
        Sign::Less => RealSet::interval(&lowest, &end, [false, false]),
        Sign::LessOrEqual => RealSet::interval(&lowest, &end, [false, true]),
        Sign::Greater => RealSet::interval(&end, &highest, [false, false]),
        Sign::GreaterOrEqual => RealSet::interval(&end, &highest, [true, false]),
        Sign::Unequal => RealSet::of(&end).map(|point| point.outside()),
        Sign::Equal => RealSet::of(&end),
        Sign::In => None,
    }
}
