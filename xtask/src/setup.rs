//! `cargo xtask setup`: what the workspace needs beside Rust, a C++ compiler and Python.

use anyhow::Result;

use crate::form::Wanted;
use crate::venv::Venv;
use crate::workspace::Workspace;
use crate::{compiler, demo_model, libtorch};

/// Makes sure that everything is there, in under two seconds when it is.
pub fn run(workspace: &Workspace, wanted: Wanted) -> Result<()> {
    compiler::find()?;
    let lock = workspace.lock()?;
    let venv = Venv::new(workspace, &lock);
    let libtorch = libtorch::ensure(workspace, &venv, wanted)?;
    let model = demo_model::ensure(workspace, &venv)?;
    println!("ready: {libtorch}");
    println!("ready: {}", model.strip_prefix(&workspace.root).unwrap_or(&model).display());
    Ok(())
}
