//! The memory that a piece of work takes.

use anyhow::{Context, Result};
use serde_json::json;
use std::fs;
use std::path::PathBuf;

/// Runs `work` once and writes the most memory that the process held meanwhile, and what it held
/// before, in MiB, to `target/bench/memory/<name>.json`, where `cargo xtask bench` finds it.
///
/// Where the system keeps no account that can be reset (`/proc/self/clear_refs`), nothing is
/// written.
///
/// # Errors
/// The file that cannot be written.
pub fn measure_peak(name: &str, work: impl FnOnce()) -> Result<()> {
    let measurable = fs::write("/proc/self/clear_refs", "5").is_ok();
    let before = resident("VmRSS:");
    work();
    let (Some(before), Some(peak), true) = (before, resident("VmHWM:"), measurable) else {
        return Ok(());
    };
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bench/memory");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let path = folder.join(format!("{name}.json"));
    let record = json!({"before_mb": before, "peak_mb": peak});
    fs::write(&path, record.to_string()).with_context(|| path.display().to_string())
}

/// A field of the process's account of its memory, in MiB.
fn resident(field: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(kilobytes.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? / 1024.0)
}
