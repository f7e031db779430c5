//! From one row of a file, whatever its format, to an example.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::dataset::Collector;
use crate::{Columns, DataError, Example, Metadata, OtherDomains, Place, normalize_question};

/// Group values longer than this stand as their digest.
const LONGEST_GROUP: usize = 200;
/// Integers beyond 2⁵³ have lost digits by the time that they are read as floating point.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// One row of a file: its fields by name.
pub(crate) struct Record {
    pub(crate) place: Place,
    pub(crate) fields: Metadata,
}

impl Record {
    /// Adds the row's example to `collector`, or passes it over where its domain says so.
    pub(crate) fn collect(
        mut self,
        columns: &Columns,
        collector: &mut Collector,
    ) -> Result<(), DataError> {
        let Some(domain) = self.domain(columns)? else {
            collector.skip();
            return Ok(());
        };

        let question = self.question(&columns.question)?;
        let answer = self
            .scalar(&columns.answer)?
            .ok_or_else(|| self.missing(&columns.answer, "an answer"))?;
        self.check_filled(&columns.answer, &answer)?;

        let group = self.chosen(columns.group.as_deref(), "group", "a group")?.map(shorten);
        let group = group.unwrap_or_else(|| shorten(normalize_question(&question)));
        let id = self.chosen(columns.id.as_deref(), "id", "an id")?;
        let id = id.unwrap_or_else(|| derive_id([&domain, &question, &answer], collector));
        let metadata = self.metadata(&columns.metadata);

        collector.push(Example { id, domain, question, answer, group, metadata }, self.place)
    }

    /// `None` where the row is to be skipped.
    fn domain(&self, columns: &Columns) -> Result<Option<String>, DataError> {
        let name = columns.domain.as_deref().unwrap_or("domain");
        let Some(found) = self.scalar(name)? else {
            return columns
                .default_domain
                .clone()
                .map(Some)
                .ok_or_else(|| self.missing(name, "a domain"));
        };

        self.check_filled(name, &found)?;
        match (columns.domains.get(&found), columns.other_domains) {
            (Some(ours), _) => Ok(Some(ours.clone())),
            (None, _) if columns.domains.is_empty() => Ok(Some(found)),
            (None, OtherDomains::Keep) => Ok(Some(found)),
            (None, OtherDomains::Skip) => Ok(None),
            (None, OtherDomains::Reject) => {
                let known = columns.domains.keys().cloned().collect();
                Err(DataError::UnknownDomain { place: self.place.clone(), domain: found, known })
            }
        }
    }

    /// A column that must be there if it was named, and is used if it happens to be there under its
    /// usual name.
    fn chosen(
        &self,
        named: Option<&str>,
        usual: &str,
        expected: &'static str,
    ) -> Result<Option<String>, DataError> {
        let found = self.scalar(named.unwrap_or(usual))?;
        if let Some(text) = &found {
            self.check_filled(named.unwrap_or(usual), text)?;
        }

        match (found, named) {
            (None, Some(name)) => Err(self.missing(name, expected)),
            (found, _) => Ok(found),
        }
    }

    fn question(&self, field: &str) -> Result<String, DataError> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Err(self.missing(field, "a question")),
            Some(Value::String(text)) => self.check_filled(field, text).map(|()| text.clone()),
            Some(other) => Err(self.wrong_type(field, "text", other)),
        }
    }

    /// Text, a number or a truth value, as text.
    fn scalar(&self, field: &str) -> Result<Option<String>, DataError> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Bool(truth)) => Ok(Some(truth.to_string())),
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => {
                Ok(Some(number.to_string()))
            }
            Some(Value::Number(number)) if number.as_f64().is_some_and(|x| x.abs() < EXACT) => {
                Ok(Some(number.to_string()))
            }
            Some(other) => Err(self.wrong_type(
                field,
                "text, a truth value or a number of at most 15 digits",
                other,
            )),
        }
    }

    fn metadata(&mut self, names: &[String]) -> Option<Metadata> {
        let kept: Metadata = names
            .iter()
            .filter_map(|name| Some((name.clone(), self.fields.remove(name)?)))
            .collect();
        (!kept.is_empty()).then_some(kept)
    }

    fn check_filled(&self, field: &str, text: &str) -> Result<(), DataError> {
        if text.trim().is_empty() {
            return Err(DataError::EmptyField {
                place: self.place.clone(),
                field: field.to_owned(),
                got: text.to_owned(),
            });
        }
        Ok(())
    }

    fn missing(&self, field: &str, expected: &'static str) -> DataError {
        let found = self.fields.keys().cloned().collect();
        DataError::MissingField {
            place: self.place.clone(),
            field: field.to_owned(),
            expected,
            found,
        }
    }

    fn wrong_type(&self, field: &str, expected: &'static str, got: &Value) -> DataError {
        DataError::FieldType {
            place: self.place.clone(),
            field: field.to_owned(),
            expected,
            got: excerpt(got),
        }
    }
}

/// What stands in the field, short enough for an error message.
fn excerpt(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(fields) => format!("an object of {} fields", fields.len()),
        scalar => scalar.to_string().chars().take(80).collect(),
    }
}

fn shorten(group: String) -> String {
    if group.len() <= LONGEST_GROUP {
        group
    } else {
        format!("sha256:{}", hex(&Sha256::digest(group.as_bytes())))
    }
}

/// The same row has the same id in every file; of rows that are the same throughout, the second
/// ends in `-2`.
fn derive_id(parts: [&str; 3], collector: &mut Collector) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }

    let id = format!("q-{}", hex(&hasher.finalize()[..8]));
    match collector.count_repetition(&id) {
        1 => id,
        repetition => format!("{id}-{repetition}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
