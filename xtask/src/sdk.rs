//! The packages that tests speak with: Tinker's SDK, OpenAI's and Anthropic's clients, MCP's and OpenEnv's servers, in
//! an environment of their own.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::disk;
use crate::venv::{State, Venv, run};
use crate::workspace::{Workspace, make_folder};

const REQUIREMENTS: &str = "crates/posttrain-server/tests/sdk/requirements.txt";

/// What is installed without what it asks for, which is a web interface's and a command line's.
const ALONE: &str = "crates/posttrain-server/tests/sdk/requirements-alone.txt";

/// Installs the clients unless they are there, and returns the Python that has them.
pub fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    let lock = workspace.lock()?;
    make_folder(&workspace.servers())?;
    let venv = Venv::for_sdk(workspace, &lock);
    let files = [REQUIREMENTS, ALONE].map(|file| workspace.root.join(file));
    let mut wanted = String::new();
    for file in &files {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        wanted += &format!("{text}\n");
    }

    // Written last, so that an interruption leaves nothing that looks whole.
    let marker = workspace.servers().join("sdk-installed");
    let installed = fs::read_to_string(&marker).is_ok_and(|text| text == wanted);
    if !installed || venv.state() == State::Unusable {
        disk::require(&workspace.servers(), 1_000_000_000, "the clients of the server's tests")?;
        println!("installing {}", wanted.split_whitespace().collect::<Vec<_>>().join(", "));
        venv.open()?;
        for (file, more) in files.iter().zip([[].as_slice(), &["--no-deps"]]) {
            let mut pip = venv.pip()?;
            run(pip.args(["install", "--quiet"]).args(more).arg("--requirement").arg(file))?;
        }
        venv.clear_scratch()?;
        fs::write(&marker, &wanted)
            .with_context(|| format!("cannot write {}", marker.display()))?;
    }
    Ok(venv.python())
}
