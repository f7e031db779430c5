//! How a program ends.

use anyhow::Result;
use std::process::{ExitCode, Termination};

/// The exit code of a program, and in words on standard error what went wrong, cause by cause.
///
/// A `main` that returns an [`anyhow::Error`] prints a backtrace under `RUST_BACKTRACE` as well,
/// which many machines set; what goes wrong here is a file or an argument, and its message is for
/// users.
pub fn exit_code<T: Termination>(outcome: Result<T>) -> ExitCode {
    match outcome {
        Ok(value) => value.report(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{read_dir, read_to_string};
    use std::path::Path;

    #[test]
    fn every_program_ends_in_words() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let mut programs = 0;
        for entry in read_dir(examples).unwrap() {
            let path = entry.unwrap().path();
            let path = if path.is_dir() { path.join("main.rs") } else { path };
            let source = read_to_string(&path).unwrap();
            let by_error = source.contains("fn main() -> Result");
            assert!(!by_error, "{} prints a backtrace where there is one", path.display());
            programs += 1;
        }
        assert!(programs > 20, "{programs}");
    }
}
