//! Ctrl-C ends a run after the step that it is in; a second one ends it at once.

use anyhow::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sets `stop` at the first interrupt, and exits at the second.
///
/// # Errors
/// If another handler is installed already.
pub fn stop_on_interrupt(stop: Arc<AtomicBool>) -> Result<()> {
    ctrlc::set_handler(move || {
        if stop.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!(
            "stopping after this step; the run goes on when it is started again (interrupt again to stop at once)"
        );
    })?;
    Ok(())
}
