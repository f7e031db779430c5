//! Two workbooks side by side.

use std::collections::BTreeSet;
use std::fmt;

use super::area::{Area, cell_name};
use super::cell::{CellValue, Rules};
use super::workbook::{Cells, Workbook};
use crate::RewardError;
use crate::spreadsheet::FileFailure;

/// What comparing an answer range found.
///
/// ```
/// use posttrain_reward::spreadsheet::WorkbookComparison;
///
/// let same = WorkbookComparison { cells: 3, ..WorkbookComparison::default() };
/// assert!(same.is_equal());
/// assert_eq!(same.to_string(), "3 cells agree");
/// assert!(!WorkbookComparison { missing_sheet: Some("Sheet1".into()), ..same }.is_equal());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkbookComparison {
    /// Cells of the range that hold something in either workbook.
    pub cells: usize,
    /// Cells that do not agree.
    pub differing: usize,
    /// The first of those, by sheet, row and column.
    pub first: Option<CellDifference>,
    /// A sheet of the range that the answer lacks.
    pub missing_sheet: Option<String>,
}

impl WorkbookComparison {
    /// Whether the answer is right.
    ///
    /// ```
    /// assert!(posttrain_reward::spreadsheet::WorkbookComparison::default().is_equal(), "two blank ranges agree");
    /// ```
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.differing == 0 && self.missing_sheet.is_none()
    }
}

impl fmt::Display for WorkbookComparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.missing_sheet, &self.first) {
            (Some(sheet), _) => write!(out, "the answer has no sheet `{sheet}`"),
            (None, Some(first)) => {
                write!(out, "{} of {} cells differ, first {first}", self.differing, self.cells)
            }
            (None, None) => write!(out, "{} cells agree", self.cells),
        }
    }
}

/// A cell whose values do not agree, in words.
///
/// ```
/// use posttrain_reward::spreadsheet::CellDifference;
///
/// let difference = CellDifference { cell: "Sheet1!B2".into(), answer: "nothing".into(), reference: "7".into() };
/// assert_eq!(difference.to_string(), "Sheet1!B2: nothing, expected 7");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellDifference {
    /// Sheet and cell.
    pub cell: String,
    /// What the answer holds, at most 80 characters of it.
    pub answer: String,
    /// What the reference holds, likewise.
    pub reference: String,
}

impl fmt::Display for CellDifference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}, expected {}", self.cell, self.answer, self.reference)
    }
}

/// What the answer is to hold.
pub(super) struct Expected {
    /// The areas of each sheet, so that every sheet is read once and no cell counts twice.
    sheets: Vec<(String, Vec<Area>)>,
    cells: Cells,
}

impl Expected {
    /// Reads `areas` of the reference. What fails here is not the answer's fault.
    pub(super) fn read(mut reference: Workbook, areas: &[Area]) -> Result<Self, RewardError> {
        let sheets = by_sheet(areas, &reference)?;
        let mut cells = Cells::default();
        for (place, (sheet, areas)) in sheets.iter().enumerate() {
            reference.read(sheet, areas, place, &mut cells)?;
            reference.check_calculated(sheet, areas)?;
        }
        Ok(Self { sheets, cells })
    }

    /// Reads the same areas of the answer and compares.
    pub(super) fn compare(
        &self,
        mut answer: Workbook,
        rules: Rules,
    ) -> Result<WorkbookComparison, RewardError> {
        if let Some((missing, _)) = self.sheets.iter().find(|(sheet, _)| !answer.has_sheet(sheet)) {
            return Ok(WorkbookComparison {
                missing_sheet: Some(missing.clone()),
                ..WorkbookComparison::default()
            });
        }
        let mut found = Cells::default();
        for (place, (sheet, areas)) in self.sheets.iter().enumerate() {
            answer.read(sheet, areas, place, &mut found)?;
        }
        Ok(self.differences(&found, rules))
    }

    fn differences(&self, found: &Cells, rules: Rules) -> WorkbookComparison {
        let places: BTreeSet<_> =
            found.values.keys().chain(self.cells.values.keys()).copied().collect();
        let mut comparison =
            WorkbookComparison { cells: places.len(), ..WorkbookComparison::default() };
        for at in places {
            let answer = found.values.get(&at).unwrap_or(&CellValue::Blank);
            let reference = self.cells.values.get(&at).unwrap_or(&CellValue::Blank);
            if !rules.agree(answer, reference) {
                comparison.differing += 1;
                let cell = || format!("{}!{}", self.sheets[at.0].0, cell_name(at.1, at.2));
                let shown = || CellDifference {
                    cell: cell(),
                    answer: answer.shown(),
                    reference: reference.shown(),
                };
                comparison.first.get_or_insert_with(shown);
            }
        }
        comparison
    }
}

fn by_sheet(areas: &[Area], reference: &Workbook) -> Result<Vec<(String, Vec<Area>)>, RewardError> {
    let mut sheets: Vec<(String, Vec<Area>)> = Vec::new();
    for area in areas {
        let sheet = area.sheet.clone().or_else(|| reference.first_sheet()).unwrap_or_default();
        if !reference.has_sheet(&sheet) {
            return Err(reference.failed(FileFailure::NoSheet { sheet }));
        }
        match sheets.iter_mut().find(|(name, _)| *name == sheet) {
            Some((_, areas)) => areas.push(area.clone()),
            None => sheets.push((sheet, vec![area.clone()])),
        }
    }
    Ok(sheets)
}
