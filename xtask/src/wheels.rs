//! The wheels that a form of libtorch consists of, downloaded one by one and kept until all are
//! installed, so that an interrupted set-up does not begin again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::form::Form;
use crate::venv::{Venv, run};
use crate::workspace::{make_folder, remove_folder};

/// Downloads what is not yet in `folder` and names the files.
pub fn fetch(venv: &Venv, form: Form, folder: &Path) -> Result<Vec<PathBuf>> {
    let requirements = match form {
        Form::Cpu => form.requirements(),
        Form::Cuda => with_dependencies(venv, form, folder)?,
    };
    let count = requirements.len();
    let numbered = requirements.iter().enumerate();
    numbered
        .map(|(index, requirement)| {
            println!("[{}/{count}] {requirement}", index + 1);
            fetch_one(venv, requirement, folder)
        })
        .collect()
}

/// Downloads into a folder of its own and moves the whole file, so that a file in `folder` is a
/// whole one.
fn fetch_one(venv: &Venv, requirement: &str, folder: &Path) -> Result<PathBuf> {
    if let Some(wheel) = find(requirement, folder)? {
        return Ok(wheel);
    }
    let unfinished = folder.join("unfinished");
    remove_folder(&unfinished)?;
    make_folder(&unfinished)?;
    venv.download(requirement, &unfinished)?;
    let wheel = find(requirement, &unfinished)?
        .with_context(|| format!("pip downloaded no wheel of {requirement}"))?;
    let whole = folder.join(wheel.file_name().unwrap_or_default());
    fs::rename(&wheel, &whole).with_context(|| format!("cannot write {}", whole.display()))?;
    Ok(whole)
}

/// Everything that `pip` would install, each at its exact version.
fn with_dependencies(venv: &Venv, form: Form, folder: &Path) -> Result<Vec<String>> {
    make_folder(folder)?;
    let report = folder.join("report.json");
    let mut pip = venv.pip()?;
    pip.args(["install", "--quiet", "--dry-run", "--only-binary=:all:", "--find-links"])
        .arg(folder);
    run(pip.arg("--report").arg(&report).args(form.requirements()))?;
    let text =
        fs::read_to_string(&report).with_context(|| format!("cannot read {}", report.display()))?;
    pinned(&text).with_context(|| format!("pip's report {} is not as expected", report.display()))
}

/// `name==version` of every package in the report of a dry run.
fn pinned(report: &str) -> Result<Vec<String>> {
    let report: Value = serde_json::from_str(report)?;
    let install = report["install"].as_array().context("no list \"install\"")?;
    let metadata = install.iter().map(|package| &package["metadata"]);
    metadata
        .map(|package| {
            let (name, version) = (package["name"].as_str(), package["version"].as_str());
            Ok(format!(
                "{}=={}",
                name.context("a package without a name")?,
                version.context("no version")?
            ))
        })
        .collect()
}

/// The wheel in `folder` that meets `name==version` or `name==version.*`.
fn find(requirement: &str, folder: &Path) -> Result<Option<PathBuf>> {
    make_folder(folder)?;
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.find(|path| {
        path.file_name().is_some_and(|name| meets(&name.to_string_lossy(), requirement))
    }))
}

/// Wheels are named `name-version[-build]-tags.whl`, in lower case and with `_` for `-` and `.` in
/// the name.
fn meets(file: &str, requirement: &str) -> bool {
    let normal = |name: &str| name.to_lowercase().replace(['-', '.'], "_");
    let (Some((name, version)), Some(stem)) =
        (requirement.split_once("=="), file.strip_suffix(".whl"))
    else {
        return false;
    };
    let mut parts = stem.split('-');
    let (file_name, file_version) =
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    normal(file_name) == normal(name)
        && match version.strip_suffix('*') {
            Some(beginning) => file_version.starts_with(beginning),
            None => {
                file_version == version
                    || file_version.split_once('+').is_some_and(|(public, _)| public == version)
            }
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wheel_meets_its_own_requirement_only() {
        let torch = "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl";
        assert!(meets(torch, "torch==2.13.0"));
        assert!(meets("torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl", "torch==2.13.0"));
        assert!(!meets(torch, "torch==2.13"));
        assert!(!meets(torch, "torchvision==2.13.0"));
        assert!(!meets("torch-2.13.0-cp311-cp311-linux_x86_64.whl.tmp", "torch==2.13.0"));
        assert!(meets("nvidia_cuda_cupti-13.0.85-py3-none-any.whl", "nvidia-cuda-cupti==13.0.*"));
        assert!(!meets("nvidia_cuda_cupti-13.1.2-py3-none-any.whl", "nvidia-cuda-cupti==13.0.*"));
        assert!(meets("Jinja2-3.1.6-py3-none-any.whl", "jinja2==3.1.6"));
    }

    #[test]
    fn a_report_becomes_pinned_requirements() {
        let report = r#"{"install": [{"metadata": {"name": "torch", "version": "2.13.0"}}]}"#;
        assert_eq!(pinned(report).unwrap(), ["torch==2.13.0"]);
        assert!(pinned(r#"{"install": [{"metadata": {"name": "torch"}}]}"#).is_err());
        assert!(pinned("{}").is_err());
    }
}
