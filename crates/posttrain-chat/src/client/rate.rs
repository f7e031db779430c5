//! Requests and tokens a minute.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How far ahead of its rate a bucket may run: providers that state limits a minute enforce them by
/// the second (OpenAI's guide to rate limits: "60,000 requests/minute may be enforced as 1,000
/// requests/second").
const BURST: Duration = Duration::from_secs(1);

/// A limit of units a minute. Each taker reserves its units at once and waits until they are due,
/// so that takers come in turn, and one that needs more than a burst waits longer instead of for
/// ever.
///
/// `governor` limits requests well, but refuses a cell weightier than its burst and cannot be
/// corrected afterwards, which tokens need: their number is known only when the answer is there.
#[derive(Debug)]
pub(crate) struct RateLimit {
    seconds_a_unit: f64,
    /// When everything reserved so far will be due.
    booked: Mutex<Instant>,
}

impl RateLimit {
    pub(crate) fn new(units_a_minute: f64) -> Self {
        let now = Instant::now();
        Self {
            seconds_a_unit: 60.0 / units_a_minute,
            booked: Mutex::new(now.checked_sub(BURST).unwrap_or(now)),
        }
    }

    /// Waits until `units` more may be used.
    pub(crate) async fn take(&self, units: f64) {
        sleep_until(self.reserve(units, Instant::now())).await;
    }

    /// Books units that were not foreseen, or gives back (negative) what was not used.
    pub(crate) fn correct(&self, units: f64) {
        let mut booked = self.booked.lock().unwrap_or_else(PoisonError::into_inner);
        let change =
            Duration::try_from_secs_f64(self.seconds_a_unit * units.abs()).unwrap_or_default();
        let moved =
            if units < 0.0 { booked.checked_sub(change) } else { booked.checked_add(change) };
        *booked = moved.unwrap_or(*booked);
    }

    fn reserve(&self, units: f64, now: Instant) -> Instant {
        let mut booked = self.booked.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (*booked).max(now.checked_sub(BURST).unwrap_or(now));
        let length = Duration::try_from_secs_f64(self.seconds_a_unit * units).unwrap_or_default();
        *booked = start.checked_add(length).unwrap_or(start);
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_a_second_and_then_the_rate() {
        let limit = RateLimit::new(600.0);
        let start = Instant::now();
        for _ in 0..11 {
            limit.take(1.0).await;
        }
        assert_eq!(start.elapsed().as_millis(), 0, "ten a second, and one that begins now");
        for _ in 0..20 {
            limit.take(1.0).await;
        }
        assert_eq!(start.elapsed().as_millis(), 2000);
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_a_burst_is_let_through_and_paid_for_after() {
        let limit = RateLimit::new(60.0);
        let start = Instant::now();
        limit.take(10.0).await;
        assert_eq!(start.elapsed().as_secs(), 0);
        limit.take(1.0).await;
        assert_eq!(start.elapsed().as_secs(), 9);
        limit.correct(-5.0);
        limit.correct(3.0);
        let before = Instant::now();
        limit.take(1.0).await;
        assert_eq!(before.elapsed().as_secs(), 0);
    }
}
