//! The private virtual environments: one that libtorch is installed into and whose `pip` downloads,
//! one for servers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::form::{Choice, Form};
use crate::libtorch::VERSION;
use crate::python;
use crate::workspace::{Lock, Workspace, make_folder, remove_folder};

/// The virtual environment, there or not yet.
pub struct Venv<'a> {
    folder: PathBuf,
    scratch: PathBuf,
    lock: &'a Lock,
}

/// What a file in the environment says about it. It is written last, so that an environment which
/// an interruption left half made, or a wheel half unpacked, is never taken for a whole one.
#[derive(Debug, PartialEq, Eq)]
pub enum State {
    /// Half made, half unpacked, or of another version: to be made again.
    Unusable,
    /// `pip` works and torch is not installed.
    Empty,
    /// Torch is installed in this form.
    Ready(Form, Choice),
}

impl<'a> Venv<'a> {
    pub fn new(workspace: &Workspace, lock: &'a Lock) -> Self {
        Self {
            folder: workspace.libtorch().join("venv"),
            scratch: workspace.libtorch().join("tmp"),
            lock,
        }
    }

    /// The environment that servers for tests are installed into.
    pub fn for_servers(workspace: &Workspace, lock: &'a Lock) -> Self {
        Self {
            folder: workspace.servers().join("venv"),
            scratch: workspace.servers().join("tmp"),
            lock,
        }
    }

    /// The environment that the clients of the server's tests are installed into.
    pub fn for_sdk(workspace: &Workspace, lock: &'a Lock) -> Self {
        Self {
            folder: workspace.servers().join("sdk"),
            scratch: workspace.servers().join("tmp"),
            lock,
        }
    }

    pub fn state(&self) -> State {
        let state = fs::read_to_string(self.folder.join("state")).unwrap_or_default();
        if self.python().exists() { State::read(&state) } else { State::Unusable }
    }

    /// Written beside and renamed into place.
    pub fn set_state(&self, state: &State) -> Result<()> {
        let (beside, path) = (self.folder.join("state.new"), self.folder.join("state"));
        fs::write(&beside, state.text())
            .and_then(|()| fs::rename(&beside, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Makes the environment unless it is there and whole.
    pub fn open(&self) -> Result<()> {
        if self.state() == State::Unusable { self.make() } else { Ok(()) }
    }

    fn make(&self) -> Result<()> {
        let python = python::find()?;
        println!("making a virtual environment with {python}");
        remove_folder(&self.folder)?;
        let mut venv = Command::new(&python);
        venv.args(["-m", "venv"]).arg(&self.folder).stdin(self.lock.as_stdin()?);
        if !venv.status().with_context(|| format!("cannot run {python}"))?.success() {
            bail!(
                "{python} -m venv failed, as it says above (on Debian and Ubuntu: sudo apt install python3-venv)"
            );
        }
        // From 25.1 on, pip goes on where a connection broke off. An older one works too.
        let newer = self.pip()?.args(["install", "--quiet", "--upgrade", "pip>=25.2"]).status();
        if !newer.is_ok_and(|status| status.success()) {
            println!(
                "going on with the pip that Python brings: a broken connection starts a file again"
            );
        }
        self.set_state(&State::Empty)
    }

    /// The environment's `pip`, deaf to user settings that would install elsewhere. It downloads to
    /// a folder of ours: a machine's `/tmp` is often small, and what a killed one leaves is cleared
    /// by the next.
    pub fn pip(&self) -> Result<Command> {
        make_folder(&self.scratch)?;
        let mut pip = self.isolated_python()?;
        pip.args(["-m", "pip", "--no-input", "--disable-pip-version-check"]);
        pip.env("TMPDIR", &self.scratch).env("PIP_USER", "0");
        Ok(pip)
    }

    /// The environment's Python, blind to `PYTHONPATH` and the user's own packages.
    pub fn isolated_python(&self) -> Result<Command> {
        let mut python = Command::new(self.python());
        python.arg("-I").stdin(self.lock.as_stdin()?);
        Ok(python)
    }

    /// Downloads one wheel whole, without its dependencies.
    pub fn download(&self, requirement: &str, folder: &Path) -> Result<()> {
        let mut pip = self.pip()?;
        pip.args(["download", "--no-deps", "--only-binary=:all:"]);
        if self.pip_resumes() {
            pip.args(["--resume-retries", "20"]);
        }
        run(pip.arg("--dest").arg(folder).arg(requirement))
    }

    fn pip_resumes(&self) -> bool {
        let packages = self.packages().and_then(|folder| Ok(fs::read_dir(folder)?));
        packages.is_ok_and(|entries| {
            let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            names.filter_map(|name| pip_version(&name)).any(|version| version >= (25, 1))
        })
    }

    /// The folder that packages are unpacked into.
    pub fn packages(&self) -> Result<PathBuf> {
        Ok(self.folder.join("lib").join(self.python_name()?).join("site-packages"))
    }

    /// Such as `python3.12`: wheels of one Python do not fit another.
    pub fn python_name(&self) -> Result<String> {
        let lib = self.folder.join("lib");
        let entries =
            fs::read_dir(&lib).with_context(|| format!("cannot read {}", lib.display()))?;
        let mut names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names
            .find(|name| name.starts_with("python3."))
            .with_context(|| format!("no python3.* in {}", lib.display()))
    }

    /// Drops what a finished or an interrupted `pip` left.
    pub fn clear_scratch(&self) -> Result<()> {
        remove_folder(&self.scratch)
    }

    /// The environment's interpreter.
    pub fn python(&self) -> PathBuf {
        self.folder.join("bin/python")
    }
}

impl State {
    fn text(&self) -> String {
        match self {
            Self::Unusable => "unusable".into(),
            Self::Empty => "empty".into(),
            Self::Ready(form, choice) => format!("torch {VERSION} {} {choice:?}", form.name()),
        }
    }

    fn read(text: &str) -> Self {
        let forms = [Form::Cpu, Form::Cuda].into_iter();
        let ready = forms.flat_map(|form| {
            [Choice::Asked, Choice::Detected].map(|choice| Self::Ready(form, choice))
        });
        [Self::Empty]
            .into_iter()
            .chain(ready)
            .find(|state| state.text() == text)
            .unwrap_or(Self::Unusable)
    }
}

/// The version in the name of `pip`'s own folder of metadata, such as `pip-25.2.dist-info`.
fn pip_version(folder: &str) -> Option<(u32, u32)> {
    let version = folder.strip_prefix("pip-")?.strip_suffix(".dist-info")?;
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next().unwrap_or(0)))
}

/// Runs a `pip`, whose own messages go to the terminal.
pub fn run(pip: &mut Command) -> Result<()> {
    let status =
        pip.status().with_context(|| format!("cannot run {}", pip.get_program().display()))?;
    if !status.success() {
        bail!(
            "pip failed, as it says above. Set-up can be run again: files that are whole are not downloaded twice"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_reads_back_and_anything_else_is_unusable() {
        for state in [State::Unusable, State::Empty, State::Ready(Form::Cuda, Choice::Asked)] {
            assert_eq!(State::read(&state.text()), state);
        }
        for text in ["", "torch 2.13", "torch 1.0.0 cpu Asked", "empty\0"] {
            assert_eq!(State::read(text), State::Unusable, "{text:?}");
        }
    }

    #[test]
    fn pips_version_is_read_from_its_folder() {
        assert_eq!(pip_version("pip-25.2.dist-info"), Some((25, 2)));
        assert_eq!(pip_version("pip-26.dist-info"), Some((26, 0)));
        assert_eq!(pip_version("pipdeptree-25.2.dist-info"), None);
        assert!(pip_version("pip-23.2.1.dist-info") < Some((25, 1)));
    }
}
