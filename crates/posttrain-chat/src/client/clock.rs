//! A call's deadlines while it runs.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::client::Deadlines;
use crate::client::config::seconds;
use crate::{ChatError, Deadline};

/// The deadlines of one attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    connect_seconds: f64,
    read: Duration,
    attempt: Duration,
    attempt_end: Instant,
    total: Duration,
    total_end: Instant,
}

impl Clock {
    /// An attempt that begins now, of a call that ends at `total_end`.
    pub(crate) fn start(deadlines: &Deadlines, total_end: Instant) -> Self {
        let attempt = seconds(deadlines.attempt_seconds);
        Self {
            connect_seconds: deadlines.connect_seconds,
            read: seconds(deadlines.read_seconds),
            attempt,
            attempt_end: Instant::now() + attempt,
            total: seconds(deadlines.total_seconds),
            total_end,
        }
    }

    pub(crate) fn connect_seconds(&self) -> f64 {
        self.connect_seconds
    }

    /// Waits for one read or write, until the first deadline.
    pub(crate) async fn bound<T>(
        &self,
        endpoint: &str,
        work: impl Future<Output = T>,
    ) -> Result<T, ChatError> {
        let ends = [
            (Instant::now() + self.read, Deadline::Read, self.read),
            (self.attempt_end, Deadline::Attempt, self.attempt),
            (self.total_end, Deadline::Total, self.total),
        ];
        // Of equal ends the last one, which says the most.
        let (end, deadline, length) =
            ends.into_iter().rev().min_by_key(|end| end.0).unwrap_or(ends[2]);
        let endpoint = || endpoint.to_owned();
        let late = |_| ChatError::TimedOut {
            endpoint: endpoint(),
            deadline,
            seconds: length.as_secs_f64(),
        };
        timeout_at(end, work).await.map_err(late)
    }
}
