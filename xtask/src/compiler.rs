//! The C++ compiler that builds `tch`'s bindings.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

const HOW_TO_INSTALL: &str = "    Debian, Ubuntu:  sudo apt install g++
    Fedora:          sudo dnf install gcc-c++
    macOS:           xcode-select --install
or name one: CXX=/path/to/c++ cargo xtask setup";

/// The compiler that the `cc` crate will call: `CXX`, else `c++`.
pub fn find() -> Result<PathBuf> {
    find_in(env::var_os("CXX"), &env::var_os("PATH").unwrap_or_default())
}

fn find_in(cxx: Option<OsString>, path: &OsStr) -> Result<PathBuf> {
    let on_path = |program: &Path| {
        env::split_paths(path).map(|folder| folder.join(program)).find(|file| file.is_file())
    };
    let Some(cxx) = cxx.filter(|cxx| !cxx.is_empty()) else {
        if let Some(compiler) = on_path(Path::new("c++")) {
            return Ok(compiler);
        }
        if let Some(other) = ["g++", "clang++"].iter().find_map(|name| on_path(Path::new(name))) {
            let other = other.display();
            bail!(
                "there is a C++ compiler, {other}, but not under the name c++ that the build calls: export CXX={other}"
            );
        }
        bail!(
            "no C++ compiler: found neither c++, g++ nor clang++ on the PATH. Install one:\n{HOW_TO_INSTALL}"
        );
    };
    // `CXX` may hold a wrapper and flags ("ccache g++ -m64"): the first word is what must exist.
    let text = cxx.to_string_lossy().into_owned();
    let program = Path::new(text.split_whitespace().next().unwrap_or_default());
    match on_path(program) {
        Some(compiler) => Ok(compiler),
        None => {
            bail!(
                "CXX is set to {text:?}, and there is no such program. Unset it, or install one:\n{HOW_TO_INSTALL}"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::write;

    fn folder_with(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        names.iter().for_each(|name| write(folder.path().join(name), "").unwrap());
        folder
    }

    #[test]
    fn the_name_that_the_build_calls_is_taken() {
        let folder = folder_with(&["c++", "g++"]);
        assert_eq!(find_in(None, folder.path().as_os_str()).unwrap(), folder.path().join("c++"));
        assert_eq!(
            find_in(Some("g++ -m64".into()), folder.path().as_os_str()).unwrap(),
            folder.path().join("g++")
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let message = |names: &[&str], cxx: Option<&str>| {
            let folder = folder_with(names);
            find_in(cxx.map(Into::into), folder.path().as_os_str()).unwrap_err().to_string()
        };
        assert!(message(&[], None).contains("apt install g++"));
        assert!(message(&["clang++"], None).contains("export CXX="));
        assert!(message(&["c++"], Some("icpc")).contains("\"icpc\""));
    }
}
