//! Append-only logs that survive a torn line.

use crate::StoreError;
use crate::file::folder_of;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

/// An append-only file of values, one JSON line each (`.jsonl`).
///
/// A process that dies while it writes leaves a torn last line, which is dropped when the log is
/// opened again; a line that is damaged further up is an error.
///
/// ```
/// use posttrain_store::{JsonLog, read_log};
///
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("steps.jsonl");
/// let (mut log, none) = JsonLog::open(&path, |_: &u64| true)?;
/// assert!(none.is_empty());
/// (1..=3).try_for_each(|step| log.append(&step))?;
///
/// // Back to step 2, the last that was saved.
/// let (mut log, kept) = JsonLog::open(&path, |step| *step <= 2)?;
/// assert_eq!(kept, [1, 2]);
/// log.append(&30)?;
/// assert_eq!(read_log::<u64>(&path)?, [1, 2, 30]);
/// # Ok::<(), posttrain_store::StoreError>(())
/// ```
#[derive(Debug)]
pub struct JsonLog<T> {
    path: PathBuf,
    file: File,
    /// Whether a torn line may stand at the end, onto which nothing must be written.
    torn: bool,
    values: PhantomData<fn(&T)>,
}

impl<T: Serialize + DeserializeOwned> JsonLog<T> {
    /// Opens a log to be appended to, with the values that it keeps: those before the first that
    /// `keep` refuses. What comes after them is cut off. A log that is not there is begun, in a
    /// folder that is made.
    ///
    /// # Errors
    /// [`StoreError::Io`], or [`StoreError::Json`] with the line that is damaged.
    pub fn open(path: &Path, keep: impl Fn(&T) -> bool) -> Result<(Self, Vec<T>), StoreError> {
        // Bytes, not text: the last line may be torn within a character.
        let bytes = read_if_there(path)?;
        let mut kept = Vec::new();
        let mut end = 0;
        let mut lines = whole_lines(&bytes).peekable();
        while let Some(line) = lines.next() {
            match parse(path, kept.len() + 1, line) {
                Ok(value) if keep(&value) => kept.push(value),
                Err(error) if lines.peek().is_some() => return Err(error),
                _ => break,
            }
            end += line.len();
        }

        if end < bytes.len() {
            let file =
                OpenOptions::new().write(true).open(path).map_err(StoreError::io("open", path))?;
            file.set_len(end as u64).map_err(StoreError::io("cut", path))?;
        }
        let folder = folder_of(path);
        fs::create_dir_all(folder).map_err(StoreError::io("make", folder))?;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(StoreError::io("open", path))?;
        Ok((Self { path: path.to_owned(), file, torn: false, values: PhantomData }, kept))
    }

    /// Appends a value, whole or not at all: what a full disk takes of a line is cut off again. A
    /// log has one writer at a time.
    ///
    /// # Errors
    /// [`StoreError::Io`], or [`StoreError::Unwritable`] for what JSON has no form for. Where the
    /// rest of a line cannot be cut off, every further value is refused.
    pub fn append(&mut self, value: &T) -> Result<(), StoreError> {
        let line = serde_json::to_string(value);
        let line =
            line.map_err(|source| StoreError::Unwritable { path: self.path.clone(), source })?;
        if self.torn {
            let reason = "its last line was torn by a disk that refused the rest";
            return Err(StoreError::Damaged { path: self.path.clone(), reason: reason.into() });
        }

        let end = self.file.metadata().map_err(StoreError::io("read", &self.path))?.len();
        let written = self.file.write_all((line + "\n").as_bytes());
        if written.is_err() {
            self.torn = self.file.set_len(end).is_err();
        }
        written.map_err(StoreError::io("append to", &self.path))
    }
}

/// The values of a log; none where there is no file. Nothing is written, so that its writer may go
/// on meanwhile: a last line that is being written is left out.
///
/// # Errors
/// [`StoreError::Io`], or [`StoreError::Json`] with the line that is damaged.
pub fn read_log<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, StoreError> {
    let bytes = read_if_there(path)?;
    whole_lines(&bytes).enumerate().map(|(index, line)| parse(path, index + 1, line)).collect()
}

fn read_if_there(path: &Path) -> Result<Vec<u8>, StoreError> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(StoreError::io("read", path)),
    }
}

/// The lines that end: a torn one is the last.
fn whole_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"))
}

fn parse<T: DeserializeOwned>(path: &Path, line: usize, text: &[u8]) -> Result<T, StoreError> {
    let value = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(text));
    value.map_err(|error| {
        let field = error.path().to_string();
        StoreError::Json { path: path.to_owned(), line, field, source: error.into_inner() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(path: &Path, last: u64) -> Vec<u64> {
        JsonLog::open(path, |step: &u64| *step <= last).unwrap().1
    }

    #[test]
    fn a_torn_last_line_is_dropped_and_later_values_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        fs::write(&path, b"1\n2\n3\n\"\xe6").unwrap(); // torn within a character

        assert_eq!(read_log::<u64>(&path).unwrap(), [1, 2, 3]);
        assert_eq!(opened(&path, 9), [1, 2, 3]);
        assert_eq!(fs::read(&path).unwrap(), b"1\n2\n3\n");
        assert_eq!(opened(&path, 2), [1, 2]);
        assert_eq!(fs::read(&path).unwrap(), b"1\n2\n");
    }

    #[test]
    fn a_line_that_is_torn_at_a_value_s_end_is_dropped_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        fs::write(&path, "1\n23").unwrap(); // of 234
        assert_eq!(opened(&path, 99), [1]);
    }

    #[test]
    fn a_last_line_that_the_disk_garbled_is_dropped_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        fs::write(&path, b"1\n2\n\0\0\n").unwrap();
        assert_eq!(opened(&path, 9), [1, 2]);
        assert_eq!(fs::read(&path).unwrap(), b"1\n2\n");
    }

    /// By a limit on the size of files, which stands for a disk that is full in the middle of a
    /// line; in a process of its own, which the limit is for.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_full_disk_takes_of_a_line_is_cut_off_again() {
        const CHILD: &str = "POSTTRAIN_STORE_FULL";
        let name = "log::tests::what_a_full_disk_takes_of_a_line_is_cut_off_again";
        let Ok(path) = std::env::var(CHILD) else {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("log.jsonl");
            // Blocks of 1,024 bytes; the signal that goes with the limit is not to end it.
            let run = format!(
                "trap '' XFSZ; ulimit -f 1; exec '{}' --exact {name}",
                std::env::current_exe().unwrap().display()
            );
            let status = std::process::Command::new("bash")
                .args(["-c", &run])
                .env(CHILD, &path)
                .stdout(std::process::Stdio::null())
                .status()
                .unwrap();
            assert!(status.success());
            let lines: Vec<String> = read_log(&path).unwrap();
            assert_eq!(lines, ["a".repeat(1000), "short".to_owned()]);
            return;
        };
        let (mut log, _) = JsonLog::open(Path::new(&path), |_: &String| true).unwrap();
        log.append(&"a".repeat(1000)).unwrap();
        assert!(log.append(&"b".repeat(1000)).is_err());
        log.append(&"short".to_owned()).unwrap();
    }

    #[test]
    fn damage_further_up_is_an_error_with_its_line_and_cuts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        fs::write(&path, "1\nbroken\n3\n").unwrap();

        let error = JsonLog::open(&path, |_: &u64| true).unwrap_err();
        assert!(matches!(error, StoreError::Json { line: 2, .. }), "{error}");
        assert!(read_log::<u64>(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\nbroken\n3\n");
    }
}
