//! Ranks that are processes, by torch's c10d.

use crate::{Collective, CollectiveError, Rank};
use posttrain_tensor::{ProcessGroup, TcpStore, TensorError, bytes};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tch::{Device, Kind, Tensor};

/// Ranks that are processes, by torch's `TCPStore` and `ProcessGroupGloo`.
pub struct C10d {
    rank: Rank,
    store: Arc<TcpStore>,
    /// What this channel's keys in the store begin with.
    prefix: String,
    group: Mutex<ProcessGroup>,
    timeout: Duration,
}

impl C10d {
    /// Joins the other ranks that torchrun started.
    ///
    /// # Errors
    /// [`CollectiveError::Operation`] where the store cannot be reached, or not all ranks come
    /// within `timeout`.
    pub fn join(rank: &Rank, timeout: Duration) -> Result<Self, CollectiveError> {
        let (host, port) = &rank.store;
        let serves = rank.rank == 0 && !rank.agent_store;
        let store = TcpStore::open(host, *port, serves, timeout);
        let failed = |source: TensorError| failed(rank, "reach the ranks' store", &source, "");
        let store = Arc::new(store.map_err(failed)?);
        // Those of an earlier start are not to be met.
        let prefix = format!("/posttrain/{}", rank.restarts);
        Self::on(rank.clone(), store, prefix, timeout)
    }

    fn on(
        rank: Rank,
        store: Arc<TcpStore>,
        prefix: String,
        timeout: Duration,
    ) -> Result<Self, CollectiveError> {
        let interface = rank.interface.as_deref();
        let group = store.group(&prefix, interface, (rank.rank, rank.size), timeout);
        let group = group.map_err(|source| failed(&rank, "join the other ranks", &source, ""))?;
        Ok(Self { rank, store, prefix, group: Mutex::new(group), timeout })
    }

    /// Makes a call that all ranks have to make. How many calls each has begun is in the store, so
    /// that one which does not come can be named.
    fn call<T>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&mut ProcessGroup) -> Result<T, TensorError>,
    ) -> Result<T, CollectiveError> {
        let mut group = self.group.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = self.store.add(&self.calls_of(self.rank.rank), 1);
        let begun = begun.map_err(|source| failed(&self.rank, operation, &source, ""))?;
        call(&mut group).map_err(|source| match source {
            TensorError::Shim { .. } => {
                failed(&self.rank, operation, &source, &self.missing(begun))
            }
            other => other.into(),
        })
    }

    fn calls_of(&self, rank: usize) -> String {
        format!("{}/calls/{rank}", self.prefix)
    }

    /// The ranks that have not begun so many calls.
    fn missing(&self, begun: i64) -> String {
        let mut missing = Vec::new();
        for rank in 0..self.rank.size {
            match self.store.add(&self.calls_of(rank), 0) {
                Ok(calls) if calls < begun => missing.push(rank.to_string()),
                Ok(_) => {}
                Err(_) => return "who serves the ranks' store is gone: ".to_owned(),
            }
        }
        if missing.is_empty() {
            return String::new();
        }
        let seconds = self.timeout.as_secs_f64();
        format!("rank {} did not come within {seconds} s: ", missing.join(", "))
    }
}

impl Collective for C10d {
    fn rank(&self) -> usize {
        self.rank.rank
    }

    fn size(&self) -> usize {
        self.rank.size
    }

    fn all_reduce(&self, values: &Tensor) -> Result<(), CollectiveError> {
        self.call("sum over all ranks", |group| group.all_reduce(values))
    }

    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let own_length = Tensor::f_from_slice(&[own.len() as i64])?;
        let (lengths, all) = self.call("gather from all ranks", |group| {
            let lengths = Vec::<i64>::try_from(group.all_gather(&own_length)?.f_view(-1)?)?;
            // All send as much as the longest.
            let most = lengths.iter().copied().max().unwrap_or(0);
            let sent = Tensor::f_zeros([most.max(1)], (Kind::Uint8, Device::Cpu))?;
            sent.f_narrow(0, 0, own.len() as i64)?.f_copy_(&Tensor::f_from_slice(own)?)?;
            Ok((lengths, group.all_gather(&sent)?))
        })?;
        let rows = lengths.iter().zip(0..);
        rows.map(|(length, row)| to_bytes(&all.f_get(row)?.f_narrow(0, 0, *length)?)).collect()
    }

    fn broadcast(&self, root: usize, own: &[u8]) -> Result<Vec<u8>, CollectiveError> {
        let is_root = self.rank.rank == root;
        let told = self.call("tell all ranks", |group| {
            let length = Tensor::f_from_slice(&[own.len() as i64])?;
            group.broadcast(&length, root)?;
            let length = length.f_int64_value(&[0])?;
            let bytes = match is_root && length > 0 {
                true => Tensor::f_from_slice(own)?,
                false => Tensor::f_zeros([length], (Kind::Uint8, Device::Cpu))?,
            };
            if length > 0 {
                group.broadcast(&bytes, root)?;
            }
            Ok(bytes)
        })?;
        to_bytes(&told)
    }

    fn channel(&self, name: &str) -> Result<Arc<dyn Collective>, CollectiveError> {
        let prefix = format!("{}/{name}", self.prefix);
        Ok(Arc::new(Self::on(self.rank.clone(), self.store.clone(), prefix, self.timeout)?))
    }
}

impl fmt::Debug for C10d {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("C10d").field("rank", &self.rank).finish_non_exhaustive()
    }
}

fn to_bytes(tensor: &Tensor) -> Result<Vec<u8>, CollectiveError> {
    Ok(bytes("bytes", &tensor.f_contiguous()?)?.to_vec())
}

fn failed(
    rank: &Rank,
    operation: &'static str,
    source: &TensorError,
    missing: &str,
) -> CollectiveError {
    let Rank { rank, size, .. } = *rank;
    CollectiveError::Operation { rank, size, operation, reason: format!("{missing}{source}") }
}
