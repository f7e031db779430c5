//! Reading a sheet as a stream: a table of all cells between the first and the last would be sized
//! by the file's word.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read, Seek};

use calamine::{DataRef, Xlsx, XlsxCellReader, XlsxError};

use super::area::Area;
use super::cell::CellValue;
use crate::spreadsheet::FileFailure;

/// A row and a column, both from 0.
type Position = (u32, u32);

/// A cell as it is read.
enum Cell<'a> {
    Known(Position, DataRef<'a>),
    /// An error that the reader does not know, such as `#SPILL!`. It does not say where.
    NewError(String),
}

/// The next cell of a sheet.
fn next<'a, R: Read + Seek>(
    reader: &mut XlsxCellReader<'a, R>,
) -> Result<Option<Cell<'a>>, XlsxError> {
    match reader.next_cell() {
        Ok(None) => Ok(None),
        Ok(Some(cell)) => Ok(Some(Cell::Known(cell.get_position(), cell.get_value().clone()))),
        Err(XlsxError::CellError(error)) if error.starts_with('#') => {
            Ok(Some(Cell::NewError(error)))
        }
        Err(error) => Err(error),
    }
}

fn is_inside(areas: &[Area], (row, column): Position) -> bool {
    areas.iter().any(|area| area.contains(row, column))
}

/// Hands the cells in `areas` to `keep`, until it fails; of errors that the reader does not know,
/// `most` at most.
pub(super) fn read_cells(
    xlsx: &mut Xlsx<Cursor<Vec<u8>>>,
    sheet: &str,
    areas: &[Area],
    most: usize,
    mut keep: impl FnMut(Position, CellValue) -> Result<(), FileFailure>,
) -> Result<Result<(), FileFailure>, XlsxError> {
    let is_1904 = xlsx.has_1904_epoch();
    let mut reader = xlsx.worksheet_cells_reader(sheet)?;
    let mut new_errors = BTreeMap::new();
    let mut number = 0;
    while let Some(cell) = next(&mut reader)? {
        let kept = match cell {
            Cell::Known(at, value) if is_inside(areas, at) => {
                keep(at, CellValue::from_data(&value, is_1904))
            }
            Cell::Known(..) => Ok(()),
            Cell::NewError(_) if new_errors.len() == most => {
                Err(FileFailure::TooLarge { what: "cells with an error", limit: most as u64 })
            }
            Cell::NewError(error) => {
                new_errors.insert(number, error);
                Ok(())
            }
        };
        if let Err(failure) = kept {
            return Ok(Err(failure));
        }
        number += 1;
    }
    if new_errors.is_empty() {
        return Ok(Ok(()));
    }

    drop(reader);
    for (at, error) in places(xlsx, sheet, new_errors)? {
        if is_inside(areas, at)
            && let Err(failure) = keep(at, CellValue::Text(error))
        {
            return Ok(Err(failure));
        }
    }
    Ok(Ok(()))
}

/// Where cells are that are known by their number in the sheet: the reader of formulas says it of
/// every cell.
fn places(
    xlsx: &mut Xlsx<Cursor<Vec<u8>>>,
    sheet: &str,
    mut cells: BTreeMap<usize, String>,
) -> Result<Vec<(Position, String)>, XlsxError> {
    let mut reader = xlsx.worksheet_cells_reader(sheet)?;
    let mut found = Vec::with_capacity(cells.len());
    let mut number = 0;
    while !cells.is_empty()
        && let Some(cell) = reader.next_formula()?
    {
        if let Some(error) = cells.remove(&number) {
            found.push((cell.get_position(), error));
        }
        number += 1;
    }
    Ok(found)
}

/// The first cell in `areas` that has a formula and no value, not even an empty text. Cells without
/// a value are few, or the caller's limit on them ends the search.
pub(super) fn uncalculated(
    xlsx: &mut Xlsx<Cursor<Vec<u8>>>,
    sheet: &str,
    areas: &[Area],
    most: usize,
) -> Result<Option<Position>, XlsxError> {
    let mut empty = BTreeSet::new();
    let mut reader = xlsx.worksheet_cells_reader(sheet)?;
    while let Some(cell) = next(&mut reader)? {
        if let Cell::Known(at, DataRef::Empty) = cell
            && is_inside(areas, at)
            && empty.len() < most
        {
            empty.insert(at);
        }
    }
    if empty.is_empty() {
        return Ok(None);
    }

    drop(reader);
    let mut reader = xlsx.worksheet_cells_reader(sheet)?;
    while let Some(cell) = reader.next_formula()? {
        if !cell.get_value().is_empty() && empty.contains(&cell.get_position()) {
            return Ok(Some(cell.get_position()));
        }
    }
    Ok(None)
}
