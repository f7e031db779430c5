//! One file's way from the hub into the cache, under names that have been checked.
//!
//! `hf-hub` asks for a file's name in the cache once more as it downloads it, and takes whatever the
//! second answer says; here the first is the only one.

use crate::DownloadProgress;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;
use ureq::Agent;
use ureq::config::RedirectAuthHeaders;
use ureq::http::StatusCode;

/// How long the process that fetches the same file is waited for.
const LOCK_ATTEMPTS: usize = 5;
const PIECE: usize = 1 << 16;

/// The client that files come by. A redirect to another host is followed without the token.
pub(crate) fn agent() -> Agent {
    Agent::config_builder().redirect_auth_headers(RedirectAuthHeaders::SameHost).build().into()
}

/// A file to be fetched.
pub(crate) struct Transfer<'a> {
    pub agent: &'a Agent,
    pub url: &'a str,
    pub token: Option<&'a str>,
    /// The file's name, as progress is told it.
    pub name: &'a str,
    /// Its length, beyond which nothing is taken.
    pub size: u64,
    /// Attempts after the first.
    pub retries: usize,
    pub progress: &'a dyn DownloadProgress,
}

impl Transfer<'_> {
    /// Fetches the file to `contents`, going on where an earlier attempt ended.
    pub fn run(&self, contents: &Path) -> io::Result<()> {
        let _lock = lock(&contents.with_extension("lock"))?;
        let part = contents.with_extension("part");
        let mut attempt = 0;
        loop {
            match self.attempt(&part) {
                Ok(()) => break,
                Err(error) if attempt >= self.retries => return Err(error),
                Err(_) => {
                    sleep(Duration::from_millis(300 << attempt.min(5)));
                    attempt += 1;
                }
            }
        }
        self.progress.finish(self.name);
        std::fs::rename(part, contents)
    }

    fn attempt(&self, part: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(part)?;
        let mut done = file.metadata()?.len();
        // What is longer than the file is of another one.
        if done > self.size {
            file.set_len(0)?;
            done = 0;
        }
        if done == self.size {
            self.progress.advance(self.name, done);
            return Ok(());
        }

        let mut request = self.agent.get(self.url).header("range", format!("bytes={done}-"));
        if let Some(token) = self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = request.call().map_err(io::Error::other)?;
        // A server that knows no ranges begins anew.
        if response.status() != StatusCode::PARTIAL_CONTENT {
            file.set_len(0)?;
            done = 0;
        }

        self.progress.advance(self.name, done);
        let mut body = response.into_body().into_reader().take(self.size - done);
        let mut piece = vec![0; PIECE];
        loop {
            let read = body.read(&mut piece)?;
            if read == 0 {
                break;
            }
            file.write_all(&piece[..read])?;
            self.progress.advance(self.name, read as u64);
            done += read as u64;
        }

        if done < self.size {
            let text = format!("the connection broke after {done} of {} bytes", self.size);
            return Err(io::Error::new(ErrorKind::UnexpectedEof, text));
        }
        file.sync_all()
    }
}

/// Keeps other processes from fetching the same contents meanwhile.
fn lock(path: &Path) -> io::Result<File> {
    let file = File::create(path)?;
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => sleep(Duration::from_secs(1)),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    let text = format!("another process fetches {}", path.display());
    Err(io::Error::new(ErrorKind::WouldBlock, text))
}

/// Puts `contents`, in the folder `blobs` of a model, under its name in a snapshot: a link as
/// Python's library makes it, or the file itself where there are no links.
pub(crate) fn put_in_snapshot(contents: &Path, snapshot: &Path, name: &str) -> io::Result<PathBuf> {
    let place = snapshot.join(name);
    if let Some(folder) = place.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::remove_file(&place) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => link(contents, &place, name)?,
    }
    Ok(place)
}

#[cfg(unix)]
fn link(contents: &Path, place: &Path, name: &str) -> io::Result<()> {
    // From `snapshots/<commit>/<name>` to `blobs/<hash>`.
    let up = "../".repeat(2 + name.matches('/').count());
    let file = contents.file_name().unwrap_or_default();
    std::os::unix::fs::symlink(Path::new(&up).join("blobs").join(file), place)
}

#[cfg(not(unix))]
fn link(contents: &Path, place: &Path, _name: &str) -> io::Result<()> {
    std::fs::rename(contents, place)
}
