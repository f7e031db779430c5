//! The Python that the private virtual environment is made with.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// The minor versions of Python 3 that torch has wheels for.
const SUPPORTED: std::ops::RangeInclusive<u32> = 10..=14;

/// Prints the version, then whether virtual environments can be made: Debian ships `venv` and
/// `ensurepip` apart.
const PROBE: &str = "import sys; print(sys.implementation.name, *sys.version_info[:2]); import venv, ensurepip; print('venv')";

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Fit,
    WithoutVenv(u32),
    Unfit(String),
}

/// A fit Python: the one that the environment variable `PYTHON` names, else the first fit one on
/// the PATH.
pub fn find() -> Result<String> {
    let named = std::env::var("PYTHON").ok().filter(|name| !name.is_empty());
    choose(named, |program| {
        let output =
            Command::new(program).args(["-c", PROBE]).stdin(Stdio::null()).output().ok()?;
        judge(&String::from_utf8_lossy(&output.stdout))
    })
}

fn choose(named: Option<String>, probe: impl Fn(&str) -> Option<Found>) -> Result<String> {
    let usual = || {
        ["python3".to_owned()]
            .into_iter()
            .chain(SUPPORTED.rev().map(|minor| format!("python3.{minor}")))
    };
    let candidates: Vec<String> = named.map_or_else(|| usual().collect(), |name| vec![name]);
    let mut seen = Vec::new();
    for program in &candidates {
        match probe(program) {
            Some(Found::Fit) => return Ok(program.clone()),
            Some(found) => seen.push((program, found)),
            None => {}
        }
    }
    if let Some((program, minor)) = seen.iter().find_map(|(program, found)| match found {
        Found::WithoutVenv(minor) => Some((program, minor)),
        _ => None,
    }) {
        bail!(
            "{program} (3.{minor}) cannot make virtual environments: its modules venv and ensurepip are missing. Install \
             them (Debian, Ubuntu: sudo apt install python3.{minor}-venv), or name another: PYTHON=/path/to/python3"
        );
    }
    let seen: Vec<String> =
        seen.iter().map(|(program, found)| format!("{program} is {found}")).collect();
    bail!(
        "no Python 3.{} to 3.{}: looked for {}{}. Install one (Debian, Ubuntu: sudo apt install python3 python3-venv; \
         Fedora: sudo dnf install python3; macOS: brew install python@3.13), or name one: PYTHON=/path/to/python3",
        SUPPORTED.start(),
        SUPPORTED.end(),
        candidates.join(", "),
        if seen.is_empty() { String::new() } else { format!(" ({})", seen.join(", ")) },
    );
}

/// Reads what [`PROBE`] printed; nothing where that was no Python.
fn judge(output: &str) -> Option<Found> {
    let mut lines = output.lines();
    let mut words = lines.next()?.split_whitespace();
    let (name, major, minor) =
        (words.next()?, words.next()?.parse::<u32>().ok()?, words.next()?.parse::<u32>().ok()?);
    if name != "cpython" || major != 3 || !SUPPORTED.contains(&minor) {
        return Some(Found::Unfit(format!("{name} {major}.{minor}")));
    }
    Some(if lines.next() == Some("venv") { Found::Fit } else { Found::WithoutVenv(minor) })
}

impl std::fmt::Display for Found {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fit => write!(out, "fit"),
            Self::WithoutVenv(minor) => write!(out, "3.{minor} without venv"),
            Self::Unfit(version) => write!(out, "{version}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_is_read() {
        assert_eq!(judge("cpython 3 11\nvenv\n"), Some(Found::Fit));
        assert_eq!(judge("cpython 3 12\n"), Some(Found::WithoutVenv(12)));
        assert_eq!(judge("cpython 3 9\nvenv\n"), Some(Found::Unfit("cpython 3.9".into())));
        assert_eq!(judge("pypy 3 11\nvenv\n"), Some(Found::Unfit("pypy 3.11".into())));
        assert_eq!(judge("command not found"), None);
    }

    #[test]
    fn an_old_python3_gives_way_to_a_newer_one() {
        let probe = |program: &str| match program {
            "python3" => judge("cpython 3 8\nvenv"),
            "python3.12" => judge("cpython 3 12\nvenv"),
            _ => None,
        };
        assert_eq!(choose(None, probe).unwrap(), "python3.12");
        let error = choose(Some("python3".into()), probe).unwrap_err().to_string();
        assert!(error.contains("python3 is cpython 3.8"), "{error}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = choose(None, |_| None).unwrap_err().to_string();
        assert!(error.contains("apt install python3 python3-venv"), "{error}");
        let error = choose(None, |_| judge("cpython 3 11")).unwrap_err().to_string();
        assert!(error.contains("apt install python3.11-venv"), "{error}");
    }
}
