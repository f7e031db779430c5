//! Whether a file is the one that the hub lists.

use crate::HubError;
use crate::listing::Listed;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Whether a file in the cache has the size that the hub lists, which costs nothing to see.
pub(crate) fn has_size(path: &Path, listed: &Listed) -> bool {
    let length = std::fs::metadata(path).map(|m| m.len()).ok();
    length.is_some_and(|length| listed.size.is_none_or(|size| size == length))
}

/// Checks a file's size and SHA-256, and removes it where one differs.
pub(crate) fn verify(path: &Path, listed: &Listed) -> Result<(), HubError> {
    let io = |source| HubError::Io { path: path.into(), source };
    let length = std::fs::metadata(path).map_err(io)?.len();
    if let Some(size) = listed.size.filter(|size| *size != length) {
        return Err(removed(path, "size", size.to_string(), length.to_string()));
    }

    let Some(expected) = &listed.sha256 else { return Ok(()) };
    let got = sha256(path).map_err(io)?;
    if got == *expected { Ok(()) } else { Err(removed(path, "SHA-256", expected.clone(), got)) }
}

fn removed(path: &Path, what: &'static str, expected: String, got: String) -> HubError {
    // The name in the snapshot is a link to the contents.
    if let Ok(contents) = std::fs::canonicalize(path) {
        let _ = std::fs::remove_file(contents);
    }
    let _ = std::fs::remove_file(path);
    HubError::Mismatch { path: path.into(), what, expected, got }
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];

    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }

    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
