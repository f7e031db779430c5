//! Numbered versions of a folder, of which the newest good one counts.

use crate::folder::{OLD, recover_folder, replace_folder};
use crate::json::{read_json, write_json_pretty};
use crate::{StoreError, folder};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The file that says what a version is made of.
const MANIFEST: &str = "manifest.json";

/// Versions of one thing beside each other in a folder, `<name>-<number>`: each whole, and sealed
/// with a list of its files, their lengths and checksums, so that one which the disk has lost a
/// part of is known for what it is.
///
/// ```
/// use posttrain_store::{StoreError, Versions, replace_file};
///
/// let folder = tempfile::tempdir().unwrap();
/// let versions = Versions::open(folder.path(), "step")?;
/// for number in [5, 10] {
///     versions.write(number, |fresh| replace_file(&fresh.join("weights"), b"..."))?;
/// }
/// std::fs::write(versions.path(10).join("weights"), b".")?; // the disk was full
///
/// let newest = versions.newest()?.unwrap();
/// assert_eq!((newest.number, newest.damaged.len()), (5, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Versions {
    root: PathBuf,
    name: &'static str,
}

/// The newest version that is whole.
#[derive(Debug)]
pub struct Version {
    /// Its number.
    pub number: u64,
    /// Its folder.
    pub path: PathBuf,
    /// Newer ones that are not, each with what is wrong with it; newest first.
    pub damaged: Vec<StoreError>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    files: BTreeMap<String, Sealed>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    bytes: u64,
    crc32: u32,
}

impl Versions {
    /// The versions in a folder, which is made if it is not there. What a process that died left
    /// unfinished is removed, so that no other process may be writing there.
    ///
    /// # Errors
    /// [`StoreError::Io`] names the folder.
    pub fn open(root: &Path, name: &'static str) -> Result<Self, StoreError> {
        fs::create_dir_all(root).map_err(StoreError::io("make", root))?;
        folder::sweep(root)?;
        for entry in folder::entries(root)? {
            if let Some(target) = entry.strip_suffix(OLD) {
                recover_folder(&root.join(target))?;
            }
        }
        Ok(Self::reader(root, name))
    }

    /// The versions in a folder, in which another process may be writing.
    #[must_use]
    pub fn reader(root: &Path, name: &'static str) -> Self {
        Self { root: root.into(), name }
    }

    /// The folder of a version.
    #[must_use]
    pub fn path(&self, number: u64) -> PathBuf {
        self.root.join(format!("{}-{number:06}", self.name))
    }

    /// Writes a version, whole or not at all; one of the same number is replaced.
    ///
    /// # Errors
    /// Whatever `write` returns, or [`StoreError::Io`]; the versions are then as they were.
    pub fn write<E: From<StoreError>>(
        &self,
        number: u64,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        replace_folder(&self.path(number), |fresh| {
            write(fresh)?;
            Ok(seal(fresh)?)
        })
    }

    /// The numbers that there are, lowest first.
    ///
    /// # Errors
    /// [`StoreError::Io`] names the folder.
    pub fn numbers(&self) -> Result<Vec<u64>, StoreError> {
        let entries = folder::entries(&self.root)?;
        let number = |entry: &String| {
            let digits = entry.strip_prefix(self.name)?.strip_prefix('-')?;
            digits.parse().ok().filter(|number| self.path(*number).ends_with(entry))
        };
        let mut numbers: Vec<u64> = entries.iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The newest version whose files are all as they were written; none where there are no
    /// versions.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] of the newest where there are some and none is good.
    pub fn newest(&self) -> Result<Option<Version>, StoreError> {
        let mut damaged = Vec::new();
        for number in self.numbers()?.into_iter().rev() {
            let path = self.path(number);
            match check(&path) {
                Ok(()) => return Ok(Some(Version { number, path, damaged })),
                Err(error) => damaged.push(error),
            }
        }
        // Beginning anew in silence would cost whatever the damaged ones still hold.
        damaged.into_iter().next().map_or(Ok(None), Err)
    }

    /// `Ok` for a version whose files are all as they were written.
    ///
    /// # Errors
    /// [`StoreError`] names the file that is not, or is not there.
    pub fn check(&self, number: u64) -> Result<(), StoreError> {
        check(&self.path(number))
    }

    /// Removes the versions whose number is not to be kept.
    ///
    /// # Errors
    /// [`StoreError::Io`] names the folder that could not be removed.
    pub fn retain(&self, keep: impl Fn(u64) -> bool) -> Result<(), StoreError> {
        for number in self.numbers()?.into_iter().filter(|number| !keep(*number)) {
            let path = self.path(number);
            fs::remove_dir_all(&path).map_err(StoreError::io("remove", &path))?;
        }
        Ok(())
    }
}

/// Writes down what a folder holds.
fn seal(folder: &Path) -> Result<(), StoreError> {
    write_json_pretty(&folder.join(MANIFEST), &Manifest { files: contents(folder)? })
}

/// `Ok` for a folder that holds what was written down.
fn check(folder: &Path) -> Result<(), StoreError> {
    let manifest: Manifest = read_json(&folder.join(MANIFEST))?;
    let there = contents(folder)?;
    for (name, sealed) in &manifest.files {
        let reason = match there.get(name) {
            None => "is missing".to_owned(),
            Some(found) if found.bytes != sealed.bytes => {
                format!("has {} bytes, {} were written", found.bytes, sealed.bytes)
            }
            Some(found) if found.crc32 != sealed.crc32 => {
                "has another checksum than what was written".to_owned()
            }
            Some(_) => continue,
        };
        return Err(StoreError::Damaged { path: folder.join(name), reason });
    }
    Ok(())
}

/// Lengths and checksums of the files beneath a folder, the list itself left out.
fn contents(folder: &Path) -> Result<BTreeMap<String, Sealed>, StoreError> {
    let mut files = BTreeMap::new();
    let mut folders = vec![String::new()];
    while let Some(within) = folders.pop() {
        for entry in folder::entries(&folder.join(&within))? {
            let name = format!("{within}{entry}");
            let path = folder.join(&name);
            if path.is_dir() {
                folders.push(name + "/");
            } else if name != MANIFEST {
                files.insert(name, sealed(&path).map_err(StoreError::io("read", &path))?);
            }
        }
    }
    Ok(files)
}

fn sealed(path: &Path) -> std::io::Result<Sealed> {
    let mut file = File::open(path)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut bytes = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(Sealed { bytes, crc32: hasher.finalize() });
        }
        hasher.update(&buffer[..read]);
        bytes += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replace_file;

    fn written(numbers: &[u64]) -> (tempfile::TempDir, Versions) {
        let dir = tempfile::tempdir().unwrap();
        let versions = Versions::open(&dir.path().join("versions"), "step").unwrap();
        for &number in numbers {
            let write = |fresh: &Path| {
                replace_file(&fresh.join("deep/weights"), format!("weights {number}").as_bytes())?;
                replace_file(&fresh.join("step"), b"step")
            };
            versions.write::<StoreError>(number, write).unwrap();
        }
        (dir, versions)
    }

    fn newest(versions: &Versions) -> (u64, Vec<String>) {
        let newest = versions.newest().unwrap().unwrap();
        (newest.number, newest.damaged.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_newest_that_is_whole_counts_and_what_is_wrong_with_the_others_is_told() {
        let (_dir, versions) = written(&[2, 9, 10, 1_000_000]);
        assert_eq!(newest(&versions), (1_000_000, vec![]));

        let last = versions.path(1_000_000).join("deep/weights");
        fs::write(&last, "weights 1000001").unwrap();
        let (number, damaged) = newest(&versions);
        assert_eq!(number, 10);
        assert!(damaged[0].contains("checksum") && damaged[0].contains("weights"), "{damaged:?}");

        fs::write(&last, "weights").unwrap();
        assert!(newest(&versions).1[0].contains("7 bytes, 15"));
        fs::remove_file(&last).unwrap();
        assert!(newest(&versions).1[0].contains("missing"));
        fs::write(versions.path(10).join(MANIFEST), "{").unwrap();
        let (number, damaged) = newest(&versions);
        assert_eq!((number, damaged.len()), (9, 2));
    }

    #[test]
    fn where_none_is_whole_nothing_is_begun_anew() {
        let (_dir, versions) = written(&[]);
        assert!(versions.newest().unwrap().is_none());
        let (_dir, versions) = written(&[1, 2]);
        for number in [1, 2] {
            fs::remove_file(versions.path(number).join("step")).unwrap();
        }
        let error = versions.newest().unwrap_err().to_string();
        assert!(error.contains("step-000002"), "{error}");
    }

    #[test]
    fn a_failed_version_leaves_the_others_and_what_a_death_left_is_swept() {
        let (dir, versions) = written(&[1]);
        let failed = versions.write(2, |fresh| {
            replace_file(&fresh.join("step"), b"2")?;
            Err(StoreError::Busy { path: "it".into() })
        });
        assert!(failed.is_err());
        assert_eq!(newest(&versions), (1, vec![]));

        let root = dir.path().join("versions");
        fs::create_dir(root.join(".writing-abc")).unwrap();
        fs::rename(versions.path(1), root.join("step-000001.old")).unwrap();
        let versions = Versions::open(&root, "step").unwrap();
        assert_eq!(newest(&versions), (1, vec![]));
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_a_version_is_left_alone() {
        let (dir, versions) = written(&[1, 2, 3]);
        let root = dir.path().join("versions");
        for name in ["step-7", "step-+00008", "other-000009", "step-000010.txt"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        assert_eq!(versions.numbers().unwrap(), [1, 2, 3]);
        versions.retain(|number| number == 2).unwrap();
        assert_eq!(versions.numbers().unwrap(), [2]);
        assert!(root.join("other-000009").exists());
    }
}
