//! Matrices: how they are read, added and multiplied, and their determinants.

use crate::math::expression::Expr;
use crate::math::operators::{plus, scalar};
use crate::math::parser::{MAX_MEMBERS, Parser};
use crate::math::token::{Brackets, Token, Unread};
use crate::math::value::Value;

/// The largest matrix whose determinant is taken.
const MAX_DETERMINANT: usize = 4;
/// The most rows and columns of matrices that are multiplied, and the largest cell of their
/// product.
const MAX_PRODUCT: usize = 6;
const MAX_CELL: usize = 1000;

impl Parser<'_> {
    pub(crate) fn matrix(&mut self, brackets: Brackets) -> Result<Value, Unread> {
        let (mut rows, mut row, mut count) = (Vec::new(), Vec::new(), 0);
        loop {
            match self.peek() {
                Some(Token::EndMatrix | Token::Row) if row.is_empty() => {}
                _ => row.push(self.sum()?),
            }
            count += 1;
            match self.next() {
                Some(Token::Cell) => {}
                Some(Token::Row) => rows.push(std::mem::take(&mut row)),
                Some(Token::EndMatrix) => break,
                _ => return Err(Unread::Syntax),
            }
            if count > MAX_MEMBERS {
                return Err(Unread::Bound("a matrix has too many cells"));
            }
        }
        rows.extend((!row.is_empty()).then_some(row));
        let even = rows.iter().all(|row: &Vec<Value>| row.len() == rows[0].len());
        match brackets {
            _ if rows.is_empty() || !even => Err(Unread::Syntax),
            Brackets::Bars => determinant(rows),
            _ => Ok(Value::Matrix(rows)),
        }
    }
}

pub(crate) fn scaled(rows: Vec<Vec<Value>>, by: &Expr) -> Result<Value, Unread> {
    let cell = |cell: Value| Ok(Value::of(Expr::product(by.clone(), scalar(cell)?)));
    let row = |row: Vec<Value>| row.into_iter().map(cell).collect::<Result<Vec<_>, Unread>>();
    Ok(Value::Matrix(rows.into_iter().map(row).collect::<Result<Vec<_>, Unread>>()?))
}

pub(crate) fn matrix_sum(left: &[Vec<Value>], right: &[Vec<Value>]) -> Result<Value, Unread> {
    if left.len() != right.len() || left[0].len() != right[0].len() {
        return Err(Unread::Syntax);
    }
    let row = |(left, right): (&Vec<Value>, &Vec<Value>)| {
        left.iter()
            .zip(right)
            .map(|(left, right)| plus(left.clone(), right.clone()))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(Value::Matrix(left.iter().zip(right).map(row).collect::<Result<_, _>>()?))
}

pub(crate) fn matrix_product(left: &[Vec<Value>], right: &[Vec<Value>]) -> Result<Value, Unread> {
    let (inner, columns) = (right.len(), right[0].len());
    if left[0].len() != inner || left.len().max(inner).max(columns) > MAX_PRODUCT {
        return Err(Unread::Syntax);
    }
    let cell = |row: &Vec<Value>, column: usize| {
        let term = |at: usize| {
            Ok(Expr::product(scalar(row[at].clone())?, scalar(right[at][column].clone())?))
        };
        let terms = (0..inner).map(term).collect::<Result<Vec<_>, Unread>>()?;
        // A chain of products would grow without end.
        let small = terms.iter().map(|term| term.size()).sum::<usize>() <= MAX_CELL;
        if small {
            Ok(Value::of(Expr::Sum(terms)))
        } else {
            Err(Unread::Bound("a product of matrices is too large"))
        }
    };
    let row = |row: &Vec<Value>| {
        (0..columns).map(|column| cell(row, column)).collect::<Result<Vec<_>, _>>()
    };
    Ok(Value::Matrix(left.iter().map(row).collect::<Result<_, _>>()?))
}

fn determinant(rows: Vec<Vec<Value>>) -> Result<Value, Unread> {
    let size = rows.len();
    if rows[0].len() != size || size > MAX_DETERMINANT {
        return Err(Unread::Syntax);
    }
    let row = |row: Vec<Value>| row.into_iter().map(scalar).collect::<Result<Vec<_>, _>>();
    let cells = rows.into_iter().map(row).collect::<Result<Vec<_>, _>>()?;
    Ok(Value::of(expanded(&cells, 0, &(0..size).collect::<Vec<_>>())))
}

/// Laplace's expansion along the row, over the columns that are left.
fn expanded(cells: &[Vec<Expr>], row: usize, columns: &[usize]) -> Expr {
    if row == cells.len() {
        return Expr::integer(1);
    }
    let mut sum = Expr::integer(0);
    for (place, &column) in columns.iter().enumerate() {
        let rest: Vec<usize> = columns.iter().copied().filter(|&other| other != column).collect();
        let term = Expr::product(cells[row][column].clone(), expanded(cells, row + 1, &rest));
        sum = Expr::sum(sum, if place % 2 == 0 { term } else { term.negated() });
    }
    sum
}
