//! The fields of a `config.json`, with errors that name the file and the field.

use crate::ModelError;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

/// The largest size that a configuration may ask for: beyond any model there is, below what would
/// overflow products.
pub(crate) const LARGEST: i64 = 1 << 24;

/// A JSON object of a configuration, or one that stands in it. It knows which of its fields have
/// been asked for: in the end none may be left that changes what the model computes.
pub(crate) struct Fields<'a> {
    path: &'a Path,
    /// The field that the object stands in, with a dot; nothing for the file's own.
    within: String,
    map: Map<String, Value>,
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> Fields<'a> {
    /// Reads a file's object.
    pub fn parse(path: &'a Path, text: &str) -> Result<Self, ModelError> {
        let map = serde_json::from_str(text).map_err(|e| ModelError::Format {
            path: path.into(),
            reason: format!("not a JSON object: {e}"),
        })?;
        Ok(Self { path, within: String::new(), map, asked: RefCell::default() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.path
    }

    /// A field that is there and not null.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.asked.borrow_mut().insert(field.to_owned());
        self.map.get(field).filter(|v| !v.is_null())
    }

    /// Whether a field is there and null.
    pub fn is_null(&self, field: &str) -> bool {
        self.map.get(field).is_some_and(Value::is_null)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Ends the reading: refuses the first field that nobody has asked for, that is not null, and
    /// that is not `immaterial`, by its name.
    pub fn finish(&self, immaterial: impl Fn(&str) -> bool) -> Result<(), ModelError> {
        let asked = self.asked.borrow();
        let left = self.map.iter().find(|(name, value)| {
            !value.is_null() && !asked.contains(name.as_str()) && !immaterial(name)
        });
        match left.map(|(name, _)| name.clone()) {
            Some(name) => {
                drop(asked);
                Err(self.error(&name, "absent: what it changes is not known"))
            }
            None => Ok(()),
        }
    }

    /// The error that names a field.
    pub fn error(&self, field: &str, expected: impl Into<String>) -> ModelError {
        let got =
            self.get(field).map_or("nothing".into(), |v| v.to_string().chars().take(200).collect());
        let field = format!("{}{field}", self.within);
        ModelError::Config { path: self.path.into(), field, expected: expected.into(), got }
    }

    /// The object in a field, if there is one.
    pub fn object(&self, field: &str) -> Result<Option<Self>, ModelError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields {
                path: self.path,
                within: format!("{}{field}.", self.within),
                map: map.clone(),
                asked: RefCell::default(),
            })),
            Some(_) => Err(self.error(field, "an object")),
        }
    }

    pub fn text(&self, field: &str) -> Result<Option<&str>, ModelError> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.error(field, "a string")),
        }
    }

    pub fn size(&self, field: &str) -> Result<i64, ModelError> {
        let value = self.get(field).and_then(Value::as_i64).filter(|v| (1..=LARGEST).contains(v));
        value.ok_or_else(|| self.error(field, format!("a whole number from 1 to {LARGEST}")))
    }

    pub fn size_or(&self, field: &str, default: i64) -> Result<i64, ModelError> {
        if self.get(field).is_some() { self.size(field) } else { Ok(default) }
    }

    pub fn positive(&self, field: &str) -> Result<f64, ModelError> {
        let value = self.get(field).and_then(Value::as_f64).filter(|v| *v > 0.0 && v.is_finite());
        value.ok_or_else(|| self.error(field, "a number above 0"))
    }

    pub fn positive_or(&self, field: &str, default: f64) -> Result<f64, ModelError> {
        if self.get(field).is_some() { self.positive(field) } else { Ok(default) }
    }

    /// A number, if there is one.
    pub fn number(&self, field: &str) -> Result<Option<f64>, ModelError> {
        match self.get(field) {
            Some(v) => v.as_f64().map(Some).ok_or_else(|| self.error(field, "a number")),
            None => Ok(None),
        }
    }

    pub fn flag_or(&self, field: &str, default: bool) -> Result<bool, ModelError> {
        match self.get(field) {
            Some(v) => v.as_bool().ok_or_else(|| self.error(field, "true or false")),
            None => Ok(default),
        }
    }

    /// A whole number or a list of them; nothing is an empty list.
    pub fn integers(&self, field: &str) -> Result<Vec<i64>, ModelError> {
        let ids = match self.get(field) {
            None => Some(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(Value::as_i64).collect(),
            Some(value) => value.as_i64().map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.error(field, "a whole number or a list of them"))
    }

    /// A list of strings, if there is one.
    pub fn texts(&self, field: &str) -> Result<Option<Vec<&str>>, ModelError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let texts = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        texts.map(Some).ok_or_else(|| self.error(field, "a list of strings"))
    }

    /// A field that changes the result must be absent or have one of the values that are computed.
    pub fn refuse_unless(&self, field: &str, supported: &[&str]) -> Result<(), ModelError> {
        let text = self.get(field).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
        match text {
            Some(text) if !supported.contains(&text.as_str()) => Err(self
                .error(field, format!("{} (the rest is not supported)", supported.join(" or ")))),
            _ => Ok(()),
        }
    }

    /// [`Fields::refuse_unless`] for a field that nobody has asked for.
    pub fn refuse_unread(&self, field: &str, supported: &[&str]) -> Result<(), ModelError> {
        if self.asked.borrow().contains(field) {
            return Ok(());
        }
        self.refuse_unless(field, supported)
    }

    /// A field that changes the result and that nothing here computes must be absent.
    pub fn refuse(&self, field: &str, why: &str) -> Result<(), ModelError> {
        if self.get(field).is_some() {
            Err(self.error(field, format!("absent ({why})")))
        } else {
            Ok(())
        }
    }
}
