//! The fact tables, embedded in the crate.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{DataError, Place};

/// A row of `elements.csv`; an empty text is not known or not asked.
#[derive(Deserialize)]
pub(super) struct Element {
    pub(super) atomic_number: u32,
    pub(super) symbol: String,
    pub(super) name: String,
    pub(super) period: u32,
    pub(super) group: String,
    pub(super) series: String,
    pub(super) block: String,
    pub(super) phase_at_25c: String,
}

/// A row of `countries.csv`; an empty text is not known or not asked.
#[derive(Deserialize)]
pub(super) struct Country {
    pub(super) iso2: String,
    pub(super) iso3: String,
    pub(super) name: String,
    pub(super) capital: String,
    pub(super) continent: String,
    pub(super) currency_code: String,
    pub(super) currency_name: String,
    pub(super) official_language: String,
    pub(super) calling_code: String,
}

/// A row of `us_states.csv`.
#[derive(Deserialize)]
pub(super) struct State {
    pub(super) code: String,
    pub(super) name: String,
    pub(super) capital: String,
}

/// A row of `si_units.csv`.
#[derive(Deserialize)]
pub(super) struct Unit {
    pub(super) quantity: String,
    pub(super) unit: String,
    pub(super) symbol: String,
}

pub(super) fn elements() -> Result<Vec<Element>, DataError> {
    parse("facts/elements.csv", include_str!("../../facts/elements.csv"))
}

pub(super) fn countries() -> Result<Vec<Country>, DataError> {
    parse("facts/countries.csv", include_str!("../../facts/countries.csv"))
}

pub(super) fn states() -> Result<Vec<State>, DataError> {
    parse("facts/us_states.csv", include_str!("../../facts/us_states.csv"))
}

pub(super) fn units() -> Result<Vec<Unit>, DataError> {
    parse("facts/si_units.csv", include_str!("../../facts/si_units.csv"))
}

fn parse<T: DeserializeOwned>(path: &str, text: &str) -> Result<Vec<T>, DataError> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    // The heading is line 1.
    (2..)
        .zip(reader.deserialize())
        .map(|(line, row)| row.map_err(|error| broken(path, line, &error)))
        .collect()
}

fn broken(path: &str, line: u64, error: &csv::Error) -> DataError {
    DataError::FieldType {
        place: Place::line(path, line),
        field: "(the whole line)".to_owned(),
        expected: "a row of the table",
        got: error.to_string(),
    }
}

/// Whether `value` stands in the column once only, whatever the case, so that it can be asked for
/// its row.
pub(super) fn is_unique<T>(rows: &[T], column: impl Fn(&T) -> &str, value: &str) -> bool {
    rows.iter().filter(|row| column(row).eq_ignore_ascii_case(value)).count() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_whole() {
        assert_eq!(elements().unwrap().len(), 118);
        assert_eq!(countries().unwrap().len(), 196);
        assert_eq!(states().unwrap().len(), 50);
        assert_eq!(units().unwrap().len(), 28);
    }
}
