//! Values of cells, and when two of them agree.

use calamine::DataRef;
use serde::{Deserialize, Serialize};

/// When two numbers agree.
///
/// ```
/// use posttrain_reward::spreadsheet::NumberAgreement;
///
/// assert!(NumberAgreement::Decimals(2).agree(0.333, 0.33) && !NumberAgreement::Decimals(2).agree(0.335, 0.33));
/// let within = NumberAgreement::Within { absolute: 1e-9, relative: 1e-3 };
/// assert!(within.agree(1000.9, 1000.0) && !within.agree(1001.1, 1000.0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum NumberAgreement {
    /// They are the same when rounded to so many decimals, from 0 to 15.
    Decimals(u32),
    /// `|answer − reference| ≤ max(absolute, relative · |reference|)`; both finite and not
    /// negative.
    Within {
        /// The difference that is always allowed.
        absolute: f64,
        /// The difference that is allowed as a share of the reference.
        relative: f64,
    },
}

impl Default for NumberAgreement {
    /// Two decimals, as in SpreadsheetBench's evaluation.
    fn default() -> Self {
        Self::Decimals(2)
    }
}

impl NumberAgreement {
    /// Whether `answer` agrees with `reference`.
    ///
    /// ```
    /// assert!(posttrain_reward::spreadsheet::NumberAgreement::default().agree(-0.001, 0.0));
    /// ```
    #[must_use]
    pub fn agree(self, answer: f64, reference: f64) -> bool {
        match self {
            Self::Decimals(decimals) => rounded(answer, decimals) == rounded(reference, decimals),
            Self::Within { absolute, relative } => {
                (answer - reference).abs() <= absolute.max(relative * reference.abs())
            }
        }
    }
}

/// The decimal expansion, correctly rounded (ties to even, as Python's `round`), without a negative
/// zero.
fn rounded(number: f64, decimals: u32) -> String {
    let text = format!("{number:.0$}", decimals as usize);
    match text.strip_prefix('-') {
        Some(zero) if zero.bytes().all(|c| matches!(c, b'0' | b'.')) => zero.to_owned(),
        _ => text,
    }
}

/// How exactly dates are compared.
///
/// ```
/// assert_eq!(posttrain_reward::spreadsheet::DateAgreement::default(), posttrain_reward::spreadsheet::DateAgreement::Day);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DateAgreement {
    /// To the nearest day, as in SpreadsheetBench's evaluation.
    #[default]
    Day,
    /// To the second.
    Second,
}

/// What a text is that reads as a number, such as a number stored as text.
///
/// ```
/// assert_eq!(posttrain_reward::spreadsheet::TextNumbers::default(), posttrain_reward::spreadsheet::TextNumbers::AsNumbers);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextNumbers {
    /// The number, as in SpreadsheetBench's evaluation.
    #[default]
    AsNumbers,
    /// Text, which no number equals.
    AsText,
}

/// The rules by which cells agree.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Rules {
    pub(super) numbers: NumberAgreement,
    pub(super) dates: DateAgreement,
    pub(super) text_numbers: TextNumbers,
}

/// What a cell holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum CellValue {
    /// Nothing, or an empty text.
    Blank,
    Number(f64),
    Text(String),
    Bool(bool),
    /// Days since the end of 1899 in Excel's calendar of 1900.
    Date(f64),
    /// A time of day or a duration, in days.
    Time(f64),
}

/// Days between the origins of Excel's two calendars.
const DAYS_1904: f64 = 1462.0;

impl CellValue {
    pub(super) fn from_data(data: &DataRef<'_>, is_1904: bool) -> Self {
        match data {
            DataRef::Empty => Self::Blank,
            DataRef::Int(number) => Self::Number(*number as f64),
            DataRef::Float(number) => Self::Number(*number),
            DataRef::String(text) | DataRef::DurationIso(text) => Self::from_text(text),
            DataRef::SharedString(text) => Self::from_text(text),
            DataRef::Bool(value) => Self::Bool(*value),
            DataRef::Error(error) => Self::Text(error.to_string()),
            DataRef::DateTime(moment) if moment.is_duration() => Self::Time(moment.as_f64()),
            // A date format over less than a day shows a time.
            DataRef::DateTime(moment) if (0.0..1.0).contains(&moment.as_f64()) => {
                Self::Time(moment.as_f64())
            }
            DataRef::DateTime(moment) => {
                Self::Date(moment.as_f64() + if is_1904 { DAYS_1904 } else { 0.0 })
            }
            DataRef::DateTimeIso(text) => {
                iso_date(text).map_or_else(|| Self::from_text(text), Self::Date)
            }
        }
    }

    fn from_text(text: &str) -> Self {
        if text.is_empty() { Self::Blank } else { Self::Text(text.to_owned()) }
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> u64 {
        if let Self::Text(text) = self { text.len() as u64 } else { 0 }
    }

    /// For people: at most 80 characters.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Blank => "nothing".to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => format!("`{}`", text.chars().take(80).collect::<String>()),
            Self::Bool(value) => value.to_string().to_uppercase(),
            Self::Date(days) => format!("day {days}"),
            Self::Time(days) => format!("{} h", days * 24.0),
        }
    }
}

impl Rules {
    pub(super) fn agree(&self, answer: &CellValue, reference: &CellValue) -> bool {
        match (self.compared(answer), self.compared(reference)) {
            (Compared::Number(answer), Compared::Number(reference)) => {
                self.numbers.agree(answer, reference)
            }
            (answer, reference) => answer == reference,
        }
    }

    fn compared<'v>(&self, value: &'v CellValue) -> Compared<'v> {
        match value {
            CellValue::Blank => Compared::Blank,
            CellValue::Number(number) => Compared::Number(*number),
            CellValue::Bool(value) => Compared::Bool(*value),
            CellValue::Date(days) if self.dates == DateAgreement::Day => {
                Compared::Number(days.round_ties_even())
            }
            CellValue::Time(days) if self.dates == DateAgreement::Day => {
                Compared::Minutes(seconds(*days).div_euclid(60))
            }
            CellValue::Date(days) | CellValue::Time(days) => Compared::Seconds(seconds(*days)),
            CellValue::Text(text) => {
                match number_in(text).filter(|_| self.text_numbers == TextNumbers::AsNumbers) {
                    Some(number) => Compared::Number(number),
                    None => Compared::Text(text),
                }
            }
        }
    }
}

/// What of a value is compared.
#[derive(PartialEq)]
enum Compared<'v> {
    Blank,
    Number(f64),
    Bool(bool),
    Seconds(i64),
    Minutes(i64),
    Text(&'v str),
}

fn seconds(days: f64) -> i64 {
    (days * 86_400.0).round() as i64
}

/// The finite number that a whole text is.
fn number_in(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// Excel's day of an ISO date (`2024-02-29`, `2024-02-29T12:00:00`), which strict workbooks hold.
fn iso_date(text: &str) -> Option<f64> {
    let (date, time) = text.trim_end_matches('Z').split_once('T').unwrap_or((text, "0:0:0"));
    let [year, month, day] = numbers(date, '-')?;
    let [hours, minutes, seconds] = numbers(time, ':')?;
    let fits = (1900.0..=9999.0).contains(&year)
        && (1.0..=12.0).contains(&month)
        && (1.0..=31.0).contains(&day);
    let days = days_from_civil(year as i64, month as i64, day as i64) + 25_569;
    fits.then(|| days as f64 + (hours * 3600.0 + minutes * 60.0 + seconds) / 86_400.0)
}

fn numbers(text: &str, separator: char) -> Option<[f64; 3]> {
    let numbers: Vec<f64> =
        text.split(separator).map(|part| part.parse().ok()).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

/// Days from 1970-01-01 (Howard Hinnant, <https://howardhinnant.github.io/date_algorithms.html>).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use calamine::{CellErrorType, DataRef, ExcelDateTime, ExcelDateTimeType};

    use super::{CellValue, DateAgreement, NumberAgreement, Rules, TextNumbers};

    fn text(text: &str) -> CellValue {
        CellValue::from_data(&DataRef::SharedString(text), false)
    }

    fn date(days: f64) -> CellValue {
        let moment = ExcelDateTime::new(days, ExcelDateTimeType::DateTime, false);
        CellValue::from_data(&DataRef::DateTime(moment), false)
    }

    /// The verdicts of SpreadsheetBench's `compare_cell_value`, but where it takes TRUE for 1.
    #[test]
    fn agreement_by_default() {
        use CellValue::{Blank, Bool, Number};
        let cases = [
            (Blank, text(""), true),
            (Blank, Blank, true),
            (Blank, Number(0.0), false),
            (Blank, text(" "), false),
            (Number(1.0), Number(1.004), true),
            (Number(1.0), Number(1.006), false),
            (Number(0.125), Number(0.12), true),
            (Number(0.375), Number(0.38), true),
            (Number(2.675), Number(2.67), true),
            (Number(-0.001), Number(0.001), true),
            (Number(1e300), Number(1e300), true),
            (Number(7.0), text("7"), true),
            (Number(7.0), text(" 7.001 "), true),
            (Number(7.0), text("7 apples"), false),
            (text("nan"), text("nan"), true),
            (text("a"), text("a"), true),
            (text("a"), text("A"), false),
            (text("a"), text("a "), false),
            (Bool(true), Bool(true), true),
            (Bool(true), Bool(false), false),
            (Bool(true), Number(1.0), false),
            (Bool(true), text("TRUE"), false),
            (date(45_000.0), date(45_000.3), true),
            (date(45_000.0), date(45_001.0), false),
            (date(45_000.0), Number(45_000.0), true),
            (date(45_000.0), text("2023-03-15"), false),
            (date(0.5), date(0.5 + 20.0 / 86_400.0), true),
            (date(0.5), date(0.5 + 70.0 / 86_400.0), false),
            (date(0.5), Number(0.5), false),
        ];
        for (answer, reference, expected) in cases {
            let rules = Rules::default();
            assert_eq!(rules.agree(&answer, &reference), expected, "{answer:?} {reference:?}");
            assert_eq!(rules.agree(&reference, &answer), expected, "{reference:?} {answer:?}");
        }
    }

    #[test]
    fn stricter_rules() {
        let rules = Rules {
            numbers: NumberAgreement::Within { absolute: 1e-9, relative: 0.0 },
            dates: DateAgreement::Second,
            text_numbers: TextNumbers::AsText,
        };
        assert!(!rules.agree(&CellValue::Number(1.0), &CellValue::Number(1.004)));
        assert!(!rules.agree(&CellValue::Number(7.0), &text("7")));
        assert!(!rules.agree(&date(45_000.0), &date(45_000.3)));
        assert!(rules.agree(&date(45_000.3), &date(45_000.3)));
    }

    #[test]
    fn errors_calendars_and_iso_dates() {
        let error = CellValue::from_data(&DataRef::Error(CellErrorType::Div0), false);
        assert_eq!(error, text("#DIV/0!"));
        let moment = ExcelDateTime::new(43_538.0, ExcelDateTimeType::DateTime, true);
        assert_eq!(
            CellValue::from_data(&DataRef::DateTime(moment), true),
            CellValue::Date(45_000.0)
        );
        for (iso, days) in [
            ("2023-03-15", 45_000.0),
            ("2023-03-15T12:00:00", 45_000.5),
            ("1900-03-01", 61.0),
            ("2024-02-29", 45_351.0),
        ] {
            assert_eq!(
                CellValue::from_data(&DataRef::DateTimeIso(iso.into()), false),
                CellValue::Date(days),
                "{iso}"
            );
        }
        assert_eq!(CellValue::from_data(&DataRef::DateTimeIso("soon".into()), false), text("soon"));
    }
}
