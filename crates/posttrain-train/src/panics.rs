//! A panic as an error of the call that it came from.

use crate::TrainError;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What `work` gives; [`TrainError::Panicked`] where it panics.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, TrainError>) -> Result<T, TrainError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(TrainError::Panicked { reason: text(&*panic) }))
}

/// What a panic says.
fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}
