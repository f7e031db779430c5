//! JSON lines, read and written.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use posttrain_store::replace_file_with;
use serde_json::Value;

use crate::dataset::Collector;
use crate::record::Record;
use crate::{Columns, DataError, Example, Place};

/// A byte order mark, which some editors put in front of UTF-8.
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Writes examples as JSON lines, all or nothing.
///
/// ```
/// use posttrain_data::{Example, ReadConfig, read, write_jsonl};
///
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("sums.jsonl");
/// let sums = [Example::new("a", "math", "What is 1 + 1?", "2")];
/// write_jsonl(&path, &sums).unwrap();
/// assert_eq!(read(&path, &ReadConfig::default()).unwrap().examples(), sums);
/// ```
///
/// # Errors
/// [`DataError::Store`] where the file cannot be written; what stood there before stands there
/// still.
pub fn write_jsonl<'a>(
    path: impl AsRef<Path>,
    examples: impl IntoIterator<Item = &'a Example>,
) -> Result<(), DataError> {
    let written = replace_file_with(path.as_ref(), |file| {
        for example in examples {
            serde_json::to_writer(&mut *file, example)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    });
    Ok(written?)
}

/// Reads the file's rows into `collector`.
pub(crate) fn collect(
    path: &Path,
    columns: &Columns,
    row_bytes: u64,
    collector: &mut Collector,
) -> Result<(), DataError> {
    let file = File::open(path).map_err(|source| DataError::io("open", path, source))?;
    let mut lines =
        Lines { reader: BufReader::new(file), place: Place::line(path, 0), limit: row_bytes };

    while let Some((place, line)) = lines.next_line()? {
        if !line.trim().is_empty() {
            Record { fields: parse(&place, &line)?, place }.collect(columns, collector)?;
        }
    }
    Ok(())
}

fn parse(place: &Place, line: &str) -> Result<crate::Metadata, DataError> {
    match serde_json::from_str(line) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(DataError::FieldType {
            place: place.clone(),
            field: "(the whole line)".to_owned(),
            expected: "a JSON object",
            got: other.to_string().chars().take(80).collect(),
        }),
        Err(source) => Err(DataError::Json { place: place.clone(), source }),
    }
}

/// Lines of bounded length, with their places.
struct Lines<R> {
    reader: R,
    place: Place,
    limit: u64,
}

impl<R: BufRead> Lines<R> {
    fn next_line(&mut self) -> Result<Option<(Place, String)>, DataError> {
        let Place::Line { path, line } = &mut self.place else { return Ok(None) };
        let mut bytes = Vec::new();

        // One byte more than the limit, to tell a line at the limit from one beyond; and room for
        // mark and line end.
        let mut bounded = (&mut self.reader).take(self.limit.saturating_add(BOM.len() as u64 + 3));
        bounded
            .read_until(b'\n', &mut bytes)
            .map_err(|source| DataError::io("read", path, source))?;
        if bytes.is_empty() {
            return Ok(None);
        }

        *line += 1;
        trim_end(&mut bytes);
        if *line == 1 && bytes.starts_with(BOM) {
            bytes.drain(..BOM.len());
        }

        let place = self.place.clone();
        if bytes.len() as u64 > self.limit {
            return Err(DataError::RowTooLong { place, limit: self.limit });
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some((place, text))),
            Err(error) => Err(DataError::Utf8 { place, offset: error.utf8_error().valid_up_to() }),
        }
    }
}

fn trim_end(bytes: &mut Vec<u8>) {
    for end in [b'\n', b'\r'] {
        if bytes.last() == Some(&end) {
            bytes.pop();
        }
    }
}
