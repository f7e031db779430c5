//! Rewards outside of this process: a program that reads and writes JSON lines, a server over HTTP.

mod batcher;
mod program_failure;
mod remote;
mod resource_limits;
#[cfg(unix)]
mod subprocess;
mod wire;
#[cfg(unix)]
mod worker;

pub use program_failure::ProgramFailure;
pub use remote::{Batching, Remote, RemoteConfig};
pub use resource_limits::ResourceLimits;
#[cfg(unix)]
pub use subprocess::{Subprocess, SubprocessConfig};
