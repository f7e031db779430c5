//! Ctrl-C ends a run after the step that it is in; a second one ends it at once.

use anyhow::Result;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

/// Flags that an interrupt sets.
static FLAGS: Mutex<Vec<Arc<AtomicBool>>> = Mutex::new(Vec::new());
static HANDLER: Once = Once::new();
/// What a shell reports of a program that an interrupt ended.
const INTERRUPTED: i32 = 130;

/// Sets `stop` at the first interrupt, and exits with status 130 at the second.
///
/// # Errors
/// If another handler is installed already.
pub fn stop_on_interrupt(stop: Arc<AtomicBool>) -> Result<()> {
    FLAGS.lock().unwrap_or_else(PoisonError::into_inner).push(stop);
    let mut outcome = Ok(());
    HANDLER.call_once(|| outcome = ctrlc::set_handler(interrupt));
    Ok(outcome?)
}

fn interrupt() {
    let flags = FLAGS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut again = false;
    for flag in flags.iter() {
        again |= flag.swap(true, Ordering::Relaxed);
    }
    if again {
        end_at_once();
    }
    eprintln!(
        "stopping after this step; the run goes on when it is started again (interrupt again to stop at once)"
    );
}

/// Ends the process with the status of an interrupt. `std::process::exit` would take libtorch's
/// memory down while its threads work in it.
#[allow(unsafe_code, reason = "the standard library has no exit without handlers")]
fn end_at_once() -> ! {
    eprintln!("stopped at once");
    // SAFETY: it takes a number and touches nothing of this program's.
    unsafe { libc::_exit(INTERRUPTED) }
}
