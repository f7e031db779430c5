//! Work divided among threads, each with its share of libtorch's own.

use serde::{Deserialize, Serialize};
use std::panic::resume_unwind;
use std::thread;

/// How many threads share work on the CPU, each with a part of its own; a device always has one.
///
/// The same number gives the same results to the last bit; another number adds up, or rounds, in
/// another order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workers {
    /// As many as leave each enough work to be worth it, and at most as many as libtorch has
    /// threads.
    #[default]
    Auto,
    /// So many, at least 1.
    Count(usize),
}

/// Runs each job on a thread of its own, and `meanwhile` on the caller's; returns the results in
/// the order of the jobs.
///
/// libtorch divides every single operation among its threads, and on matrices of a few kilobytes
/// waking them costs more than they save. Jobs that have nothing to do with each other do better
/// with a thread each: every one gets an equal share of the threads that libtorch is set to, at
/// least one. One job alone runs on the caller's thread as it is, before `meanwhile`.
///
/// # Panics
/// If a job panics, with its panic, once all have ended.
///
/// ```
/// let (send, receive) = std::sync::mpsc::channel();
/// let jobs = vec![(1, send.clone()), (2, send)];
/// let mut seen = 0;
/// let doubled = posttrain_kernel::on_workers(
///     jobs,
///     |(number, send)| {
///         send.send(number).unwrap();
///         2 * number
///     },
///     || seen = receive.iter().sum(),
/// );
/// assert_eq!((doubled, seen), (vec![2, 4], 3));
/// ```
pub fn on_workers<J: Send, R: Send>(
    jobs: Vec<J>,
    work: impl Fn(J) -> R + Sync,
    meanwhile: impl FnOnce(),
) -> Vec<R> {
    if jobs.len() <= 1 {
        let results = jobs.into_iter().map(work).collect();
        meanwhile();
        return results;
    }

    let threads = tch::get_num_threads();
    let share = (threads / jobs.len() as i32).max(1);

    let results: Vec<thread::Result<R>> = thread::scope(|scope| {
        let spawn = |job| {
            let work = &work;
            scope.spawn(move || {
                set_threads(share);
                work(job)
            })
        };
        let handles: Vec<_> = jobs.into_iter().map(spawn).collect();
        meanwhile();
        handles.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });

    // The workers' setting is what threads born later would begin with.
    tch::set_num_threads(threads);

    results.into_iter().map(|result| result.unwrap_or_else(|panic| resume_unwind(panic))).collect()
}

/// Gives libtorch's operations on the calling thread this many threads, and threads born later as
/// many to begin with.
///
/// `tch::set_num_threads` alone would not last: a thread's first operation takes up whatever
/// another thread has set since.
///
/// ```
/// let threads = std::thread::spawn(|| {
///     posttrain_kernel::set_threads(1);
///     tch::get_num_threads()
/// });
/// assert_eq!(threads.join().unwrap(), 1);
/// ```
pub fn set_threads(count: i32) {
    // To ask is a first operation, too.
    tch::get_num_threads();
    tch::set_num_threads(count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_comes_through_and_the_threads_are_given_back() {
        let before = tch::get_num_threads();
        let panics = || on_workers(vec![1, 2], |job| assert_ne!(job, 2, "two"), || ());
        assert!(std::panic::catch_unwind(panics).is_err());
        assert_eq!(tch::get_num_threads(), before);
    }

    #[test]
    fn a_threads_setting_outlasts_those_of_others() {
        let threads = tch::get_num_threads();
        let lasting = thread::spawn(move || {
            set_threads(3);
            thread::spawn(|| set_threads(1)).join().unwrap();
            let sum = tch::Tensor::ones([300, 300], (tch::Kind::Float, tch::Device::Cpu))
                .sum(tch::Kind::Float);
            (sum.double_value(&[]), tch::get_num_threads())
        });
        assert_eq!(lasting.join().unwrap(), (90_000.0, 3));
        tch::set_num_threads(threads);
    }

    #[test]
    fn each_worker_has_its_share() {
        let threads = tch::get_num_threads();
        let shares = on_workers(vec![(); 2], |()| tch::get_num_threads(), || ());
        assert_eq!(shares, [(threads / 2).max(1); 2]);
    }
}
