//! Folders and files that are either the old ones or the new ones, never half of each.

use crate::TrainError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::path::{Path, PathBuf};

/// Writes a folder beside its place, then puts it there; what was there goes when the new one is in place.
///
/// A process that dies between the two renames leaves the old folder under `<name>.old`; [`recover_folder`] puts it back.
///
/// # Errors
/// Whatever `write` returns, or [`TrainError::Io`]; the old folder is then as it was.
pub fn replace_folder(target: &Path, write: impl FnOnce(&Path) -> Result<(), TrainError>) -> Result<(), TrainError> {
    let parent = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(TrainError::io(parent))?;
    let fresh = tempfile::Builder::new().prefix(".writing-").tempdir_in(parent).map_err(TrainError::io(parent))?;
    write(fresh.path())?;
    open_to_readers(fresh.path())?;
    let old = old_name(target);
    remove_if_there(&old)?;
    if target.exists() {
        fs::rename(target, &old).map_err(TrainError::io(target))?;
    }
    fs::rename(fresh.keep(), target).map_err(TrainError::io(target))?;
    remove_if_there(&old)
}

/// Puts an old folder back if a replacement was cut off before the new one was in place.
///
/// # Errors
/// [`TrainError::Io`] names the folder.
pub fn recover_folder(target: &Path) -> Result<(), TrainError> {
    let old = old_name(target);
    if !target.exists() && old.exists() {
        fs::rename(&old, target).map_err(TrainError::io(target))?;
    }
    Ok(())
}

/// Keeps other processes from a folder for as long as what is returned lives; a process that dies lets go of it.
///
/// # Errors
/// [`TrainError::Busy`] where another one has it, [`TrainError::Io`] names the file.
pub(crate) fn lock_folder(folder: &Path) -> Result<fs::File, TrainError> {
    fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
    let path = folder.join("lock");
    let options = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = options.map_err(TrainError::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(TrainError::Busy { path }),
        Err(fs::TryLockError::Error(source)) => Err(TrainError::io(&path)(source)),
    }
}

fn old_name(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(".old");
    target.with_file_name(name)
}

fn remove_if_there(path: &Path) -> Result<(), TrainError> {
    if path.exists() { fs::remove_dir_all(path).map_err(TrainError::io(path)) } else { Ok(()) }
}

/// A temporary folder is its owner's alone; a checkpoint is as readable as any other folder of the run.
#[cfg(unix)]
fn open_to_readers(path: &Path) -> Result<(), TrainError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(TrainError::io(path))
}

#[cfg(not(unix))]
fn open_to_readers(_path: &Path) -> Result<(), TrainError> {
    Ok(())
}

/// Writes a value as JSON.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), TrainError> {
    let json = serde_json::to_string_pretty(value).map_err(|source| TrainError::Json {
        path: path.into(),
        line: 0,
        source,
    })?;
    fs::write(path, json + "\n").map_err(TrainError::io(path))
}

/// Reads a value from JSON.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, TrainError> {
    let text = fs::read_to_string(path).map_err(TrainError::io(path))?;
    serde_json::from_str(&text).map_err(|source| TrainError::Json { path: path.into(), line: source.line(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(target: &Path, text: &str) -> Result<(), TrainError> {
        replace_folder(target, |dir| fs::write(dir.join("f"), text).map_err(TrainError::io(dir)))
    }

    #[test]
    fn a_folder_is_one_process_s_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock_folder(&dir.path().join("math")).unwrap();
        let error = lock_folder(&dir.path().join("math")).unwrap_err();
        assert!(matches!(error, TrainError::Busy { .. }) && error.to_string().contains("math"), "{error}");
        drop(held);
        lock_folder(&dir.path().join("math")).unwrap();
    }

    #[test]
    fn a_failed_writing_leaves_the_old_folder_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("state");
        write(&target, "one").unwrap();
        write(&target, "two").unwrap();
        assert!(replace_folder(&target, |_| Err(TrainError::NoGradient)).is_err());
        assert_eq!(fs::read_to_string(target.join("f")).unwrap(), "two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_death_between_the_renames_is_recovered_from() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("state");
        write(&target, "one").unwrap();
        fs::rename(&target, old_name(&target)).unwrap();
        recover_folder(&target).unwrap();
        assert_eq!(fs::read_to_string(target.join("f")).unwrap(), "one");
        recover_folder(&target).unwrap();
    }
}
