//! Values as JSON files.

use crate::{StoreError, replace_file};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Writes a value as a JSON file of one line, whole or not at all.
///
/// # Errors
/// [`StoreError::Io`], or [`StoreError::Unwritable`] for what JSON has no form for.
///
/// ```
/// use posttrain_store::{read_json, write_json};
///
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("counts.json");
/// write_json(&path, &[1, 2, 3])?;
/// assert_eq!(read_json::<Vec<u8>>(&path)?, [1, 2, 3]);
/// # Ok::<(), posttrain_store::StoreError>(())
/// ```
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
    write(path, serde_json::to_string(value))
}

/// Writes a value as a JSON file that a person reads, whole or not at all.
///
/// # Errors
/// As for [`write_json`].
pub fn write_json_pretty(path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
    write(path, serde_json::to_string_pretty(value))
}

fn write(path: &Path, json: serde_json::Result<String>) -> Result<(), StoreError> {
    let json = json.map_err(|source| StoreError::Unwritable { path: path.to_owned(), source })?;
    replace_file(path, (json + "\n").as_bytes())
}

/// Reads a value from a JSON file.
///
/// # Errors
/// [`StoreError::Io`], or [`StoreError::Json`] with the line and the field that are not of the
/// form.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    let text = fs::read(path).map_err(StoreError::io("read", path))?;
    parse(path, &text)
}

/// Reads a value from a JSON file; none where there is no file.
///
/// # Errors
/// As for [`read_json`].
///
/// ```
/// let folder = tempfile::tempdir().unwrap();
/// let nothing: Option<u8> = posttrain_store::read_json_if_there(&folder.path().join("absent.json"))?;
/// assert_eq!(nothing, None);
/// # Ok::<(), posttrain_store::StoreError>(())
/// ```
pub fn read_json_if_there<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    match fs::read(path) {
        Ok(text) => parse(path, &text).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path)(error)),
    }
}

fn parse<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, StoreError> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let source = error.into_inner();
        StoreError::Json { path: path.to_owned(), line: source.line(), field, source }
    })?;

    json.end().map_err(|source| StoreError::Json {
        path: path.to_owned(),
        line: source.line(),
        field: ".".into(),
        source,
    })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_person_s_form_and_a_line_are_the_same_value() {
        let folder = tempfile::tempdir().unwrap();
        let value = BTreeMap::from([("a", 1), ("b", 2)]);
        let [line, pretty] = ["line.json", "pretty.json"].map(|name| folder.path().join(name));
        write_json(&line, &value).unwrap();
        write_json_pretty(&pretty, &value).unwrap();

        assert_eq!(fs::read_to_string(&line).unwrap(), "{\"a\":1,\"b\":2}\n");
        assert_eq!(fs::read_to_string(&pretty).unwrap(), "{\n  \"a\": 1,\n  \"b\": 2\n}\n");
        let read = |path| read_json::<BTreeMap<String, u8>>(path).unwrap();
        assert_eq!(read(&line), read(&pretty));
    }

    #[test]
    fn a_damaged_file_is_named_with_its_line_and_its_field() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("counts.json");
        fs::write(&path, "{\n\"a\": {\"b\": \"two\"}\n}").unwrap();
        let error = read_json::<BTreeMap<String, BTreeMap<String, u8>>>(&path).unwrap_err();
        assert!(
            matches!(&error, StoreError::Json { line: 2, field, .. } if field == "a.b"),
            "{error:?}"
        );

        fs::write(&path, "{} trailing").unwrap();
        assert!(read_json::<BTreeMap<String, u8>>(&path).is_err());
    }
}
