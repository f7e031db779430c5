//! The spreadsheet verifier: workbooks that are there, compared with their references.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::area::{Area, parse_areas};
use super::cell::{DateAgreement, NumberAgreement, Rules, TextNumbers};
use super::comparison::{Expected, WorkbookComparison};
use super::task::{FileCase, Task};
use super::workbook::{Workbook, WorkbookLimits};
use crate::{Credit, RewardError, Sample, Score, Verifier};

const EXPECTED: &str =
    r#"{"range": "Sheet1!A1:C9", "cases": [{"answer": "a.xlsx", "reference": "b.xlsx"}]}"#;

/// What an answer's workbook is worth that is missing, damaged, encrypted or too large.
///
/// ```
/// assert_eq!(posttrain_reward::spreadsheet::BadAnswer::default(), posttrain_reward::spreadsheet::BadAnswer::Error);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadAnswer {
    /// It is an error that names the file: a disk or a converter may be at fault.
    #[default]
    Error,
    /// It is wrong, as in SpreadsheetBench's evaluation; right where the policy itself wrote the
    /// file.
    Wrong,
}

/// Compares an answer range of workbooks cell by cell, as SpreadsheetBench does.
///
/// # Cells
/// A cell without a value and an empty text are the same. Numbers agree by `numbers`, also a number
/// stored as text (by `text_numbers`). Dates agree to the day, times of day to the minute (by
/// `dates`), and a date equals the number that it is stored as. Texts agree exactly, errors
/// (`#DIV/0!`) by name, TRUE and FALSE with themselves. These are the rules of the benchmark's
/// evaluation (<https://github.com/RUCKBReasoning/SpreadsheetBench>, `evaluation/evaluation.py`)
/// with two departures: TRUE is not 1, and fill and font colors are not compared. A formula counts
/// by the value that is stored with it: what `openpyxl` wrote has none, and reads as blank, until
/// an office program has computed it.
///
/// # Range
/// `Sheet1!A1:C9,'My Sheet'!B2`; without a sheet it is the reference's first; whole columns (`A:C`)
/// are as far as there are values. A sheet that the answer lacks makes it wrong; one that the
/// reference lacks is an error.
///
/// # Test cases
/// The task stands in the dataset row, as `spreadsheet` in its metadata; relative paths begin in
/// `directory`:
///
/// ```json
/// {"spreadsheet": {"range": "Sheet1!A1:C9", "cases": [{"answer": "1_output.xlsx", "reference": "1_answer.xlsx"}]}}
/// ```
///
/// The parts of the score are `soft` (the share of cases that agree) and `hard` (1 where all do),
/// the benchmark's two measures; `credit` chooses which one is the value. Where a response is a
/// program that writes the workbook, see [`SpreadsheetCode`](crate::spreadsheet::SpreadsheetCode).
///
/// # Bounds
/// A file is read within `limits`; archives are unpacked once, into nothing, to know their true
/// size before they are read.
///
/// ```
/// use posttrain_reward::spreadsheet::SpreadsheetConfig;
/// use rust_xlsxwriter::Workbook;
///
/// let folder = tempfile::tempdir()?;
/// let write = |name: &str, total: f64| -> Result<_, Box<dyn std::error::Error>> {
///     let mut workbook = Workbook::new();
///     workbook.add_worksheet().write(0, 0, "total")?.write(0, 1, total)?;
///     let path = folder.path().join(name);
///     workbook.save(&path)?;
///     Ok(path)
/// };
/// let (answer, reference) = (write("answer.xlsx", 12.001)?, write("reference.xlsx", 12.0)?);
/// let spreadsheet = SpreadsheetConfig::default().build()?;
/// assert!(spreadsheet.compare(&answer, &reference, "Sheet1!A1:B1")?.is_equal());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpreadsheetConfig {
    /// When numbers agree. Default: to two decimals, as in SpreadsheetBench.
    pub numbers: NumberAgreement,
    /// When dates agree. Default: to the day, as in SpreadsheetBench.
    pub dates: DateAgreement,
    /// What a number stored as text is. Default: the number, as in SpreadsheetBench.
    pub text_numbers: TextNumbers,
    /// What a task is worth of which some cases agree. Default: nothing (the hard measure).
    pub credit: Credit,
    /// What an unreadable answer is worth. Default: an error.
    pub bad_answer: BadAnswer,
    /// Where relative paths begin. Default: the working folder.
    pub directory: PathBuf,
    /// What a workbook may cost.
    pub limits: WorkbookLimits,
}

impl SpreadsheetConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// use posttrain_reward::spreadsheet::{NumberAgreement, SpreadsheetConfig};
    ///
    /// assert!(SpreadsheetConfig::default().validate().is_ok());
    /// let config = SpreadsheetConfig { numbers: NumberAgreement::Decimals(16), ..SpreadsheetConfig::default() };
    /// assert!(config.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        let invalid = |got: String, expected| {
            Err(RewardError::InvalidConfig { field: "numbers", got, expected })
        };
        let bound = |number: f64| number.is_finite() && number >= 0.0;
        match self.numbers {
            NumberAgreement::Decimals(decimals @ 16..) => {
                invalid(decimals.to_string(), "from 0 to 15 decimals")
            }
            NumberAgreement::Within { absolute, relative }
                if !bound(absolute) || !bound(relative) =>
            {
                invalid(format!("{absolute} and {relative}"), "finite tolerances, not negative")
            }
            _ => self.limits.validate(),
        }
    }

    /// The verifier.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    ///
    /// ```
    /// use posttrain_reward::Verifier;
    /// use posttrain_reward::spreadsheet::SpreadsheetConfig;
    ///
    /// assert_eq!(SpreadsheetConfig::default().build()?.name(), "spreadsheet");
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn build(self) -> Result<Spreadsheet, RewardError> {
        self.validate()?;
        Ok(Spreadsheet { config: self })
    }
}

/// The verifier that [`SpreadsheetConfig`] describes and builds.
///
/// ```
/// use posttrain_reward::{Sample, Verifier};
/// use posttrain_reward::spreadsheet::SpreadsheetConfig;
///
/// let error = SpreadsheetConfig::default().build()?.verify(&Sample::default()).unwrap_err();
/// assert_eq!(error.cause(), "missing_field");
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Spreadsheet {
    config: SpreadsheetConfig,
}

impl Verifier for Spreadsheet {
    fn name(&self) -> &str {
        "spreadsheet"
    }

    fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
        let task = Task::<FileCase>::of(sample, EXPECTED)?;
        let compare = |case: &FileCase| {
            let answer = || Workbook::open(&self.path(&case.answer), &self.config.limits);
            self.case(answer, &case.reference, &task.areas)
        };
        let outcomes = task.cases.iter().map(compare).collect::<Result<Vec<_>, _>>()?;
        score(&outcomes, self.config.credit)
    }
}

impl Spreadsheet {
    /// Compares two workbooks in a range such as `Sheet1!A1:C9,'My Sheet'!B2`.
    ///
    /// # Errors
    /// [`RewardError::File`] naming the file that cannot be read; [`RewardError::InvalidConfig`]
    /// where the range is none.
    ///
    /// ```
    /// use posttrain_reward::spreadsheet::SpreadsheetConfig;
    /// use std::path::Path;
    ///
    /// let missing = Path::new("missing.xlsx");
    /// let error = SpreadsheetConfig::default().build()?.compare(missing, missing, "A1").unwrap_err();
    /// assert_eq!(error.report(), "missing.xlsx cannot be read: no such file");
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn compare(
        &self,
        answer: &Path,
        reference: &Path,
        range: &str,
    ) -> Result<WorkbookComparison, RewardError> {
        let limits = &self.config.limits;
        let expected = Expected::read(Workbook::open(reference, limits)?, &areas(range)?)?;
        expected.compare(Workbook::open(answer, limits)?, self.rules())
    }

    /// Compares two workbooks in memory, as [`compare`](Self::compare) does.
    ///
    /// # Errors
    /// As [`compare`](Self::compare); the files are called `answer` and `reference`.
    ///
    /// ```
    /// use posttrain_reward::spreadsheet::SpreadsheetConfig;
    ///
    /// let error = SpreadsheetConfig::default().build()?.compare_bytes(Vec::new(), b"PK".to_vec(), "A1").unwrap_err();
    /// assert_eq!(error.cause(), "file_corrupt");
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn compare_bytes(
        &self,
        answer: Vec<u8>,
        reference: Vec<u8>,
        range: &str,
    ) -> Result<WorkbookComparison, RewardError> {
        let open =
            |name: &str, bytes| Workbook::from_bytes(Path::new(name), bytes, &self.config.limits);
        let expected = Expected::read(open("reference", reference)?, &areas(range)?)?;
        expected.compare(open("answer", answer)?, self.rules())
    }

    /// Compares one case of a task, whose answer `open` opens.
    pub(super) fn case(
        &self,
        open: impl FnOnce() -> Result<Workbook, RewardError>,
        reference: &Path,
        areas: &[Area],
    ) -> Result<Outcome, RewardError> {
        let reference = Workbook::open(&self.path(reference), &self.config.limits)?;
        let expected = Expected::read(reference, areas)?;
        match open().and_then(|answer| expected.compare(answer, self.rules())) {
            Ok(comparison) => {
                Ok(Outcome { agrees: comparison.is_equal(), note: comparison.to_string() })
            }
            Err(error) if self.config.bad_answer == BadAnswer::Wrong => {
                Ok(Outcome { agrees: false, note: error.report() })
            }
            Err(error) => Err(error),
        }
    }

    /// Where a file of a dataset row is.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.config.directory.join(path)
    }

    fn rules(&self) -> Rules {
        let SpreadsheetConfig { numbers, dates, text_numbers, .. } = self.config;
        Rules { numbers, dates, text_numbers }
    }
}

/// How one case ended.
pub(super) struct Outcome {
    pub(super) agrees: bool,
    pub(super) note: String,
}

/// The value by `credit`, the two measures as parts, and what the first case says that does not
/// agree.
pub(super) fn score(outcomes: &[Outcome], credit: Credit) -> Result<Score, RewardError> {
    let (agreeing, total) =
        (outcomes.iter().filter(|outcome| outcome.agrees).count(), outcomes.len());
    let score = Score::new(credit.value(agreeing, total))?
        .with_part("soft", Credit::Soft.value(agreeing, total))?
        .with_part("hard", Credit::Hard.value(agreeing, total))?;
    let first = outcomes.iter().enumerate().find(|(_, outcome)| !outcome.agrees);
    Ok(match first {
        Some((index, outcome)) => score.with_note(format!("case {}: {}", index + 1, outcome.note)),
        None => score,
    })
}

fn areas(range: &str) -> Result<Vec<Area>, RewardError> {
    parse_areas(range).map_err(|reason| RewardError::InvalidConfig {
        field: "range",
        got: format!("{:?}: {reason}", range.chars().take(80).collect::<String>()),
        expected: "areas such as Sheet1!A1:C9,'My Sheet'!B2",
    })
}
