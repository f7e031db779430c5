//! Ranks as torchrun tells them.

use crate::{Alone, Collective, CollectiveError};
use std::env;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// What torchrun says of a process in its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rank {
    /// `RANK`: this process among all, from 0.
    pub rank: usize,
    /// `WORLD_SIZE`: how many there are.
    pub size: usize,
    /// `LOCAL_RANK`: this process among those of its machine, from 0; which of its GPUs it uses.
    pub local: usize,
    /// `MASTER_ADDR` and `MASTER_PORT`: where the store is.
    pub store: (String, u16),
    /// `TORCHELASTIC_USE_AGENT_STORE`: whether torchrun serves the store, in place of rank 0.
    pub agent_store: bool,
    /// `TORCHELASTIC_RESTART_COUNT`: how often the ranks were started anew; each time their keys in
    /// the store are others.
    pub restarts: u64,
    /// `GLOO_SOCKET_IFNAME`: the network interface; by default the host name's.
    pub interface: Option<String>,
}

impl Rank {
    /// Reads the variables; none where `WORLD_SIZE` is not set.
    ///
    /// # Errors
    /// [`CollectiveError::Environment`] names a variable that is missing or out of range.
    pub fn read() -> Result<Option<Self>, CollectiveError> {
        Self::of(&|name| env::var(name).ok())
    }

    /// Reads the variables of a process that is told by `variable`.
    ///
    /// # Errors
    /// Those of [`Rank::read`].
    pub fn of(
        variable: &dyn Fn(&'static str) -> Option<String>,
    ) -> Result<Option<Self>, CollectiveError> {
        if variable("WORLD_SIZE").is_none() {
            return Ok(None);
        }
        let size: usize = number(variable, "WORLD_SIZE", None)?;
        let rank: usize = number(variable, "RANK", None)?;
        let wrong = |variable, expected, got: &dyn ToString| CollectiveError::Environment {
            variable,
            expected,
            got: got.to_string(),
        };
        if size == 0 {
            return Err(wrong("WORLD_SIZE", "1 and up", &size));
        }
        if rank >= size {
            return Err(wrong("RANK", "below WORLD_SIZE", &rank));
        }
        let host = variable("MASTER_ADDR").filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| wrong("MASTER_ADDR", "a host", &"none"))?;
        Ok(Some(Self {
            rank,
            size,
            local: number(variable, "LOCAL_RANK", Some(rank))?,
            store: (host, number(variable, "MASTER_PORT", None)?),
            agent_store: variable("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True"),
            restarts: number(variable, "TORCHELASTIC_RESTART_COUNT", Some(0))?,
            interface: variable("GLOO_SOCKET_IFNAME").filter(|name| !name.is_empty()),
        }))
    }

    /// Joins the others.
    ///
    /// # Errors
    /// [`CollectiveError::Operation`] where they do not come within `timeout`, which is each later
    /// call's deadline, too; [`CollectiveError::Unsupported`] where process groups are not bound.
    pub fn join(&self, timeout: Duration) -> Result<Arc<dyn Collective>, CollectiveError> {
        if self.size == 1 {
            return Ok(Arc::new(Alone));
        }
        #[cfg(target_os = "linux")]
        {
            Ok(Arc::new(crate::C10d::join(self, timeout)?))
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = timeout;
            Err(CollectiveError::Unsupported { size: self.size })
        }
    }
}

/// The ranks that torchrun started, or [`Alone`] without it. `timeout` is the deadline of joining
/// them and of every later call.
///
/// # Errors
/// Those of [`Rank::read`] and [`Rank::join`].
pub fn from_environment(timeout: Duration) -> Result<Arc<dyn Collective>, CollectiveError> {
    match Rank::read()? {
        Some(rank) => rank.join(timeout),
        None => Ok(Arc::new(Alone)),
    }
}

fn number<T: FromStr>(
    variable: &dyn Fn(&'static str) -> Option<String>,
    name: &'static str,
    default: Option<T>,
) -> Result<T, CollectiveError> {
    let text = variable(name);
    match (&text, default) {
        (None, Some(default)) => Ok(default),
        _ => text.as_ref().and_then(|text| text.parse().ok()).ok_or_else(|| {
            let (variable, expected) = (name, "a number, as torchrun sets it");
            let got = text.unwrap_or_else(|| "none".into());
            CollectiveError::Environment { variable, expected, got }
        }),
    }
}
