//! The cache's folder: entries that are whole or not there, oldest out.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::{ChatError, ChatResponse};

/// Changes when old entries must not be read any more.
const VERSION: u32 = 1;
/// Entries are `<2 characters>/<62 characters>.json`.
const EXTENSION: &str = "json";
/// What a killed writer leaves; others of the same name are being written.
const UNFINISHED: &str = "unfinished";
/// Age at which an unfinished file has no writer any more.
const ABANDONED: Duration = Duration::from_secs(3600);
/// Of the bound, the part that is left after old entries went, so that they do not go one by one.
const LEFT: f64 = 0.9;
/// Of the bound, the part that a process writes at most before it looks again at what others have
/// written.
const UNSEEN: f64 = 1.0 / 16.0;

#[derive(Debug)]
pub(crate) struct CacheFolder {
    path: PathBuf,
    max_bytes: u64,
    tally: Mutex<Tally>,
}

/// What is known of the folder's size.
#[derive(Debug)]
struct Tally {
    seen: u64,
    written_since: u64,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    version: u32,
    /// Of the response's text, against damage that leaves valid JSON.
    digest: String,
    response: ChatResponse,
}

struct Found {
    path: PathBuf,
    bytes: u64,
    modified: SystemTime,
}

impl CacheFolder {
    pub(crate) fn open(path: PathBuf, max_bytes: u64) -> Result<Self, ChatError> {
        fs::create_dir_all(&path)
            .map_err(|error| ChatError::cache(&path, "the folder cannot be made", error))?;
        let folder =
            Self { path, max_bytes, tally: Mutex::new(Tally { seen: 0, written_since: 0 }) };
        let trimmed = folder.trim();
        trimmed
            .map_err(|error| ChatError::cache(&folder.path, "the folder cannot be read", error))?;
        Ok(folder)
    }

    /// An entry that is there and whole.
    pub(crate) fn read(&self, key: &str) -> Option<ChatResponse> {
        let mut text = String::new();
        let file = fs::File::open(self.entry(key)?).ok()?;
        file.take(self.max_bytes).read_to_string(&mut text).ok()?;
        let entry: Entry = serde_json::from_str(&text).ok()?;
        let whole = entry.version == VERSION && entry.digest == digest(key, &entry.response);
        whole.then_some(entry.response)
    }

    /// Writes beside and renames: a reader sees the whole entry or none.
    pub(crate) fn write(&self, key: &str, response: &ChatResponse) -> io::Result<()> {
        let entry =
            Entry { version: VERSION, digest: digest(key, response), response: response.clone() };
        let text = serde_json::to_vec(&entry)?;
        if text.len() as u64 > self.max_bytes {
            return Ok(());
        }
        let path = self.entry(key).ok_or_else(|| io::Error::other("a key that is no digest"))?;
        let folder = path.parent().unwrap_or(&self.path);
        fs::create_dir_all(folder)?;
        let mut beside = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
        beside.write_all(&text)?;
        persist(beside, &path)?;
        self.count(text.len() as u64)
    }

    fn entry(&self, key: &str) -> Option<PathBuf> {
        let (folder, file) = (key.get(..2)?, key.get(2..)?);
        Some(self.path.join(folder).join(file).with_extension(EXTENSION))
    }

    fn count(&self, bytes: u64) -> io::Result<()> {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.written_since += bytes;
        let full = tally.seen + tally.written_since > self.max_bytes;
        let stale = tally.written_since as f64 > UNSEEN * self.max_bytes as f64;
        drop(tally);
        if full || stale { self.trim() } else { Ok(()) }
    }

    /// Looks at all entries, and removes the oldest ones where they are too many.
    fn trim(&self) -> io::Result<()> {
        // Held throughout: one thread looks, and the others wait to learn the same.
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = self.list()?;
        let mut total: u64 = found.iter().map(|entry| entry.bytes).sum();
        if total > self.max_bytes {
            found.sort_by_key(|entry| entry.modified);
            for entry in found {
                if total as f64 <= LEFT * self.max_bytes as f64 {
                    break;
                }
                // Another process may have removed it first.
                let _ = fs::remove_file(&entry.path);
                total -= entry.bytes;
            }
        }
        *tally = Tally { seen: total, written_since: 0 };
        Ok(())
    }

    /// All entries; what killed writers left is removed on the way.
    fn list(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for folder in fs::read_dir(&self.path)?.flatten() {
            let Ok(files) = fs::read_dir(folder.path()) else { continue };
            for file in files.flatten() {
                let Ok(data) = file.metadata() else { continue };
                let modified = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                if file.file_name().to_string_lossy().starts_with(UNFINISHED) {
                    remove_abandoned(&file.path(), modified);
                } else if file.path().extension().is_some_and(|extension| extension == EXTENSION) {
                    found.push(Found { path: file.path(), bytes: data.len(), modified });
                }
            }
        }
        Ok(found)
    }
}

fn persist(beside: NamedTempFile, path: &Path) -> io::Result<()> {
    beside.persist(path).map(|_| ()).map_err(|error| error.error)
}

fn remove_abandoned(path: &Path, modified: SystemTime) {
    if modified.elapsed().is_ok_and(|age| age > ABANDONED) {
        // Another process may have removed it first.
        let _ = fs::remove_file(path);
    }
}

fn digest(key: &str, response: &ChatResponse) -> String {
    let text = serde_json::to_string(response).unwrap_or_default();
    format!("{:x}", Sha256::digest(format!("{key} {text}")))
}
