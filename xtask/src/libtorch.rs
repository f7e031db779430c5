//! libtorch itself: which one is used, that it is of the right version, and the links that lead to
//! it.

use std::fmt;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::form::{self, Form, Wanted, decide};
use crate::venv::{State, Venv, run};
use crate::workspace::{Workspace, remove_folder};
use crate::{disk, wheels};

/// The version that `tch` 0.26 binds.
pub const VERSION: &str = "2.13.0";

/// The libtorch that `.libtorch` leads to.
pub enum Libtorch {
    /// Our own, from PyPI.
    Installed(Form),
    /// Somebody else's: `LIBTORCH` names it, or the links led to it already.
    Other(PathBuf),
}

/// Makes `.libtorch/include` and `.libtorch/lib` lead to a libtorch of the right version.
pub fn ensure(workspace: &Workspace, venv: &Venv, wanted: Wanted) -> Result<Libtorch> {
    if let Some(folder) = named(workspace, std::env::var_os("LIBTORCH").map(PathBuf::from)) {
        return adopt(workspace, &folder, wanted);
    }
    match linked(workspace).filter(|_| wanted == Wanted::Whatever) {
        Some(folder) => Ok(Libtorch::Other(folder)),
        None => installed(workspace, venv, wanted),
    }
}

/// The folder in `LIBTORCH`, unless it is the workspace's own by whatever path: cargo sets it to
/// that when the user has not set it.
fn named(workspace: &Workspace, value: Option<PathBuf>) -> Option<PathBuf> {
    let ours = workspace.libtorch();
    let real = |folder: &Path| folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    value.filter(|folder| !folder.starts_with(&ours) && !real(folder).starts_with(real(&ours)))
}

fn adopt(workspace: &Workspace, folder: &Path, wanted: Wanted) -> Result<Libtorch> {
    if wanted != Wanted::Whatever {
        bail!(
            "LIBTORCH is set to {}, so nothing is installed: unset it, or leave --cpu and --cuda out",
            folder.display()
        );
    }
    let advice = || {
        format!(
            "LIBTORCH is {:?} (unset it, and set-up installs the right libtorch)",
            folder.display()
        )
    };
    let folder = folder.canonicalize().with_context(advice)?;
    check(&folder).with_context(advice)?;
    link(workspace, &folder)?;
    Ok(Libtorch::Other(folder))
}

/// Where the links lead, if that is a fit libtorch of somebody else's.
fn linked(workspace: &Workspace) -> Option<PathBuf> {
    let include = workspace.libtorch().join("include").canonicalize().ok()?;
    let lib = workspace.libtorch().join("lib").canonicalize().ok()?;
    let folder = lib.parent().filter(|folder| include.parent() == Some(folder))?;
    let ours = workspace.libtorch().join("venv").canonicalize().ok();
    (ours.is_none_or(|ours| !folder.starts_with(ours)) && check(folder).is_ok())
        .then(|| folder.to_owned())
}

/// Our own, installed or upgraded where needed.
fn installed(workspace: &Workspace, venv: &Venv, wanted: Wanted) -> Result<Libtorch> {
    let present = match venv.state() {
        State::Ready(form, choice)
            if torch_folder(venv).and_then(|folder| check(&folder)).is_ok() =>
        {
            Some((form, choice))
        }
        State::Ready(..) => {
            println!("the installed libtorch is damaged: installing it again");
            venv.set_state(&State::Unusable)?;
            None
        }
        _ => None,
    };
    let plan = decide(wanted, present, form::has_gpu);
    if let Some((form, choice)) = plan {
        if present.map(|(form, _)| form) != Some(form) {
            install(workspace, venv, form)?;
        }
        venv.set_state(&State::Ready(form, choice))?;
        remove_folder(&wheel_folder(workspace))?;
    }
    let folder = torch_folder(venv)?;
    check(&folder).context("the libtorch that pip installed does not serve")?;
    link(workspace, &folder)?;
    plan.or(present)
        .map(|(form, _)| Libtorch::Installed(form))
        .context("libtorch was not installed")
}

fn install(workspace: &Workspace, venv: &Venv, form: Form) -> Result<()> {
    println!(
        "installing libtorch {VERSION} ({}) into {}",
        form.name(),
        workspace.libtorch().display()
    );
    venv.clear_scratch()?;
    disk::require(
        &workspace.libtorch(),
        form.disk(),
        &format!("libtorch {VERSION} ({})", form.name()),
    )?;
    venv.open()?;
    let wheels = wheels::fetch(venv, form, &wheel_folder(workspace).join(venv.python_name()?))?;
    // An interruption from here on leaves packages half unpacked, which only a new environment puts
    // right.
    venv.set_state(&State::Unusable)?;
    println!("unpacking");
    run(venv
        .pip()?
        .args(["install", "--quiet", "--no-deps", "--no-index", "--no-compile"])
        .args(wheels))?;
    venv.clear_scratch()
}

fn wheel_folder(workspace: &Workspace) -> PathBuf {
    workspace.libtorch().join("wheels")
}

fn torch_folder(venv: &Venv) -> Result<PathBuf> {
    Ok(venv.packages()?.join("torch"))
}

/// Refuses a libtorch of another version, or one without headers or libraries.
pub fn check(folder: &Path) -> Result<()> {
    let (version, file) = version(folder)?;
    if version != VERSION {
        bail!("this workspace needs libtorch {VERSION}, and {} says {version}", file.display());
    }
    let library =
        if cfg!(target_os = "macos") { "lib/libtorch_cpu.dylib" } else { "lib/libtorch_cpu.so" };
    for part in ["include/torch/csrc/api/include/torch/torch.h", library] {
        if !folder.join(part).is_file() {
            bail!("there is no {} in it", folder.join(part).display());
        }
    }
    Ok(())
}

/// The version without its build (`+cpu`), and the file that says so. Only a folder that comes with
/// Python has the second.
fn version(folder: &Path) -> Result<(String, PathBuf)> {
    type Reader = fn(&str) -> Option<String>;
    let sources: [(&str, Reader); 3] = [
        ("build-version", |text| Some(text.trim().to_owned())),
        ("version.py", in_python),
        ("include/torch/headeronly/version.h", in_header),
    ];
    let read = |(name, reader): &(&str, Reader)| {
        let file = folder.join(name);
        let version = reader(&fs::read_to_string(&file).ok()?)?;
        Some((version.split('+').next().unwrap_or_default().to_owned(), file))
    };
    sources.iter().find_map(read).with_context(|| {
        let names = sources.map(|(name, _)| name).join(", ");
        format!("{} is no libtorch: none of {names} says a version", folder.display())
    })
}

/// From `__version__ = '2.13.0+cu130'`.
fn in_python(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
    Some(value.trim().trim_matches(['\'', '"']).to_owned())
}

/// From `#define TORCH_VERSION_MAJOR 2` and its like.
fn in_header(text: &str) -> Option<String> {
    let number = |part: &str| {
        let name = format!("#define TORCH_VERSION_{part} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).map(str::trim)
    };
    Some(format!("{}.{}.{}", number("MAJOR")?, number("MINOR")?, number("PATCH")?))
}

/// Points the two links at a libtorch, relative to themselves where it lies beside them, so that
/// the workspace may move.
fn link(workspace: &Workspace, libtorch: &Path) -> Result<()> {
    let folder = workspace.libtorch();
    for name in ["include", "lib"] {
        let path = folder.join(name);
        let target = libtorch.join(name);
        let target = target.strip_prefix(&folder).unwrap_or(&target);
        if fs::read_link(&path).is_ok_and(|current| current == target) {
            continue;
        }
        let beside = folder.join(format!("{name}.new"));
        let _ = fs::remove_file(&beside);
        symlink(target, &beside).and_then(|()| fs::rename(&beside, &path)).with_context(|| {
            format!("cannot link {} to {}; remove it", path.display(), target.display())
        })?;
    }
    Ok(())
}

impl fmt::Display for Libtorch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed(form) => {
                write!(out, "libtorch {VERSION} ({}), .libtorch", form.name())
            }
            Self::Other(folder) => {
                write!(out, "libtorch {VERSION}, .libtorch -> {}", folder.display())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    const PARTS: [(&str, &str); 3] = [
        ("include/torch/csrc/api/include/torch/torch.h", ""),
        ("lib/libtorch_cpu.so", ""),
        ("lib/libtorch_cpu.dylib", ""),
    ];

    #[test]
    fn every_source_of_the_version_is_read() {
        let python = "from typing import Optional\n__version__ = '2.13.0+cu130'\ndebug = False\n";
        let header = "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 13\n#define TORCH_VERSION_PATCH 0\n";
        for source in [
            ("build-version", "2.13.0+cpu\n"),
            ("version.py", python),
            ("include/torch/headeronly/version.h", header),
        ] {
            let folder = fake(&[&PARTS[..], &[source]].concat());
            check(folder.path()).unwrap();
        }
    }

    #[test]
    fn a_wrong_version_is_refused_with_the_file_that_says_it() {
        let folder = fake(&[&PARTS[..], &[("build-version", "2.1.0+cpu")]].concat());
        let error = check(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with("this workspace needs libtorch 2.13.0, and "), "{error}");
        assert!(error.ends_with("build-version says 2.1.0"), "{error}");
    }

    #[test]
    fn a_folder_without_version_or_library_is_refused() {
        assert!(check(fake(&PARTS).path()).unwrap_err().to_string().contains("is no libtorch"));
        let error = check(fake(&[("build-version", VERSION)]).path()).unwrap_err().to_string();
        assert!(error.contains("torch.h"), "{error}");
    }

    #[test]
    fn another_libtorch_is_linked_and_found_again() {
        let root = tempfile::tempdir().unwrap();
        let workspace = Workspace { root: root.path().canonicalize().unwrap() };
        fs::create_dir(workspace.libtorch()).unwrap();
        let other = fake(&[&PARTS[..], &[("build-version", VERSION)]].concat());
        assert_eq!(linked(&workspace), None);
        adopt(&workspace, other.path(), Wanted::Whatever).unwrap();
        assert_eq!(linked(&workspace), Some(other.path().canonicalize().unwrap()));
        assert!(adopt(&workspace, other.path(), Wanted::This(Form::Cuda)).is_err());
    }

    #[test]
    fn the_workspaces_own_folder_is_not_a_choice_of_the_users() {
        let root = tempfile::tempdir().unwrap();
        let workspace = Workspace { root: root.path().join("workspace") };
        fs::create_dir_all(workspace.libtorch()).unwrap();
        assert_eq!(named(&workspace, Some(workspace.libtorch())), None);
        symlink(&workspace.root, root.path().join("link")).unwrap();
        assert_eq!(named(&workspace, Some(root.path().join("link/.libtorch"))), None);
        assert_eq!(named(&workspace, Some("/opt/libtorch".into())), Some("/opt/libtorch".into()));
        assert_eq!(named(&workspace, None), None);
    }
}
