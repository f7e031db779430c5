//! Ranks that are threads of one process.

use crate::{Collective, CollectiveError};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tch::{Kind, Tensor};

/// Ranks that are threads of one process.
///
/// ```
/// use posttrain_collective::{Collective, Threads};
/// use std::time::Duration;
///
/// let ranks = Threads::of(3, Duration::from_secs(10));
/// let sums: Vec<f64> = std::thread::scope(|scope| {
///     let work = |rank: Threads| {
///         let own = tch::Tensor::from_slice(&[1.0f32 + rank.rank() as f32]);
///         rank.all_reduce(&own).map(|()| own.double_value(&[0]))
///     };
///     let threads: Vec<_> = ranks.into_iter().map(|rank| scope.spawn(move || work(rank))).collect();
///     threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Result<_, _>>()
/// })?;
/// assert_eq!(sums, [6.0; 3]);
/// # Ok::<(), posttrain_collective::CollectiveError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Threads {
    rank: usize,
    size: usize,
    timeout: Duration,
    hub: Arc<Hub>,
}

/// Where they meet, one table a channel.
#[derive(Debug, Default)]
struct Hub {
    tables: Mutex<BTreeMap<String, Arc<Table>>>,
}

#[derive(Debug, Default)]
struct Table {
    round: Mutex<Round>,
    moved: Condvar,
}

/// One call that all have to make.
#[derive(Debug, Default)]
struct Round {
    number: u64,
    given: BTreeMap<usize, Vec<u8>>,
    /// What was given, once all have, until all have taken it.
    all: Option<Arc<Vec<Vec<u8>>>>,
    taken: usize,
}

/// One channel of one rank.
#[derive(Debug)]
struct Seat {
    threads: Threads,
    table: Arc<Table>,
}

impl Threads {
    /// So many ranks, for a thread each; none waits longer than `timeout` for the others.
    #[must_use]
    pub fn of(size: usize, timeout: Duration) -> Vec<Self> {
        let hub = Arc::new(Hub::default());
        (0..size).map(|rank| Self { rank, size, timeout, hub: hub.clone() }).collect()
    }

    fn seat(&self, channel: &str) -> Seat {
        let table = lock(&self.hub.tables).entry(channel.to_owned()).or_default().clone();
        Seat { threads: self.clone(), table }
    }
}

impl Seat {
    /// Every rank's bytes.
    fn exchange(
        &self,
        operation: &'static str,
        own: Vec<u8>,
    ) -> Result<Arc<Vec<Vec<u8>>>, CollectiveError> {
        let Threads { rank, size, timeout, .. } = self.threads;
        let deadline = Instant::now() + timeout;
        let mut round = lock(&self.table.round);
        // Some may not have taken what the last call came to.
        while round.all.is_some() {
            round = self.wait(round, deadline, operation)?;
        }
        let number = round.number;
        round.given.insert(rank, own);
        if round.given.len() == size {
            let given = std::mem::take(&mut round.given);
            round.all = Some(Arc::new(given.into_values().collect()));
            self.table.moved.notify_all();
        }
        let all = loop {
            match &round.all {
                Some(all) if round.number == number => break all.clone(),
                _ => round = self.wait(round, deadline, operation)?,
            }
        };
        round.taken += 1;
        if round.taken == size {
            *round = Round { number: number + 1, ..Round::default() };
            self.table.moved.notify_all();
        }
        Ok(all)
    }

    fn wait<'a>(
        &self,
        round: MutexGuard<'a, Round>,
        deadline: Instant,
        operation: &'static str,
    ) -> Result<MutexGuard<'a, Round>, CollectiveError> {
        let Threads { rank, size, timeout, .. } = self.threads;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let missing: Vec<String> = (0..size)
                .filter(|other| !round.given.contains_key(other))
                .map(|other| other.to_string())
                .collect();
            let missing = missing.join(", ");
            let seconds = timeout.as_secs_f64();
            let reason = format!("rank {missing} did not come within {seconds} s");
            return Err(CollectiveError::Operation { rank, size, operation, reason });
        }
        let woken = self.table.moved.wait_timeout(round, left);
        Ok(woken.unwrap_or_else(PoisonError::into_inner).0)
    }
}

impl Collective for Seat {
    fn rank(&self) -> usize {
        self.threads.rank
    }

    fn size(&self) -> usize {
        self.threads.size
    }

    fn all_reduce(&self, values: &Tensor) -> Result<(), CollectiveError> {
        let kind = values.kind();
        let shape = values.size();
        let own = bytes_of(values)?;
        let all = self.exchange("sum over all ranks", own)?;
        let mut sum = Tensor::f_zeros(&shape, (kind, values.device()))?;
        for bytes in all.iter() {
            let other = Tensor::f_from_data_size(bytes, &shape, kind)?;
            let _ = sum.f_add_(&other)?;
        }
        let _guard = tch::no_grad_guard();
        values.shallow_clone().f_copy_(&sum)?;
        Ok(())
    }

    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        Ok((*self.exchange("gather from all ranks", own.to_vec())?).clone())
    }

    fn broadcast(&self, root: usize, own: &[u8]) -> Result<Vec<u8>, CollectiveError> {
        let own = if self.rank() == root { own.to_vec() } else { Vec::new() };
        Ok(self.exchange("tell all ranks", own)?[root].clone())
    }

    fn channel(&self, name: &str) -> Result<Arc<dyn Collective>, CollectiveError> {
        Ok(Arc::new(self.threads.seat(name)))
    }
}

impl Collective for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_reduce(&self, values: &Tensor) -> Result<(), CollectiveError> {
        self.seat("").all_reduce(values)
    }

    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.seat("").all_gather(own)
    }

    fn broadcast(&self, root: usize, own: &[u8]) -> Result<Vec<u8>, CollectiveError> {
        self.seat("").broadcast(root, own)
    }

    fn channel(&self, name: &str) -> Result<Arc<dyn Collective>, CollectiveError> {
        Ok(Arc::new(self.seat(name)))
    }
}

fn bytes_of(values: &Tensor) -> Result<Vec<u8>, CollectiveError> {
    Ok(match values.kind() {
        Kind::Double => Vec::<f64>::try_from(values.f_view(-1)?)?
            .iter()
            .flat_map(|value| value.to_ne_bytes())
            .collect(),
        _ => Vec::<f32>::try_from(values.f_view(-1)?)?
            .iter()
            .flat_map(|value| value.to_ne_bytes())
            .collect(),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is under a lock is changed whole or not at all.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
