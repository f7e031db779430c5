//! Reading `.xlsx` files that anybody may have made: bounded in bytes, in entries and in cells.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use calamine::{Reader, Xlsx, XlsxError};
use serde::{Deserialize, Serialize};
use zip::ZipArchive;
use zip::result::ZipError;

use super::area::Area;
use super::cell::CellValue;
use super::reservation::Reservation;
use super::sheet;
use crate::RewardError;
use crate::spreadsheet::FileFailure;

/// What a workbook may cost.
///
/// ```
/// use posttrain_reward::spreadsheet::WorkbookLimits;
///
/// assert_eq!(WorkbookLimits::default().max_cells, 1_000_000);
/// assert!(WorkbookLimits { max_cells: 0, ..WorkbookLimits::default() }.validate().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkbookLimits {
    /// Bytes of the file, at least 1. Default 2²⁵ (32 MiB).
    pub max_file_bytes: u64,
    /// Bytes of all that is in it once it is unpacked, at least 1, whatever the file says of
    /// itself; also the bytes of text that are kept. Default 2²⁸ (256 MiB).
    pub max_unpacked_bytes: u64,
    /// Files in the archive, at least 1. Default 10,000.
    pub max_entries: usize,
    /// Cells with a value inside of the answer range, at least 1. Default 1,000,000.
    pub max_cells: usize,
}

impl Default for WorkbookLimits {
    fn default() -> Self {
        Self {
            max_file_bytes: 1 << 25,
            max_unpacked_bytes: 1 << 28,
            max_entries: 10_000,
            max_cells: 1_000_000,
        }
    }
}

impl WorkbookLimits {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// assert!(posttrain_reward::spreadsheet::WorkbookLimits::default().validate().is_ok());
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        let counts = [
            ("max_file_bytes", self.max_file_bytes),
            ("max_unpacked_bytes", self.max_unpacked_bytes),
            ("max_entries", self.max_entries as u64),
            ("max_cells", self.max_cells as u64),
        ];
        match counts.into_iter().find(|(_, count)| *count == 0) {
            None => Ok(()),
            Some((field, _)) => Err(RewardError::InvalidConfig {
                field,
                got: "0".to_owned(),
                expected: "at least 1",
            }),
        }
    }
}

/// Where a cell is: its sheet's place among those that were asked for, its row and its column.
pub(super) type Place = (usize, u32, u32);

/// The cells of a workbook that are compared, but blank ones.
#[derive(Default)]
pub(super) struct Cells {
    pub(super) values: BTreeMap<Place, CellValue>,
    text_bytes: u64,
}

impl Cells {
    fn keep(
        &mut self,
        limits: &WorkbookLimits,
        at: Place,
        value: CellValue,
    ) -> Result<(), FileFailure> {
        if value == CellValue::Blank {
            self.values.remove(&at);
            return Ok(());
        }
        // Many cells may share one text of the file, and each has a copy here.
        self.text_bytes += value.heap_bytes();
        self.values.insert(at, value);
        if self.values.len() > limits.max_cells {
            return Err(FileFailure::TooLarge {
                what: "cells in the range",
                limit: limits.max_cells as u64,
            });
        }
        if self.text_bytes > limits.max_unpacked_bytes {
            return Err(FileFailure::TooLarge {
                what: "bytes of text",
                limit: limits.max_unpacked_bytes,
            });
        }
        Ok(())
    }
}

/// An open workbook, whose archive has been found to be within its limits.
pub(super) struct Workbook {
    path: PathBuf,
    limits: WorkbookLimits,
    xlsx: Xlsx<Cursor<Vec<u8>>>,
}

impl Workbook {
    /// Opens the file at `path`.
    pub(super) fn open(path: &Path, limits: &WorkbookLimits) -> Result<Self, RewardError> {
        Self::from_bytes(path, read_file(path, limits.max_file_bytes)?, limits)
    }

    /// Opens a workbook in memory; errors call it `path`.
    pub(super) fn from_bytes(
        path: &Path,
        bytes: Vec<u8>,
        limits: &WorkbookLimits,
    ) -> Result<Self, RewardError> {
        let open = || {
            check_kind(&bytes)?;
            check_archive(&bytes, limits)?;
            // The reader is given files that nobody checked: what it may panic on is the file's
            // fault.
            let xlsx: Xlsx<_> = caught(|| Xlsx::new(Cursor::new(bytes)))?;
            if xlsx.sheet_names().is_empty() {
                return Err(FileFailure::Corrupt { reason: "it has no sheets".to_owned() });
            }
            Ok(xlsx)
        };
        match open() {
            Ok(xlsx) => Ok(Self { path: path.to_owned(), limits: limits.clone(), xlsx }),
            Err(failure) => Err(RewardError::File { path: path.to_owned(), failure }),
        }
    }

    pub(super) fn first_sheet(&self) -> Option<String> {
        self.xlsx.sheet_names().first().cloned()
    }

    pub(super) fn has_sheet(&self, sheet: &str) -> bool {
        self.xlsx.sheet_names().iter().any(|name| name == sheet)
    }

    /// The cells with a value that lie in `areas`, all on `sheet`, put into `cells` under `place`.
    pub(super) fn read(
        &mut self,
        sheet: &str,
        areas: &[Area],
        place: usize,
        cells: &mut Cells,
    ) -> Result<(), RewardError> {
        let Self { limits, xlsx, .. } = self;
        let read = caught(|| {
            sheet::read_cells(xlsx, sheet, areas, limits.max_cells, |at, value| {
                cells.keep(limits, (place, at.0, at.1), value)
            })
        });
        read.and_then(|kept| kept).map_err(|failure| self.failed(failure))
    }

    /// Refuses a formula in `areas` that has no value: whatever stands in its place would be
    /// compared with a blank.
    pub(super) fn check_calculated(
        &mut self,
        sheet: &str,
        areas: &[Area],
    ) -> Result<(), RewardError> {
        let Self { limits, xlsx, .. } = self;
        let found = caught(|| sheet::uncalculated(xlsx, sheet, areas, limits.max_cells));
        match found {
            Ok(None) => Ok(()),
            Ok(Some((row, column))) => {
                let (row, column) = (row + 1, column + 1);
                Err(self.failed(FileFailure::Uncalculated { sheet: sheet.to_owned(), row, column }))
            }
            Err(failure) => Err(self.failed(failure)),
        }
    }

    /// An error that names this file.
    pub(super) fn failed(&self, failure: FileFailure) -> RewardError {
        RewardError::File { path: self.path.clone(), failure }
    }
}

/// Runs a call of the reader; its panics and errors are the file's fault.
fn caught<T>(call: impl FnOnce() -> Result<T, XlsxError>) -> Result<T, FileFailure> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(XlsxError::Password)) => Err(FileFailure::Encrypted),
        Ok(Err(error)) => {
            Err(FileFailure::Corrupt { reason: error.to_string().chars().take(200).collect() })
        }
        Err(_) => Err(FileFailure::Corrupt { reason: "the reader gave up on it".to_owned() }),
    }
}

/// The bytes of a regular file of at most `limit` bytes.
pub(super) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, RewardError> {
    read_regular(path, limit)
        .map_err(|failure| RewardError::File { path: path.to_owned(), failure })
}

fn read_regular(path: &Path, limit: u64) -> Result<Vec<u8>, FileFailure> {
    let io = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => FileFailure::Missing,
        _ => FileFailure::Io(Arc::new(error)),
    };
    let metadata = std::fs::metadata(path).map_err(io)?;
    if !metadata.is_file() {
        // A pipe or a device would never end.
        return Err(FileFailure::NotXlsx { what: "not a regular file" });
    }
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(io)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(FileFailure::TooLarge { what: "bytes in the file", limit });
    }
    Ok(bytes)
}

fn check_kind(bytes: &[u8]) -> Result<(), FileFailure> {
    /// An OLE compound file: an encrypted workbook, or one of before 2007.
    const OLE: [u8; 8] = [0xD0, 0xCF, 0x11, 0xE0, 0xA1, 0xB1, 0x1A, 0xE1];
    if bytes.starts_with(&OLE) {
        let name: Vec<u8> = "EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let encrypted = bytes.windows(name.len()).any(|window| window == name);
        return Err(if encrypted {
            FileFailure::Encrypted
        } else {
            FileFailure::NotXlsx { what: "a workbook of before 2007" }
        });
    }
    match bytes {
        [] => Err(FileFailure::NotXlsx { what: "an empty file" }),
        [b'P', b'K', ..] => Ok(()),
        _ => Err(FileFailure::NotXlsx { what: "not an archive" }),
    }
}

/// Unpacks the archive into nothing, so that what follows is known to be within the limits, and to
/// ask for no more memory than it has bytes.
fn check_archive(bytes: &[u8], limits: &WorkbookLimits) -> Result<(), FileFailure> {
    let corrupt = |error: ZipError| match error {
        ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED) | ZipError::InvalidPassword => {
            FileFailure::Encrypted
        }
        error => FileFailure::Corrupt { reason: error.to_string().chars().take(200).collect() },
    };
    let mut archive = caught_zip(|| ZipArchive::new(Cursor::new(bytes)))?.map_err(corrupt)?;
    if archive.len() > limits.max_entries {
        return Err(FileFailure::TooLarge {
            what: "files in the archive",
            limit: limits.max_entries as u64,
        });
    }
    let too_large =
        || FileFailure::TooLarge { what: "bytes unpacked", limit: limits.max_unpacked_bytes };
    // First what the file says of itself, which costs nothing to read.
    let declared = (0..archive.len())
        .filter_map(|index| archive.by_index_raw(index).ok().map(|entry| entry.size()));
    if declared.fold(0, u64::saturating_add) > limits.max_unpacked_bytes {
        return Err(too_large());
    }
    let mut left = limits.max_unpacked_bytes;
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(corrupt)?;
        let unpacked = Reservation::of(entry.take(left + 1));
        let unpacked =
            unpacked.map_err(|error| FileFailure::Corrupt { reason: error.to_string() })?;
        left = left.checked_sub(unpacked.bytes).ok_or_else(too_large)?;
        if !unpacked.is_honest() {
            let reason = format!(
                "a part of {} bytes says that it has {} members",
                unpacked.bytes, unpacked.largest
            );
            return Err(FileFailure::Corrupt { reason });
        }
    }
    Ok(())
}

fn caught_zip<T>(call: impl FnOnce() -> T) -> Result<T, FileFailure> {
    let reason = "the archive's reader gave up on it".to_owned();
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| FileFailure::Corrupt { reason })
}
