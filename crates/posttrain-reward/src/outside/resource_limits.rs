//! What a program may use of the machine.

#[cfg(unix)]
use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

use crate::RewardError;

/// Limits of one process, set by `prlimit` of util-linux before the program begins; `None` leaves
/// what is inherited.
///
/// They are the kernel's `RLIMIT_AS`, `_CPU`, `_NPROC`, `_FSIZE` and `_NOFILE` (`man setrlimit`),
/// each for one process: a program with `n` processes may use `n` times the memory. Core dumps are
/// always off.
///
/// ```
/// use posttrain_reward::outside::ResourceLimits;
///
/// let limits = ResourceLimits { cpu_seconds: Some(10), ..ResourceLimits::default() };
/// assert!(limits.validate().is_ok());
/// assert!(ResourceLimits { cpu_seconds: Some(0), ..limits }.validate().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceLimits {
    /// Address space, bytes, at least 2²⁰. Programs on CUDA and some allocators reserve far more
    /// than they use.
    pub address_space_bytes: Option<u64>,
    /// Processor time, seconds, at least 1.
    pub cpu_seconds: Option<u64>,
    /// Processes and threads of the user, at least 1. The kernel counts those outside of the
    /// program, too, unless it has a user namespace of its own, and never limits root.
    pub processes: Option<u64>,
    /// Bytes of a file that is written, at least 1.
    pub file_size_bytes: Option<u64>,
    /// Open files, at least 16.
    pub open_files: Option<u64>,
}

impl ResourceLimits {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// use posttrain_reward::outside::ResourceLimits;
    ///
    /// assert!(ResourceLimits { open_files: Some(3), ..ResourceLimits::default() }.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        let ranges = [
            ("address_space_bytes", self.address_space_bytes, 1 << 20, "at least 1048576"),
            ("cpu_seconds", self.cpu_seconds, 1, "at least 1"),
            ("processes", self.processes, 1, "at least 1"),
            ("file_size_bytes", self.file_size_bytes, 1, "at least 1"),
            ("open_files", self.open_files, 16, "at least 16"),
        ];
        for (field, got, least, expected) in ranges {
            if let Some(got) = got.filter(|got| *got < least) {
                return Err(RewardError::InvalidConfig { field, got: got.to_string(), expected });
            }
        }
        Ok(())
    }

    /// Whether nothing is limited.
    #[cfg(unix)]
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The arguments of `prlimit` up to the program.
    #[cfg(unix)]
    pub(crate) fn arguments(&self) -> Vec<String> {
        let limits = [
            ("as", Resource::As, self.address_space_bytes),
            ("cpu", Resource::Cpu, self.cpu_seconds),
            ("nproc", Resource::Nproc, self.processes),
            ("fsize", Resource::Fsize, self.file_size_bytes),
            ("nofile", Resource::Nofile, self.open_files),
            ("core", Resource::Core, Some(0)),
        ];
        let given = limits.into_iter().filter_map(|(name, resource, limit)| {
            // What this process may not go beyond, its children may not either. Soft and hard: what
            // a program may raise again is no limit.
            let limit = limit?.min(getrlimit(resource).maximum.unwrap_or(u64::MAX));
            Some(format!("--{name}={limit}:{limit}"))
        });
        given.chain(["--".to_owned()]).collect()
    }
}
