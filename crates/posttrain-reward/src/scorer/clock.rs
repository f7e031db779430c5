//! The clock of one sample's scoring, which stands still while a reward works under limits of its
//! own.
//!
//! A program of the policy's is ended by the limits of its sandbox, and is then wrong. Were the
//! scorer's time limit to end first, for the wait in the sandbox's queue or by the program's own
//! hanging, it would be an error instead, and a policy could choose that.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

/// How often a clock that stands still is looked at.
const LOOK: Duration = Duration::from_millis(100);

tokio::task_local! {
    static CLOCK: Arc<Clock>;
}

#[derive(Debug, Default)]
struct Clock(Mutex<Stops>);

/// When and for how long the clock has been stopped.
#[derive(Debug, Default)]
struct Stops {
    /// Who keeps it stopped now.
    holders: usize,
    /// Since when.
    since: Option<Instant>,
    /// How long it was stopped before.
    before: Duration,
}

impl Clock {
    fn stops(&self) -> MutexGuard<'_, Stops> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it has been stopped, and whether it is.
    fn stopped(&self) -> (Duration, bool) {
        let stops = self.stops();
        let now = stops.since.map(|since| since.elapsed()).unwrap_or_default();

        (stops.before + now, stops.holders > 0)
    }
}

/// Keeps the clock of the sample that is being scored stopped; dropped, lets it go on.
#[derive(Debug)]
pub(crate) struct Stopped(Option<Arc<Clock>>);

/// Stops the clock, if a scorer's runs here.
pub(crate) fn stop() -> Stopped {
    let clock = CLOCK.try_with(Arc::clone).ok();
    if let Some(clock) = &clock {
        let mut stops = clock.stops();
        stops.holders += 1;
        stops.since = stops.since.or_else(|| Some(Instant::now()));
    }

    Stopped(clock)
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let Some(clock) = &self.0 else { return };

        let mut stops = clock.stops();
        stops.holders -= 1;
        if stops.holders == 0
            && let Some(since) = stops.since.take()
        {
            stops.before += since.elapsed();
        }
    }
}

/// Waits for `work` for `limit` of its own clock, and no longer than until `end`; `None` where it
/// takes longer.
pub(crate) async fn within<F: Future>(
    limit: Duration,
    end: Option<Instant>,
    work: F,
) -> Option<F::Output> {
    let start = Instant::now();
    let clock = Arc::new(Clock::default());
    let mut work = pin!(CLOCK.scope(Arc::clone(&clock), work));

    loop {
        let (stopped, stands_still) = clock.stopped();
        let ran = start.elapsed().saturating_sub(stopped);
        let mut left = limit.saturating_sub(ran);
        if stands_still {
            left = left.max(LOOK);
        }
        if let Some(end) = end {
            left = left.min(end.saturating_duration_since(Instant::now()));
        }

        if left.is_zero() {
            return None;
        }
        if let Ok(output) = timeout(left, work.as_mut()).await {
            return Some(output);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::{stop, within};

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    const LIMIT: Duration = Duration::from_millis(300);

    #[test]
    fn a_clock_that_is_stopped_ends_nothing() {
        let output = run(within(LIMIT, None, async {
            let stopped = stop();
            sleep(3 * LIMIT).await;
            drop(stopped);
            7
        }));
        assert_eq!(output, Some(7));
    }

    #[test]
    fn what_is_not_stopped_counts() {
        assert_eq!(run(within(LIMIT, None, async { sleep(20 * LIMIT).await })), None);
        let output = run(within(LIMIT, None, async {
            let stopped = stop();
            sleep(LIMIT).await;
            drop(stopped);
            sleep(20 * LIMIT).await;
        }));
        assert_eq!(output, None);
    }

    #[test]
    fn a_deadline_counts_whatever_is_stopped() {
        let output = run(async {
            let end = Instant::now() + LIMIT;
            let work = async {
                let _stopped = stop();
                sleep(20 * LIMIT).await;
            };
            within(Duration::from_secs(60), Some(end), work).await
        });
        assert_eq!(output, None);
        assert!(run(within(LIMIT, None, async { stop() })).is_some());
    }
}
