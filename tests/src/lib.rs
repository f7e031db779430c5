//! Tests that cross crate borders live in `tests/`; this library finds what they need.

mod tiny_model;

pub use tiny_model::TinyModel;

use std::io::Write;
use std::path::{Path, PathBuf};

/// The workspace's root.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The demonstration model that `cargo xtask setup` fetches, or `None`, said aloud, where it has
/// not been run.
#[must_use]
pub fn demo_model() -> Option<PathBuf> {
    let path = workspace().join(".models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if path.is_file() {
        return Some(path);
    }
    skipped(&format!("no demonstration model at {}; run `cargo xtask setup`", path.display()));
    None
}

/// Says aloud that a test was skipped and why. (A passing test keeps what it prints by `eprintln!`
/// to itself.)
pub fn skipped(why: &str) {
    let _ = std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes());
}
