//! Sets of real numbers as sorted, separate pieces, so that `(−∞, 0) ∪ (0, ∞)` is `ℝ ∖ {0}`.

use std::cmp::Ordering;

use crate::math::expression::Expr;
use crate::math::relation::solutions;
use crate::math::same_number::{Sameness, real_value, same_number};
use crate::math::value::{Named, SetOperator, Value};

/// The most pieces of a set.
const MAX_PIECES: usize = 256;
/// Ends whose floats are farther apart than this, relative to their size, are different.
const APART: f64 = 1e-9;

/// The end of a piece.
#[derive(Debug, Clone)]
enum Point {
    Lowest,
    At(f64, Expr),
    Highest,
}

/// From `low` to `high`, each with or without the end itself.
#[derive(Debug, Clone)]
struct Piece {
    low: (Point, bool),
    high: (Point, bool),
}

/// Pieces that do not touch, in ascending order.
#[derive(Debug, Clone)]
pub(crate) struct RealSet(Vec<Piece>);

impl Point {
    fn of(value: &Value) -> Option<Self> {
        if let Value::Infinity { negative } = value {
            Some(if *negative { Self::Lowest } else { Self::Highest })
        } else {
            let expr = value.expr()?;
            Some(Self::At(real_value(&expr)?, expr))
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::At(left, one), Self::At(right, another)) => {
                let near = (left - right).abs() <= APART * left.abs().max(right.abs()).max(1.0);
                if near && same_number(one, another) == Sameness::Same {
                    return Ordering::Equal;
                }
                left.total_cmp(right)
            }
            (left, right) => left.rank().cmp(&right.rank()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Lowest => 0,
            Self::At(..) => 1,
            Self::Highest => 2,
        }
    }
}

impl Piece {
    fn all() -> Self {
        Self { low: (Point::Lowest, false), high: (Point::Highest, false) }
    }

    /// Whether it holds anything.
    fn holds(&self) -> bool {
        match self.low.0.compare(&self.high.0) {
            Ordering::Less => true,
            Ordering::Equal => self.low.1 && self.high.1 && matches!(self.low.0, Point::At(..)),
            Ordering::Greater => false,
        }
    }

    /// Whether `next`, which begins no earlier, overlaps or touches this piece.
    fn joins(&self, next: &Self) -> bool {
        match self.high.0.compare(&next.low.0) {
            Ordering::Greater => true,
            Ordering::Equal => self.high.1 || next.low.1,
            Ordering::Less => false,
        }
    }
}

impl RealSet {
    /// The set that a value is; `None` where it is none of real numbers.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Named(Named::Reals) => Some(Self(vec![Piece::all()])),
            Value::Named(Named::Empty) => Some(Self(vec![])),
            Value::Interval { ends, closed } => Self::interval(&ends[0], &ends[1], *closed),
            Value::Tuple(ends) if ends.len() == 2 => {
                Self::interval(&ends[0], &ends[1], [false, false])
            }
            Value::Set(members, _) => {
                let points = members.iter().map(Self::point).collect::<Option<Vec<_>>>()?;
                Some(Self::joined(points))
            }
            Value::Operation(operator, sides) => {
                let (left, right) = (Self::of(&sides[0])?, Self::of(&sides[1])?);
                let result = match operator {
                    SetOperator::Union => Self::joined(left.0.into_iter().chain(right.0).collect()),
                    SetOperator::Intersection => left.intersection(&right),
                    SetOperator::Difference => left.intersection(&right.complement()),
                };
                (result.0.len() <= MAX_PIECES).then_some(result)
            }
            Value::Where(condition) => solutions(condition),
            Value::Amount(_) => Self::point(value).map(|point| Self(vec![point])),
            _ => None,
        }
    }

    pub fn interval(low: &Value, high: &Value, closed: [bool; 2]) -> Option<Self> {
        let end = |value, closed| {
            Some((Point::of(value)?, closed)).map(|(point, closed)| {
                // Infinity belongs to no interval.
                let closed = closed && matches!(point, Point::At(..));
                (point, closed)
            })
        };
        let piece = Piece { low: end(low, closed[0])?, high: end(high, closed[1])? };
        // `(5, 2)` is a mistake, not the empty set.
        piece.holds().then(|| Self(vec![piece]))
    }

    fn point(value: &Value) -> Option<Piece> {
        let point = Point::of(value).filter(|point| matches!(point, Point::At(..)))?;
        Some(Piece { low: (point.clone(), true), high: (point, true) })
    }

    /// Sorts and joins pieces.
    fn joined(mut pieces: Vec<Piece>) -> Self {
        // Ends that are equal to a hair may sort either way; joining does not mind.
        pieces.sort_by(|left, right| {
            left.low.0.compare(&right.low.0).then(right.low.1.cmp(&left.low.1))
        });
        let mut joined: Vec<Piece> = Vec::new();
        for piece in pieces {
            match joined.last_mut().filter(|last| last.joins(&piece)) {
                Some(last) => match last.high.0.compare(&piece.high.0) {
                    Ordering::Less => last.high = piece.high,
                    Ordering::Equal => last.high.1 |= piece.high.1,
                    Ordering::Greater => {}
                },
                None => joined.push(piece),
            }
        }
        Self(joined)
    }

    fn intersection(&self, other: &Self) -> Self {
        let mut pieces = Vec::new();
        for left in &self.0 {
            for right in &other.0 {
                let low = match left.low.0.compare(&right.low.0) {
                    Ordering::Less => right.low.clone(),
                    Ordering::Equal => (left.low.0.clone(), left.low.1 && right.low.1),
                    Ordering::Greater => left.low.clone(),
                };
                let high = match left.high.0.compare(&right.high.0) {
                    Ordering::Less => left.high.clone(),
                    Ordering::Equal => (left.high.0.clone(), left.high.1 && right.high.1),
                    Ordering::Greater => right.high.clone(),
                };
                let piece = Piece { low, high };
                pieces.extend(piece.holds().then_some(piece));
            }
        }
        Self::joined(pieces)
    }

    fn complement(&self) -> Self {
        let mut pieces = Vec::new();
        let mut low = (Point::Lowest, false);
        for piece in &self.0 {
            pieces.push(Piece { low, high: (piece.low.0.clone(), !piece.low.1) });
            low = (piece.high.0.clone(), !piece.high.1);
        }
        pieces.push(Piece { low, high: (Point::Highest, false) });
        pieces.retain(|piece| {
            let infinite = |point: &Point| !matches!(point, Point::At(..));
            piece.holds() && !(infinite(&piece.low.0) && piece.low.0.rank() == piece.high.0.rank())
        });
        Self(pieces)
    }

    pub fn union(self, other: Self) -> Self {
        Self::joined(self.0.into_iter().chain(other.0).collect())
    }

    pub fn intersected(&self, other: &Self) -> Self {
        self.intersection(other)
    }

    pub fn outside(&self) -> Self {
        self.complement()
    }

    pub fn is_same(&self, other: &Self) -> bool {
        let same = |left: &(Point, bool), right: &(Point, bool)| {
            left.1 == right.1 && left.0.compare(&right.0) == Ordering::Equal
        };
        let pieces = self.0.iter().zip(&other.0);
        self.0.len() == other.0.len()
            && pieces
                .into_iter()
                .all(|(left, right)| same(&left.low, &right.low) && same(&left.high, &right.high))
    }
}

#[cfg(test)]
mod tests {
    use super::RealSet;
    use crate::math::parser::parse;
    use crate::number::Separators::Point;

    fn same(left: &str, right: &str) -> bool {
        let set = |text| RealSet::of(&parse(text, Point).unwrap()).unwrap();
        set(left).is_same(&set(right))
    }

    #[test]
    fn pieces_are_canonical() {
        assert!(same(r"[0,1]\cup[1,2]", "[0,2]"));
        assert!(same(r"[0,1)\cup\{1\}\cup(1,2]", "[0,2]"));
        assert!(!same(r"[0,1)\cup(1,2]", "[0,2]"));
        assert!(same(r"\mathbb{R}\setminus\{2\}", r"(-\infty,2)\cup(2,\infty)"));
        assert!(same(r"(2,102)\setminus\{12\}", r"(12,102)\cup(2,12)"));
        assert!(same(r"(0,5)\cap(2,9)", "(2,5)"));
        assert!(same(r"(0,1)\cap(2,3)", r"\emptyset"));
        assert!(same(r"\mathbb{R}\setminus(0,1)", r"(-\infty,0]\cup[1,\infty)"));
        assert!(same(r"\mathbb{R}\setminus\mathbb{R}", r"\{\}"));
        assert!(same(r"[\sqrt{4},3]", "[2,3]") && !same("[2,3]", "(2,3]"));
        assert!(same(r"[0,\infty]", r"[0,\infty)"));
    }
}
