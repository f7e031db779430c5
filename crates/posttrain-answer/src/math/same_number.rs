//! Whether two expressions have the same value.
//!
//! In this order, each step settling what it can:
//!
//! 1. two rational numbers are compared exactly;
//! 2. 64-bit floats at two points tell most others apart;
//! 3. the canonical form (see [`canonical`](crate::math::canonical)) settles polynomials, rational
//!    expressions and surds;
//! 4. 256-bit floats at four points decide about the rest: nested roots, logarithms, angles.
//!
//! **False positives.** Steps 1 and 3 have none. In step 4, two constants that differ by less than
//! `2^-150` of the largest number that was added up to get there count as the same. Nobody has such
//! an answer by chance: among expressions of a dozen symbols the closest known misses, such as
//! `e^(π√163)` and the whole number beside it, are apart by `2^-98`. Two formulas that differ would
//! have to agree at four points, whose coordinates have 20 bits each. Where numbers are so large
//! (above `2^100`) that the bound would hide a difference of 1, nothing is said.

use num_rational::BigRational;

use crate::math::canonical::Algebra;
use crate::math::complex::Complex;
use crate::math::evaluate::{Evaluator, Names, POINTS};
use crate::math::expression::{Expr, Function};
use crate::math::precise::Precise;
use crate::math::real::Real;

/// What a comparison says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sameness {
    Same,
    Different,
    /// In words: what kept it from a verdict.
    Unknown(&'static str),
}

/// 64-bit floats that differ by more than `2^-24` of the largest term differ.
const FLOAT_BITS: i64 = 24;
/// 256-bit floats that differ by more than `2^-150` of the largest term differ.
const PRECISE_BITS: i64 = 150;
/// Above `2^100`, a difference that [`PRECISE_BITS`] hides could be one of whole numbers.
const MAX_SCALE: i64 = 100;

const TOO_LARGE: &str = "a number or a formula is beyond the bounds of what is computed";

impl Sameness {
    pub fn of(same: bool) -> Self {
        if same { Self::Same } else { Self::Different }
    }

    /// Both must be the same.
    pub fn and(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Same => other(),
            Self::Different => Self::Different,
            Self::Unknown(reason) => match other() {
                Self::Different => Self::Different,
                _ => Self::Unknown(reason),
            },
        }
    }

    /// One of them must be the same.
    pub fn or(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Same => Self::Same,
            Self::Different => other(),
            Self::Unknown(reason) => match other() {
                Self::Same => Self::Same,
                _ => Self::Unknown(reason),
            },
        }
    }
}

/// Whether `response` has the value of `reference`, wherever both have one.
pub(crate) fn same_number(reference: &Expr, response: &Expr) -> Sameness {
    if let (Expr::Number(left), Expr::Number(right)) = (reference, response) {
        return Sameness::of(left == right);
    }
    if reference == response {
        return Sameness::Same;
    }
    let names = names_of(reference, response);
    if by_points::<f64>(reference, response, names, 2) == Points::Apart {
        return Sameness::Different;
    }
    match Algebra::new(names).same(reference, response) {
        Some(same) => Sameness::of(same),
        None => precisely(reference, response, names),
    }
}

fn precisely(reference: &Expr, response: &Expr, names: Names) -> Sameness {
    let points = if reference.has_symbols() || response.has_symbols() { POINTS } else { 1 };
    match by_points::<Precise>(reference, response, names, points) {
        Points::Together => Sameness::Same,
        Points::Apart | Points::Undefined => Sameness::Different,
        Points::Unclear => Sameness::Unknown(TOO_LARGE),
    }
}

/// What evaluation at points says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Points {
    /// The same at every point.
    Together,
    /// Different at one.
    Apart,
    /// The response has no value where the reference has one.
    Undefined,
    Unclear,
}

fn by_points<R: Real + Bits>(
    reference: &Expr,
    response: &Expr,
    names: Names,
    points: u64,
) -> Points {
    let mut seen = Points::Unclear;
    for point in 0..points {
        match at_point::<R>(reference, response, names, point) {
            Points::Together => seen = Points::Together,
            Points::Unclear => return Points::Unclear,
            other => return other,
        }
    }
    seen
}

fn at_point<R: Real + Bits>(reference: &Expr, response: &Expr, names: Names, point: u64) -> Points {
    let evaluators = Evaluator::<R>::new(point, names).zip(Evaluator::<R>::new(point, names));
    let Some((mut left, mut right)) = evaluators else { return Points::Unclear };
    let Some(expected) = left.value(reference) else { return Points::Unclear };
    let Some(got) = right.value(response) else {
        return if right.pole { Points::Undefined } else { Points::Unclear };
    };
    compare::<R>(&expected, &got, left.scale.max(right.scale))
}

fn compare<R: Real + Bits>(expected: &Complex<R>, got: &Complex<R>, scale: i64) -> Points {
    let sizes = expected.exponent().max(got.exponent());
    let Some(size) = sizes.map(|size| size.max(scale)) else { return Points::Together };
    match expected.add(&got.negate()).exponent() {
        Some(apart) if apart > size.saturating_sub(R::BITS) => Points::Apart,
        _ if size > R::MAX_SCALE => Points::Unclear,
        _ => Points::Together,
    }
}

/// How much of a precision is trusted.
trait Bits {
    const BITS: i64;
    const MAX_SCALE: i64;
}

impl Bits for f64 {
    const BITS: i64 = FLOAT_BITS;
    const MAX_SCALE: i64 = i64::MAX;
}

impl Bits for Precise {
    const BITS: i64 = PRECISE_BITS;
    const MAX_SCALE: i64 = MAX_SCALE;
}

/// The distance of two real constants as a fraction, from 64-bit floats; `None` where one is none.
pub(crate) fn distance(left: &Expr, right: &Expr) -> Option<BigRational> {
    let float = |expr: &Expr| real_value(expr).and_then(BigRational::from_float);
    let exact = |expr: &Expr| expr.as_number().cloned().or_else(|| float(expr));
    let apart = exact(left)? - exact(right)?;
    let negated = -&apart;
    Some(apart.max(negated))
}

/// The value of a real constant.
pub(crate) fn real_value(expr: &Expr) -> Option<f64> {
    if expr.has_symbols() {
        return None;
    }
    let names = Names { fold_case: false, whole: false };
    let value = Evaluator::<f64>::new(0, names)?.value(expr)?;
    value.im.is_none().then_some(value.re)
}

/// Variables that differ by case alone are the same, unless one side has both, as `π(R² − r²)` has;
/// they are whole numbers where a factorial or a binomial is taken of one.
pub(crate) fn names_of(reference: &Expr, response: &Expr) -> Names {
    let mut whole = false;
    let folds = [reference, response].map(|side| {
        let mut names: Vec<&str> = Vec::new();
        side.walk(&mut |expr| match expr {
            Expr::Symbol(name) | Expr::Apply(name, _) if !names.contains(&name.as_str()) => {
                names.push(name)
            }
            Expr::Function(Function::Factorial, argument) => whole |= argument.has_symbols(),
            Expr::Binomial(_, choice) => whole |= choice.has_symbols(),
            _ => {}
        });
        is_injective(&names)
    });
    Names { fold_case: folds[0] && folds[1], whole }
}

fn is_injective(names: &[&str]) -> bool {
    let same = |left: usize, right: usize| names[left].eq_ignore_ascii_case(names[right]);
    (0..names.len()).all(|left| (left + 1..names.len()).all(|right| !same(left, right)))
}

#[cfg(test)]
mod tests {
    use super::{Sameness, same_number};
    use crate::math::expression::{Constant, Expr, Function};

    fn root(value: i64) -> Expr {
        Expr::Root(2, Box::new(Expr::integer(value)))
    }

    #[test]
    fn surds() {
        let nested = Expr::Root(
            2,
            Box::new(Expr::sum(Expr::integer(5), Expr::product(Expr::integer(2), root(6)))),
        );
        assert_eq!(same_number(&nested, &Expr::sum(root(2), root(3))), Sameness::Same);
        assert_eq!(same_number(&nested, &Expr::sum(root(2), root(5))), Sameness::Different);
        assert_eq!(
            same_number(&root(12), &Expr::product(Expr::integer(2), root(3))),
            Sameness::Same
        );
    }

    #[test]
    fn famous_near_misses_differ() {
        let power =
            Expr::function(Function::Exp, Expr::product(Expr::Constant(Constant::Pi), root(163)));
        assert_eq!(
            same_number(&power, &Expr::integer(262_537_412_640_768_744)),
            Sameness::Different
        );
        // A difference of 1 in 10^50 and in 10^(10^10); of the same number in another form, nothing
        // can be said.
        let large = |exponent| Expr::power(Expr::integer(10), Expr::integer(exponent));
        let next = |exponent| Expr::sum(large(exponent), Expr::integer(1));
        assert_eq!(same_number(&large(50), &next(50)), Sameness::Different);
        assert_eq!(same_number(&large(10_000_000_000), &next(10_000_000_000)), Sameness::Different);
        let square = Expr::power(Expr::integer(100), Expr::integer(5_000_000_000));
        assert!(matches!(same_number(&large(10_000_000_000), &square), Sameness::Unknown(_)));
        assert_eq!(same_number(&large(10_000_000_000), &large(9_999_999_999)), Sameness::Different);
    }

    #[test]
    fn a_response_without_a_value_is_wrong() {
        let pole = Expr::power(Expr::integer(0), Expr::integer(-1));
        assert_eq!(same_number(&Expr::integer(5), &pole), Sameness::Different);
    }

    #[test]
    fn case_matters_only_where_both_are_used() {
        let symbol = |name: &str| Expr::Symbol(name.to_owned());
        assert_eq!(same_number(&symbol("x"), &symbol("X")), Sameness::Same);
        let ring = |a, b| Expr::sum(Expr::power(symbol(a), Expr::integer(2)), symbol(b).negated());
        assert_eq!(same_number(&ring("R", "r"), &ring("r", "R")), Sameness::Different);
        assert_eq!(same_number(&ring("R", "r"), &ring("R", "r")), Sameness::Same);
    }
}
