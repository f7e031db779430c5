//! Several servers that serve the same: which one is next, and which one is left alone for a while.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use crate::ChatError;
use crate::client::BreakerConfig;
use crate::client::config::seconds;

/// What is known about the replicas. One call's use of a replica is a [`Lease`].
#[derive(Debug)]
pub(crate) struct Replicas {
    names: Vec<String>,
    failures: u32,
    pause: Duration,
    states: Mutex<Vec<State>>,
    changed: Notify,
}

#[derive(Debug, Clone)]
struct State {
    in_flight: usize,
    /// Failures in a row.
    failures: u32,
    health: Health,
    /// Until when the server asked to be left alone.
    rests_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Health {
    InService,
    OutUntil(Instant),
    /// Out of service, and one request is on its way to see.
    Probed,
}

/// What to do now.
#[derive(Debug, PartialEq)]
enum Pick {
    Use(usize),
    WaitUntil(Instant),
    /// A probe is out; what it finds decides.
    WaitForProbe,
}

impl Replicas {
    pub(crate) fn new(names: Vec<String>, config: &BreakerConfig) -> Arc<Self> {
        let state =
            State { in_flight: 0, failures: 0, health: Health::InService, rests_until: None };
        Arc::new(Self {
            states: Mutex::new(vec![state; names.len()]),
            names,
            failures: config.failures,
            pause: seconds(config.pause_seconds),
            changed: Notify::new(),
        })
    }

    /// The least loaded replica in service, another than `avoid` where there is one; waits while
    /// there is none. Nothing where none comes back before `end`.
    pub(crate) async fn lease(
        self: &Arc<Self>,
        avoid: Option<usize>,
        end: Instant,
    ) -> Option<Lease> {
        loop {
            let changed = self.changed.notified();
            let now = Instant::now();
            match self.pick(avoid, now) {
                Pick::Use(index) => {
                    return Some(Lease { replicas: Arc::clone(self), index, reported: false });
                }
                Pick::WaitUntil(time) if time > end => return None,
                Pick::WaitUntil(time) => {
                    let woken = timeout_at(time, changed).await.is_ok();
                    // All who waited for this moment do not come at once.
                    let wait = time.duration_since(now).min(Duration::from_secs(4));
                    let spread =
                        if woken { Duration::ZERO } else { wait.mul_f64(0.25 * fastrand::f64()) };
                    sleep(spread.min(end.saturating_duration_since(Instant::now()))).await;
                }
                Pick::WaitForProbe => timeout_at(end, changed).await.ok()?,
            }
        }
    }

    pub(crate) fn unavailable(&self, seconds: f64) -> ChatError {
        ChatError::Unavailable { replicas: self.names.len(), seconds }
    }

    /// Chooses, and counts the request in.
    fn pick(&self, avoid: Option<usize>, now: Instant) -> Pick {
        let mut states = self.lock();
        let rested = |state: &State| state.rests_until.is_none_or(|time| time <= now);
        let due = states.iter().position(|state| match state.health {
            Health::OutUntil(time) => time <= now && rested(state),
            _ => false,
        });
        let first = fastrand::usize(..states.len());
        let usable = (0..states.len()).map(|offset| (first + offset) % states.len());
        let usable = usable
            .filter(|&index| states[index].health == Health::InService && rested(&states[index]));
        let least = usable.min_by_key(|&index| (Some(index) == avoid, states[index].in_flight));
        let Some(index) = due.or(least) else {
            let times = states.iter().filter_map(|state| match state.health {
                Health::Probed => None,
                Health::OutUntil(time) => {
                    Some(state.rests_until.map_or(time, |rest| rest.max(time)))
                }
                Health::InService => state.rests_until,
            });
            return times.min().map_or(Pick::WaitForProbe, Pick::WaitUntil);
        };
        if due.is_some() {
            states[index].health = Health::Probed;
        }
        states[index].in_flight += 1;
        Pick::Use(index)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request's place at a replica. Dropped without a report, it says nothing about the replica.
#[derive(Debug)]
pub(crate) struct Lease {
    replicas: Arc<Replicas>,
    index: usize,
    reported: bool,
}

impl Lease {
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.replicas.names[self.index]
    }

    /// Tells what became of the request.
    pub(crate) fn report<T>(&mut self, outcome: &Result<T, ChatError>) {
        self.reported = true;
        let mut states = self.replicas.lock();
        let state = &mut states[self.index];
        match outcome {
            Err(error) if blames_server(error) => self.failed(state),
            // A refused request comes from a server that works.
            Ok(_) | Err(_) => self.worked(state),
        }
        if let Err(ChatError::Status { retry_after: Some(wait), .. }) = outcome {
            state.rests_until = state.rests_until.max(Some(Instant::now() + *wait));
        }
    }

    fn worked(&self, state: &mut State) {
        if state.health != Health::InService {
            tracing::info!(endpoint = self.endpoint(), "replica is back in service");
        }
        (state.failures, state.health) = (0, Health::InService);
    }

    fn failed(&self, state: &mut State) {
        state.failures = state.failures.saturating_add(1);
        let out = Health::OutUntil(Instant::now() + self.replicas.pause);
        match state.health {
            Health::InService if state.failures < self.replicas.failures => {}
            Health::InService => {
                tracing::warn!(
                    endpoint = self.endpoint(),
                    failures = state.failures,
                    "replica is out of service"
                );
                state.health = out;
            }
            Health::Probed => state.health = out,
            // A request from before: the pause is running.
            Health::OutUntil(_) => {}
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut states = self.replicas.lock();
        let state = &mut states[self.index];
        state.in_flight -= 1;
        if !self.reported && state.health == Health::Probed {
            state.health = Health::OutUntil(Instant::now());
        }
        drop(states);
        self.replicas.changed.notify_waiters();
    }
}

fn blames_server(error: &ChatError) -> bool {
    match error {
        ChatError::Status { status, .. } => *status >= 500,
        ChatError::Broken { .. }
        | ChatError::TimedOut { .. }
        | ChatError::TooLarge { .. }
        | ChatError::InvalidJson { .. }
        | ChatError::CutStream { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicas(count: usize, failures: u32) -> Arc<Replicas> {
        let names = (0..count).map(|index| format!("http://{index}")).collect();
        Replicas::new(names, &BreakerConfig { failures, pause_seconds: 5.0 })
    }

    fn status(status: u16, retry_after: Option<Duration>) -> Result<(), ChatError> {
        Err(ChatError::Status { endpoint: String::new(), status, body: String::new(), retry_after })
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_loaded_is_next() {
        let replicas = replicas(3, 5);
        let mut leases = Vec::new();
        for _ in 0..9 {
            leases.push(replicas.lease(None, soon()).await.unwrap());
        }
        assert!(replicas.lock().iter().all(|state| state.in_flight == 3));
        leases.retain(|lease| lease.index() != 1);
        assert_eq!(replicas.lease(None, soon()).await.unwrap().index(), 1);
        assert_ne!(replicas.lease(Some(1), soon()).await.unwrap().index(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_one_is_taken_out_and_probed_by_one_request() {
        let replicas = replicas(2, 2);
        for _ in 0..2 {
            let mut lease = replicas.lease(None, soon()).await.unwrap();
            while lease.index() != 0 {
                lease = replicas.lease(Some(1), soon()).await.unwrap();
            }
            lease.report(&status(500, None));
        }
        for _ in 0..20 {
            assert_eq!(replicas.lease(None, soon()).await.unwrap().index(), 1);
        }
        sleep(Duration::from_secs(5)).await;
        let mut probe = replicas.lease(None, soon()).await.unwrap();
        assert_eq!(probe.index(), 0);
        assert_eq!(replicas.lease(None, soon()).await.unwrap().index(), 1, "one probe at a time");
        probe.report(&status(503, None));
        drop(probe);
        assert_eq!(replicas.lease(None, soon()).await.unwrap().index(), 1);
        sleep(Duration::from_secs(5)).await;
        let mut probe = replicas.lease(None, soon()).await.unwrap();
        probe.report(&Ok(()));
        drop(probe);
        let indices = [
            replicas.lease(None, soon()).await.unwrap(),
            replicas.lease(None, soon()).await.unwrap(),
        ];
        assert_eq!(indices.iter().map(Lease::index).sum::<usize>(), 1, "both are in service");
    }

    #[tokio::test(start_paused = true)]
    async fn all_out_means_waiting_but_not_longer_than_the_call_may_take() {
        let replicas = replicas(1, 1);
        replicas.lease(None, soon()).await.unwrap().report(&status(500, None));
        let start = Instant::now();
        assert!(replicas.lease(None, start + Duration::from_secs(4)).await.is_none());
        assert_eq!(start.elapsed().as_secs(), 0, "it is known at once that waiting is no use");
        let probe = replicas.lease(None, soon()).await.unwrap();
        assert!((5..=6).contains(&start.elapsed().as_secs()));
        drop(probe);
        assert!(replicas.lease(None, soon()).await.is_some(), "an abandoned probe frees the place");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_asks_for_rest_gets_it() {
        let replicas = replicas(2, 5);
        let mut lease = replicas.lease(None, soon()).await.unwrap();
        let resting = lease.index();
        lease.report(&status(429, Some(Duration::from_secs(3))));
        drop(lease);
        for _ in 0..10 {
            assert_ne!(replicas.lease(None, soon()).await.unwrap().index(), resting);
        }
    }
}
