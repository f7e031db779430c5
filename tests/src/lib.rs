//! Tests that cross crate borders live in `tests/`; this library finds what they need.

use std::path::{Path, PathBuf};

/// The workspace's root.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The demonstration model that `cargo xtask setup` fetches, or `None`, said aloud, where it has not been run.
pub fn demo_model() -> Option<PathBuf> {
    let path = workspace().join(".models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if path.is_file() {
        return Some(path);
    }
    eprintln!("SKIPPED: no demonstration model at {}; run `cargo xtask setup`", path.display());
    None
}
