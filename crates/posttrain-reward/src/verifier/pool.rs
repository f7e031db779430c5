//! The thread pool that verifiers run on, which makes room when one of them hangs.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use crate::RewardError;

/// Threads that may hang for each thread of the pool, before no more work is taken.
const STUCK_PER_THREAD: usize = 8;

/// Rayon's default number of threads, in a pool of its own: a caller that waits on a thread of
/// rayon's global pool does not wait for itself.
static POOL: LazyLock<Result<Pool, ThreadPoolBuildError>> = LazyLock::new(|| Pool::new(0));

/// Runs `work` on the pool, under the name of the reward that it belongs to.
pub(crate) fn run(
    reward: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<Ticket, RewardError> {
    let pool = POOL.as_ref().map_err(|error| RewardError::failed(reward, "thread_pool", error))?;
    pool.run(work).map_err(|hanging| RewardError::failed(reward, "verifiers_hang", hanging))
}

/// Too many pieces of work hang. A thread cannot be killed, so that this is where their number
/// ends.
#[derive(Debug, thiserror::Error)]
#[error(
    "{stuck} verifier threads are still at work after their time limit, and no more are started"
)]
struct Hanging {
    stuck: usize,
}

/// A pool whose threads are replaced when half of them are stuck, and a queue that outlives them.
struct Pool {
    threads: usize,
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<VecDeque<Piece>>,
    current: Mutex<Arc<Generation>>,
    stuck: AtomicUsize,
}

/// The threads between two replacements.
struct Generation {
    pool: ThreadPool,
    stuck: AtomicUsize,
}

struct Piece {
    stage: Arc<Mutex<Stage>>,
    work: Box<dyn FnOnce() + Send>,
}

/// Where a piece of work stands.
enum Stage {
    Waiting,
    Running(Arc<Generation>),
    Over,
    /// Nobody waits any more; if it runs, its thread is stuck until it ends.
    Abandoned,
}

impl Pool {
    fn new(threads: usize) -> Result<Self, ThreadPoolBuildError> {
        let first = Arc::new(Generation::new(threads)?);
        let threads = first.pool.current_num_threads();
        let shared = Shared {
            queue: Mutex::default(),
            current: Mutex::new(first),
            stuck: AtomicUsize::new(0),
        };
        Ok(Self { threads, shared: Arc::new(shared) })
    }

    fn run(&self, work: impl FnOnce() + Send + 'static) -> Result<Ticket, Hanging> {
        let stuck = self.shared.stuck.load(Ordering::Relaxed);
        if stuck >= self.threads * STUCK_PER_THREAD {
            return Err(Hanging { stuck });
        }
        let stage = Arc::new(Mutex::new(Stage::Waiting));
        lock(&self.shared.queue)
            .push_back(Piece { stage: Arc::clone(&stage), work: Box::new(work) });
        let current = Arc::clone(&lock(&self.shared.current));
        self.shared.wake(&current);
        Ok(Ticket { stage, threads: self.threads, shared: Arc::clone(&self.shared) })
    }
}

impl Generation {
    fn new(threads: usize) -> Result<Self, ThreadPoolBuildError> {
        let builder = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("verifier-{index}"));
        Ok(Self { pool: builder.build()?, stuck: AtomicUsize::new(0) })
    }
}

impl Shared {
    /// Has a thread of `generation` take the next piece.
    fn wake(self: &Arc<Self>, generation: &Arc<Generation>) {
        let (shared, owner) = (Arc::clone(self), Arc::clone(generation));
        generation.pool.spawn(move || shared.run_next(&owner));
    }

    fn run_next(&self, generation: &Arc<Generation>) {
        let Some(Piece { stage, work }) = lock(&self.queue).pop_front() else { return };
        {
            let mut stage = lock(&stage);
            if matches!(*stage, Stage::Abandoned) {
                return;
            }
            *stage = Stage::Running(Arc::clone(generation));
        }
        work();
        if matches!(std::mem::replace(&mut *lock(&stage), Stage::Over), Stage::Abandoned) {
            generation.stuck.fetch_sub(1, Ordering::Relaxed);
            self.stuck.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Counts a thread of `generation` as stuck; new threads take over where half of them are.
    fn lose(self: &Arc<Self>, generation: &Arc<Generation>, threads: usize) {
        self.stuck.fetch_add(1, Ordering::Relaxed);
        let stuck = generation.stuck.fetch_add(1, Ordering::Relaxed) + 1;
        let mut current = lock(&self.current);
        if stuck * 2 < threads || !Arc::ptr_eq(&current, generation) {
            return;
        }
        // Without new threads the old ones go on; the count of stuck ones stops them in the end.
        let Ok(fresh) = Generation::new(threads) else { return };
        *current = Arc::new(fresh);
        // What still waits was promised to the old threads. A wake-up too many finds the queue
        // empty.
        let waiting = lock(&self.queue).len();
        (0..waiting).for_each(|_| self.wake(&current));
    }
}

/// A piece of work that somebody waits for. Dropped before it [is over](Self::over), the work is
/// abandoned.
pub(crate) struct Ticket {
    stage: Arc<Mutex<Stage>>,
    threads: usize,
    shared: Arc<Shared>,
}

impl Ticket {
    /// The result has come: the thread is free in a moment.
    pub(crate) fn over(self) {
        *lock(&self.stage) = Stage::Over;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut stage = lock(&self.stage);
        if matches!(*stage, Stage::Over) {
            return;
        }
        // Counted under the lock, so that the work cannot end in between and be counted back first.
        if let Stage::Running(generation) = std::mem::replace(&mut *stage, Stage::Abandoned) {
            self.shared.lose(&generation, self.threads);
        }
    }
}

/// Nothing panics while it holds a lock, so that a poisoned one is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::{Pool, STUCK_PER_THREAD};

    /// Work that hangs until its gate opens, and says when it began.
    fn hang(pool: &Pool, began: &Sender<()>) -> (super::Ticket, Sender<()>) {
        let (open, gate): (Sender<()>, Receiver<()>) = channel();
        let began = began.clone();
        let work = move || {
            began.send(()).unwrap();
            let _ = gate.recv();
        };
        (pool.run(work).unwrap(), open)
    }

    #[test]
    fn hanging_work_does_not_starve_the_rest() {
        let pool = Pool::new(2).unwrap();
        let (began, begun) = channel();
        let stuck: Vec<_> = (0..2).map(|_| hang(&pool, &began)).collect();
        stuck.iter().for_each(|_| begun.recv_timeout(Duration::from_secs(5)).unwrap());
        let (send, receive) = channel();
        // Queued behind threads that hang.
        let ticket = pool.run(move || send.send(7).unwrap()).unwrap();
        assert!(receive.recv_timeout(Duration::from_millis(100)).is_err());
        let (hanging, gates): (Vec<_>, Vec<_>) = stuck.into_iter().unzip();
        drop(hanging);
        assert_eq!(receive.recv_timeout(Duration::from_secs(5)), Ok(7));
        ticket.over();
        drop(gates);
    }

    #[test]
    fn hanging_work_is_bounded_and_forgiven_when_it_ends() {
        let pool = Pool::new(1).unwrap();
        let (began, begun) = channel();
        let mut gates = Vec::new();
        for _ in 0..STUCK_PER_THREAD {
            let (ticket, gate) = hang(&pool, &began);
            begun.recv_timeout(Duration::from_secs(5)).unwrap();
            drop(ticket);
            gates.push(gate);
        }
        let refused = pool.run(|| ()).err().unwrap();
        assert_eq!(refused.stuck, STUCK_PER_THREAD);
        drop(gates);
        let (send, receive) = channel();
        for _ in 0..500 {
            let send = send.clone();
            if let Ok(ticket) = pool.run(move || send.send(()).unwrap()) {
                receive.recv_timeout(Duration::from_secs(5)).unwrap();
                return ticket.over();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("threads that came back are still counted as stuck");
    }

    #[test]
    fn work_that_nobody_waits_for_is_not_begun() {
        let pool = Pool::new(1).unwrap();
        let (began, begun) = channel();
        let (first, gate) = hang(&pool, &began);
        begun.recv_timeout(Duration::from_secs(5)).unwrap();
        let (send, receive) = channel::<()>();
        drop(pool.run(move || send.send(()).unwrap()).unwrap());
        drop(gate);
        assert!(
            receive.recv_timeout(Duration::from_secs(5)).is_err(),
            "the work was dropped, and its sender with it"
        );
        first.over();
    }
}
