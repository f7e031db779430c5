//! The clients that the server is driven by in tests: Tinker's SDK and OpenAI's, in an environment
//! of their own.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::disk;
use crate::venv::{State, Venv, run};
use crate::workspace::{Workspace, make_folder};

const REQUIREMENTS: &str = "crates/posttrain-server/tests/sdk/requirements.txt";

/// Installs the clients unless they are there, and returns the Python that has them.
pub fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    let lock = workspace.lock()?;
    make_folder(&workspace.servers())?;
    let venv = Venv::for_sdk(workspace, &lock);
    let requirements = workspace.root.join(REQUIREMENTS);
    let wanted = fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;

    // Written last, so that an interruption leaves nothing that looks whole.
    let marker = workspace.servers().join("sdk-installed");
    let installed = fs::read_to_string(&marker).is_ok_and(|text| text == wanted);
    if !installed || venv.state() == State::Unusable {
        disk::require(&workspace.servers(), 1_000_000_000, "the clients of the server's tests")?;
        println!("installing {}", wanted.trim().replace('\n', ", "));
        venv.open()?;
        let mut pip = venv.pip()?;
        run(pip.args(["install", "--quiet", "--requirement"]).arg(&requirements))?;
        venv.clear_scratch()?;
        fs::write(&marker, &wanted)
            .with_context(|| format!("cannot write {}", marker.display()))?;
    }
    Ok(venv.python())
}
