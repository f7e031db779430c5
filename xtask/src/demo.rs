//! `cargo xtask demo`: set-up, then the main job, in release, on the terminal.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::form::Wanted;
use crate::workspace::Workspace;
use crate::{exit_code, setup};

const EXAMPLE: &[&str] = &["run", "--release", "-p", "examples", "--example", "four_models", "--"];
const DEFAULTS: [(&str, &str); 2] =
    [("--config", "examples/configs/demo.toml"), ("--out", "runs/demo")];

/// Trains specialists and a generalist, and says where the report is.
pub fn run(workspace: &Workspace, extra: &[String]) -> Result<ExitCode> {
    setup::run(workspace, Wanted::Whatever)?;
    let arguments = with_defaults(extra);
    let status =
        workspace.cargo().args(EXAMPLE).args(&arguments).status().context("cannot run cargo")?;
    if status.success() {
        let out = workspace.root.join(value(&arguments, "--out").unwrap_or_default());
        println!("report: {}", out.join("report.html").display());
    }
    Ok(exit_code(status))
}

/// The user's arguments, after our own for what they leave open.
fn with_defaults(extra: &[String]) -> Vec<String> {
    let open = DEFAULTS.iter().filter(|(name, _)| value(extra, name).is_none());
    let ours = open.flat_map(|(name, value)| [name.to_string(), value.to_string()]);
    ours.chain(extra.iter().cloned()).collect()
}

/// What stands after `--name`, or after `--name=`.
fn value<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.strip_prefix(name) {
            Some("") => return rest.next().map(String::as_str),
            Some(tail) if tail.starts_with('=') => return Some(&tail[1..]),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_arguments_replace_ours() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let ours = words("--config examples/configs/demo.toml --out runs/demo");
        assert_eq!(with_defaults(&[]), ours);
        let given = with_defaults(&words("--out=runs/mine --steps 2"));
        assert_eq!(given, words("--config examples/configs/demo.toml --out=runs/mine --steps 2"));
        assert_eq!(value(&given, "--out"), Some("runs/mine"));
        assert_eq!(value(&given, "--config"), Some("examples/configs/demo.toml"));
        assert_eq!(value(&given, "--seed"), None);
    }
}
