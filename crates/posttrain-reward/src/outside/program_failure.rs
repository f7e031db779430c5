//! How a program that gives rewards can fail.

use std::io;
use std::sync::Arc;

/// What a reward's program did instead of answering.
///
/// ```
/// use posttrain_reward::outside::ProgramFailure;
///
/// let failure = ProgramFailure::Exited { status: "exit status: 1".into() };
/// assert_eq!(failure.to_string(), "ended without an answer (exit status: 1)");
/// assert_eq!(failure.cause(), "program_exited");
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramFailure {
    /// It could not be started.
    #[error("could not be started")]
    NotStarted(#[source] Arc<io::Error>),
    /// It ended, or closed its output, while an answer was awaited.
    #[error("ended without an answer ({status})")]
    Exited {
        /// Its exit status, in words.
        status: String,
    },
    /// Its answer is longer than allowed.
    #[error("wrote a line of more than {limit} bytes")]
    LineTooLong {
        /// The limit, bytes.
        limit: usize,
    },
    /// It wrote more than one line for one request: which answer belongs to which request is not
    /// known.
    #[error("wrote more than one line for one request")]
    OutOfStep,
    /// Its pipes broke.
    #[error("could not be talked to")]
    Io(#[source] Arc<io::Error>),
    /// It was stopped by the clock while it would have run: the machine did not let it.
    #[error("was kept waiting by the machine, and stopped after {seconds} s")]
    KeptWaiting {
        /// The limit, in seconds by the clock.
        seconds: f64,
    },
    /// What keeps it from the rest of the machine could not be set up.
    #[error("was not begun, its sandbox failed: {reason}")]
    Sandbox {
        /// The end of what was said on standard error.
        reason: String,
    },
}

impl ProgramFailure {
    /// The key that this failure is counted by.
    ///
    /// ```
    /// assert_eq!(posttrain_reward::outside::ProgramFailure::OutOfStep.cause(), "program_out_of_step");
    /// ```
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::NotStarted(_) => "program_not_started",
            Self::Exited { .. } => "program_exited",
            Self::LineTooLong { .. } => "program_line_too_long",
            Self::OutOfStep => "program_out_of_step",
            Self::Io(_) => "program_io",
            Self::KeptWaiting { .. } => "program_kept_waiting",
            Self::Sandbox { .. } => "program_sandbox",
        }
    }
}
