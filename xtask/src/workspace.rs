//! Where things lie in the workspace, and the lock that keeps two set-ups apart.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// The workspace's root folder.
pub struct Workspace {
    pub root: PathBuf,
}

/// Held while a set-up runs. Children inherit it as their (empty) standard input, so that a `pip`
/// that outlives a killed set-up still holds off the next one.
pub struct Lock(File);

impl Workspace {
    /// From the folder that cargo names; the one it was compiled in, when started without cargo.
    pub fn find() -> Result<Self> {
        let xtask = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let xtask = xtask.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root =
            xtask.parent().with_context(|| format!("{} lies in no workspace", xtask.display()))?;
        Ok(Self { root: root.to_owned() })
    }

    /// The folder that `LIBTORCH` names: the links, the virtual environment, and what is being
    /// downloaded.
    pub fn libtorch(&self) -> PathBuf {
        self.root.join(".libtorch")
    }

    /// The folder that models are kept in.
    pub fn models(&self) -> PathBuf {
        self.root.join(".models")
    }

    /// The folder of servers that tests can use: their environment, their logs, their addresses.
    pub fn servers(&self) -> PathBuf {
        self.root.join(".servers")
    }

    /// The cargo that runs us, in the root.
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root);
        cargo
    }

    /// Waits for another set-up to end, and keeps the next one out.
    pub fn lock(&self) -> Result<Lock> {
        make_folder(&self.libtorch())?;
        let path = self.libtorch().join("lock");
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                println!("another set-up is at work in this folder: waiting for it");
                file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        Ok(Lock(file))
    }
}

impl Lock {
    /// The lock as a child's standard input.
    pub fn as_stdin(&self) -> Result<Stdio> {
        Ok(self.0.try_clone().context("cannot hand the lock on")?.into())
    }
}

/// Makes a folder and those above it.
pub fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))
}

/// Removes a folder and what is in it; one that is not there is fine.
pub fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the folder {}", path.display()))
        }
        _ => Ok(()),
    }
}
