//! The reward of code: a response's program is run against tests.

mod asserts;
mod block;
mod config;
mod execution;
mod output_match;
mod test_case;
mod workspace;

pub use crate::sandbox::Isolation;
pub use config::{CodeExecutionConfig, Unisolated};
pub use execution::CodeExecution;
pub use output_match::OutputMatch;
pub use workspace::{CommandRun, Workspace};
