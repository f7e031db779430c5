//! The reward of spreadsheets: answer ranges compared cell by cell.

mod area;
mod cell;
#[cfg(unix)]
mod code;
mod compare;
mod comparison;
mod file_failure;
mod reservation;
mod sheet;
mod task;
mod workbook;

pub use cell::{DateAgreement, NumberAgreement, TextNumbers};
#[cfg(unix)]
pub use code::{SpreadsheetCode, SpreadsheetCodeConfig};
pub use compare::{BadAnswer, Spreadsheet, SpreadsheetConfig};
pub use comparison::{CellDifference, WorkbookComparison};
pub use file_failure::FileFailure;
pub use workbook::WorkbookLimits;
