//! JSON lines from standard input.

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use std::io::BufRead;

/// Reads every line that is not blank.
///
/// # Errors
/// Names the first line that is not what is expected.
pub fn read_lines<T: DeserializeOwned>(input: impl BufRead) -> Result<Vec<T>> {
    let mut values = Vec::new();
    for (index, line) in input.lines().enumerate() {
        let line = line.with_context(|| format!("standard input, line {}", index + 1))?;
        if !line.trim().is_empty() {
            values.push(serde_json::from_str(&line).with_context(|| format!("standard input, line {}", index + 1))?);
        }
    }
    Ok(values)
}
