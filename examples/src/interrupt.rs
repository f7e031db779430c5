//! Ctrl-C ends a run after the step that it is in; a second one ends it at once.

use anyhow::Result;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

/// Flags that an interrupt sets.
static FLAGS: Mutex<Vec<Arc<AtomicBool>>> = Mutex::new(Vec::new());
static HANDLER: Once = Once::new();

/// Sets `stop` at the first interrupt, and exits at the second.
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

/// Ends the process as a kill does. `std::process::exit` would take libtorch's memory down while
/// its threads work in it.
fn end_at_once() -> ! {
    eprintln!("stopped at once");
    #[cfg(unix)]
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}
