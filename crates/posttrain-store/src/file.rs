//! Files that are there whole or not at all.

use crate::StoreError;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use tempfile::{Builder, NamedTempFile};

/// Names of files that are still being written begin like this; a process that was killed may leave
/// one behind.
pub(crate) const UNFINISHED: &str = ".writing-";

/// Puts a file with these bytes in place, whole or not at all.
///
/// It is written beside its place, flushed to the disk, and renamed, so that a reader sees either
/// the old file or the whole new one. Its folder is made if it is not there.
///
/// # Errors
/// [`StoreError::Io`] names the file, which is then as it was.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    replace_file_with(path, |file| file.write_all(bytes))
}

/// Puts a file in place, whole or not at all, whose bytes `write` writes piece by piece:
/// [`replace_file`] for what should not be in memory at once.
///
/// # Errors
/// [`StoreError::Io`], also with an error of `write`'s; the file is then as it was.
///
/// ```
/// use std::io::Write;
///
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("numbers.txt");
/// posttrain_store::replace_file_with(&path, |file| (1..4).try_for_each(|n| writeln!(file, "{n}")))?;
/// assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n2\n3\n");
/// # Ok::<(), posttrain_store::StoreError>(())
/// ```
pub fn replace_file_with(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), StoreError> {
    let folder = folder_of(path);
    std::fs::create_dir_all(folder).map_err(StoreError::io("make", folder))?;
    write_and_rename(folder, path, write).map_err(StoreError::io("write", path))
}

fn write_and_rename(
    folder: &Path,
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let unfinished = unfinished_file(folder)?;
    let (file, unfinished_path) = unfinished.into_parts();

    let mut file = BufWriter::new(file);
    write(&mut file)?;
    file.flush()?;
    file.get_ref().sync_all()?;

    // Until it is renamed, dropping the path removes the unfinished file.
    unfinished_path.persist(path).map_err(|error| error.error)
}

/// The folder that a path lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A temporary file is its owner's alone; what is renamed into place is for every reader that the
/// umask allows.
#[cfg(unix)]
fn unfinished_file(folder: &Path) -> io::Result<NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;

    let readable = std::fs::Permissions::from_mode(0o666);
    Builder::new().prefix(UNFINISHED).permissions(readable).tempfile_in(folder)
}

#[cfg(not(unix))]
fn unfinished_file(folder: &Path) -> io::Result<NamedTempFile> {
    Builder::new().prefix(UNFINISHED).tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "old").unwrap();

        let error = replace_file_with(&path, |file| {
            file.write_all(b"new")?;
            Err(io::Error::other("the disk is full"))
        });

        let error = error.unwrap_err();
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(source.to_string(), "the disk is full");
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_is_made_and_one_that_cannot_be_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/file");
        replace_file(&path, b"text").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"text");

        let error = replace_file(&path.join("beneath"), b"").unwrap_err();
        assert!(error.to_string().contains("new/folder/file"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_what_was_written() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        replace_file(&path, b"text").unwrap();

        let plain = folder.path().join("plain");
        fs::write(&plain, "text").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain));
    }
}
