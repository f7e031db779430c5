//! Free space, asked for before it is needed.

use std::path::Path;

use anyhow::{Context, Result, bail};

const GIGABYTE: u64 = 1_000_000_000;

/// Refuses to begin where fewer than `needed` bytes are free.
pub fn require(folder: &Path, needed: u64, what: &str) -> Result<()> {
    let disk = rustix::fs::statvfs(folder)
        .with_context(|| format!("cannot ask for free space in {}", folder.display()))?;
    check(folder, disk.f_bavail.saturating_mul(disk.f_frsize), needed, what)
}

fn check(folder: &Path, free: u64, needed: u64, what: &str) -> Result<()> {
    if free < needed {
        let (needed, free) = (needed as f64 / GIGABYTE as f64, free as f64 / GIGABYTE as f64);
        bail!(
            "{what} needs {needed:.1} GB on the disk of {}, and {free:.1} GB are free: make room there",
            folder.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_space_is_said_with_both_numbers() {
        let error = check(Path::new("/data"), 1_250_000_000, 4 * GIGABYTE, "libtorch")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("needs 4.0 GB on the disk of /data, and 1.2 GB are free"),
            "{error}"
        );
        assert!(check(Path::new("/data"), 4 * GIGABYTE, 4 * GIGABYTE, "libtorch").is_ok());
    }

    #[test]
    fn the_disk_is_really_asked() {
        let folder = tempfile::tempdir().unwrap();
        assert!(require(folder.path(), 1, "a byte").is_ok());
        assert!(require(folder.path(), u64::MAX, "everything").is_err());
    }
}
