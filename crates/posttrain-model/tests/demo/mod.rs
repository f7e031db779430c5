//! The demonstration model, for tests that need real weights.

use posttrain_model::Checkpoint;
use std::io::Write;
use std::path::Path;

/// The checkpoint that `cargo xtask setup` fetches, or `None`, said aloud, where it has not been
/// run.
pub fn checkpoint() -> Option<Checkpoint> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !path.is_file() {
        // Not eprintln!, which a passing test keeps to itself.
        let line = format!(
            "SKIPPED: no demonstration model at {}; run `cargo xtask setup`\n",
            path.display()
        );
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return None;
    }
    Some(Checkpoint::open(&path).unwrap())
}

/// A fixture's JSON.
#[allow(dead_code, reason = "some of the tests have no fixture")]
pub fn json(path: &str) -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}
