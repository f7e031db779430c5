//! Splits on disk: a folder a domain, a file a split.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::{DataError, Example, Split, Splits, write_jsonl};

/// A file that [`write_splits`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitFile {
    /// The file.
    pub path: PathBuf,
    /// The domain of its rows.
    pub domain: String,
    /// The split that its rows are.
    pub split: Split,
    /// How many rows it has.
    pub rows: u64,
    /// How many different groups they are of.
    pub groups: u64,
}

/// Writes `folder/<domain>/{train,validation,test}.jsonl`, each file whole or not at all.
///
/// ```
/// use posttrain_data::{Example, Splits, write_splits};
///
/// let folder = tempfile::tempdir().unwrap();
/// let splits = Splits { train: vec![Example::new("a", "math", "1 + 1?", "2")], ..Splits::default() };
/// let files = write_splits(folder.path(), &splits).unwrap();
/// assert_eq!(files[0].path, folder.path().join("math").join("train.jsonl"));
/// assert_eq!((files[0].rows, files[1].rows, files[2].rows), (1, 0, 0));
/// ```
///
/// # Errors
/// [`DataError::UnsafeDomain`], before anything is written, for a domain that would not name a
/// folder of its own inside `folder`; [`DataError::Store`] where a file cannot be written.
pub fn write_splits(
    folder: impl AsRef<Path>,
    splits: &Splits,
) -> Result<Vec<SplitFile>, DataError> {
    let domains = splits.domains();
    check_names(&domains)?;

    let mut written = Vec::new();
    for domain in domains {
        let home = folder.as_ref().join(domain);
        for split in Split::ALL {
            written.push(write_split(&home, domain, split, splits)?);
        }
    }
    Ok(written)
}

fn write_split(
    home: &Path,
    domain: &str,
    split: Split,
    splits: &Splits,
) -> Result<SplitFile, DataError> {
    let path = home.join(format!("{split}.jsonl"));
    let rows: Vec<&Example> = splits.domain(split, domain).collect();
    write_jsonl(&path, rows.iter().copied())?;
    let groups = rows.iter().map(|example| &example.group).collect::<BTreeSet<_>>().len() as u64;
    Ok(SplitFile { path, domain: domain.to_owned(), split, rows: rows.len() as u64, groups })
}

/// A domain's name comes out of a dataset that may be anybody's.
fn check_names(domains: &[&str]) -> Result<(), DataError> {
    let mut seen = HashMap::new();
    for &domain in domains {
        let twin = seen.insert(domain.to_lowercase(), domain);
        let reason = flaw(domain).or(twin.map(|_| "differs from another domain in case only"));
        if let Some(reason) = reason {
            return Err(DataError::UnsafeDomain { domain: domain.to_owned(), reason });
        }
    }
    Ok(())
}

fn flaw(name: &str) -> Option<&'static str> {
    const LONGEST: usize = 100;
    let flaws = [
        (name.trim().is_empty(), "is empty"),
        (name.len() > LONGEST, "is longer than 100 bytes"),
        (name.contains(['/', '\\']), "contains a path separator"),
        (
            name.contains([':', '*', '?', '"', '<', '>', '|']),
            "contains a character that some file systems refuse",
        ),
        (name.chars().any(char::is_control), "contains a control character"),
        (name.starts_with('.'), "begins with a dot"),
        (name.ends_with('.'), "ends with a dot"),
        (name != name.trim(), "begins or ends with white space"),
    ];

    flaws.into_iter().find(|(found, _)| *found).map(|(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_folder_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "../up",
            "..",
            ".",
            "/etc",
            "a/b",
            "a\\b",
            "nul\0",
            "line\nend",
            ".hidden",
            "C:",
            "x ",
            &"x".repeat(101),
        ] {
            let splits =
                Splits { train: vec![Example::new("a", name, "q", "a")], ..Splits::default() };
            let error = write_splits(folder.path(), &splits).unwrap_err();
            assert!(matches!(error, DataError::UnsafeDomain { .. }), "{name:?}: {error}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(flaw("Technology & Engineering"), None);
    }

    #[test]
    fn names_that_one_folder_would_serve_are_refused() {
        let error = check_names(&["Math", "math"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "domain \"math\" cannot name a folder: it differs from another domain in case only"
        );
    }
}
