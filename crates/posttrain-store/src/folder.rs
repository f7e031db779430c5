//! Folders that are either the old ones or the new ones, and belong to one process at a time.

use crate::StoreError;
use crate::file::{UNFINISHED, folder_of};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

/// Writes a folder beside its place, then puts it there; what was there goes when the new one is in
/// place. The folder around it is made if it is not there.
///
/// A process that dies between the two renames leaves the old folder as `<name>.old`, and
/// [`recover_folder`] puts it back.
///
/// # Errors
/// Whatever `write` returns, or [`StoreError::Io`]; the old folder is then as it was.
///
/// ```
/// use posttrain_store::{StoreError, replace_file, replace_folder};
///
/// let parent = tempfile::tempdir().unwrap();
/// let state = parent.path().join("state");
/// replace_folder(&state, |fresh| {
///     replace_file(&fresh.join("weights"), b"...")?;
///     replace_file(&fresh.join("step"), b"7")
/// })?;
/// assert_eq!(std::fs::read(state.join("step")).unwrap(), b"7");
/// # Ok::<(), StoreError>(())
/// ```
pub fn replace_folder<E: From<StoreError>>(
    target: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let parent = folder_of(target);
    fs::create_dir_all(parent).map_err(StoreError::io("make", parent))?;
    let unfinished = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(parent);
    let unfinished = unfinished.map_err(StoreError::io("make a folder in", parent))?;

    write(unfinished.path())?;
    open_to_readers(unfinished.path())?;
    sync_folder(unfinished.path())?;

    let old = old_name(target);
    remove_if_there(&old)?;
    if target.exists() {
        fs::rename(target, &old).map_err(StoreError::io("move", target))?;
    }
    fs::rename(unfinished.keep(), target).map_err(StoreError::io("put in place", target))?;

    // The new folder is on the disk before the old one goes.
    sync_folder(parent)?;
    Ok(remove_if_there(&old)?)
}

/// Puts an old folder back if its replacement was cut off before the new one was in place, and
/// removes it if that was cut off behind.
///
/// # Errors
/// [`StoreError::Io`] names the folder.
pub fn recover_folder(target: &Path) -> Result<(), StoreError> {
    let old = old_name(target);
    if target.exists() {
        return remove_if_there(&old);
    }
    if old.exists() {
        fs::rename(&old, target).map_err(StoreError::io("put back", target))?;
    }
    Ok(())
}

/// A folder that is this process's own for as long as the lock lives; a process that dies lets go
/// of it.
#[derive(Debug)]
#[must_use = "the folder is free again when the lock is dropped"]
pub struct FolderLock {
    _file: File,
}

/// Keeps other processes from a folder, which is made if it is not there: they fail to lock it
/// meanwhile. Files and folders that its last owner was killed over while it wrote them are removed.
///
/// # Errors
/// [`StoreError::Busy`] where another one has it, [`StoreError::Io`] names the file.
///
/// ```
/// let run = tempfile::tempdir().unwrap();
/// let lock = posttrain_store::lock_folder(run.path())?;
/// assert!(posttrain_store::lock_folder(run.path()).is_err());
/// drop(lock);
/// assert!(posttrain_store::lock_folder(run.path()).is_ok());
/// # Ok::<(), posttrain_store::StoreError>(())
/// ```
pub fn lock_folder(folder: &Path) -> Result<FolderLock, StoreError> {
    fs::create_dir_all(folder).map_err(StoreError::io("make", folder))?;
    let path = folder.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(StoreError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {
            sweep(folder)?;
            Ok(FolderLock { _file: file })
        }
        Err(TryLockError::WouldBlock) => Err(StoreError::Busy { path }),
        Err(TryLockError::Error(source)) => Err(StoreError::io("lock", &path)(source)),
    }
}

/// What a folder that is being replaced is called meanwhile, behind its name.
pub(crate) const OLD: &str = ".old";

/// Removes what is still being written in a folder, where nobody is left to go on with it.
pub(crate) fn sweep(folder: &Path) -> Result<(), StoreError> {
    for name in entries(folder)?.iter().filter(|name| name.starts_with(UNFINISHED)) {
        let path = folder.join(name);
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(StoreError::io("remove", &path))?;
    }
    Ok(())
}

/// Brings a folder's list of files to the disk; theirs are there already.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync", folder))
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> Result<(), StoreError> {
    Ok(())
}

fn old_name(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(OLD);
    target.with_file_name(name)
}

/// The names of what lies in a folder, in no order; those that are no text are left out.
pub(crate) fn entries(folder: &Path) -> Result<Vec<String>, StoreError> {
    let entries = fs::read_dir(folder).map_err(StoreError::io("read", folder))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::io("read", folder))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    if path.exists() {
        fs::remove_dir_all(path).map_err(StoreError::io("remove", path))
    } else {
        Ok(())
    }
}

/// A temporary folder is its owner's alone; what is put in place is as readable as any other
/// folder.
#[cfg(unix)]
fn open_to_readers(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(StoreError::io("open to readers", path))
}

#[cfg(not(unix))]
fn open_to_readers(_path: &Path) -> Result<(), StoreError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(target: &Path, text: &str) -> Result<(), StoreError> {
        replace_folder(target, |dir| {
            fs::write(dir.join("f"), text).map_err(StoreError::io("write", dir))
        })
    }

    #[test]
    fn a_folder_is_one_process_s_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock_folder(&dir.path().join("math")).unwrap();
        let error = lock_folder(&dir.path().join("math")).unwrap_err();
        assert!(
            matches!(error, StoreError::Busy { .. }) && error.to_string().contains("math"),
            "{error}"
        );
        drop(held);
        assert!(lock_folder(&dir.path().join("math")).is_ok());
    }

    #[test]
    fn a_failed_writing_leaves_the_old_folder_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("state");
        write(&target, "one").unwrap();
        write(&target, "two").unwrap();

        let failed = replace_folder(&target, |_| Err(StoreError::Busy { path: "it".into() }));
        assert!(matches!(failed, Err(StoreError::Busy { .. })));
        assert_eq!(fs::read_to_string(target.join("f")).unwrap(), "two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_process_was_writing_goes_with_the_next_lock() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        fs::create_dir_all(run.join(".writing-abc/adapter")).unwrap();
        fs::write(run.join(".writing-abc/adapter/f"), "half").unwrap();
        fs::write(run.join(".writing-def"), "half").unwrap();
        write(&run.join("state"), "one").unwrap();

        // While another one has the folder nothing is touched.
        let held = OpenOptions::new().create(true).append(true).open(run.join("lock")).unwrap();
        held.try_lock().unwrap();
        assert!(lock_folder(&run).is_err());
        assert!(run.join(".writing-def").exists());
        drop(held);

        let _lock = lock_folder(&run).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["lock", "state"]);
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

    #[test]
    fn what_a_death_after_the_renames_left_goes() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("state");
        write(&target, "two").unwrap();
        fs::create_dir(old_name(&target)).unwrap();
        fs::write(old_name(&target).join("f"), "one").unwrap();

        recover_folder(&target).unwrap();
        assert_eq!(fs::read_to_string(target.join("f")).unwrap(), "two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        fs::create_dir(old_name(&target)).unwrap();
        write(&target, "three").unwrap();
        assert_eq!(fs::read_to_string(target.join("f")).unwrap(), "three");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
