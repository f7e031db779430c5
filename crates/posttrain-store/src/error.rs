//! What can go wrong with a file, and with which one.

use std::io;
use std::path::{Path, PathBuf};

/// An error of this crate. What it names is as it was before the call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was attempted, in words: "write", "lock".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's own error.
        source: io::Error,
    },
    /// A file is not JSON of the form that was asked for.
    #[error("{path}: line {line}, `{field}`: not of the form that was expected", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The path of the field, such as `models.math.steps`; `.` for the whole.
        field: String,
        /// The parser's answer.
        source: serde_json::Error,
    },
    /// A value has no form in JSON. Nothing was written.
    #[error("{path}: the value to be written has no form in JSON", path = path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The writer's answer.
        source: serde_json::Error,
    },
    /// A file is not as it was written.
    #[error("{path}: {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, in words.
        reason: String,
    },
    /// Another process holds a folder's lock.
    #[error("{path}: another process works here; wait for it, or give another folder", path = path.display())]
    Busy {
        /// The lock's file.
        path: PathBuf,
    },
}

impl StoreError {
    /// Names what was attempted, and on which file.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
