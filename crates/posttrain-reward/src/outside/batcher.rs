//! Samples that are asked for at the same time, put into one request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::BoxFuture;

/// Sends a whole batch and gives one answer for each item, in order.
pub(crate) trait SendBatch<I, O>: Send + Sync + 'static {
    fn send(&self, items: Vec<I>) -> BoxFuture<'_, Vec<O>>;
}

/// Collects items until there are `max_items` of them, or the first has waited for `max_wait`.
pub(crate) struct Batcher<I, O> {
    shared: Arc<Shared<I, O>>,
}

struct Shared<I, O> {
    max_items: usize,
    max_wait: Duration,
    sender: Box<dyn SendBatch<I, O>>,
    queue: Mutex<Queue<I, O>>,
}

struct Queue<I, O> {
    waiting: Batch<I, O>,
    /// Batches that have been taken, so that a timer knows whether its own is gone.
    taken: u64,
}

impl<I, O> Queue<I, O> {
    fn take(&mut self) -> Batch<I, O> {
        self.taken += 1;
        std::mem::take(&mut self.waiting)
    }
}

impl<I: Send + 'static, O: Send + 'static> Batcher<I, O> {
    pub(crate) fn new(max_items: usize, max_wait: Duration, sender: impl SendBatch<I, O>) -> Self {
        let queue = Mutex::new(Queue { waiting: Vec::new(), taken: 0 });
        Self { shared: Arc::new(Shared { max_items, max_wait, sender: Box::new(sender), queue }) }
    }

    /// The answer for `item`, or `None` where its batch was dropped by a runtime that shut down.
    ///
    /// Dropping the future takes the item out of a batch that is not sent yet, and leaves one that
    /// is to the others.
    pub(crate) async fn ask(&self, item: I) -> Option<O> {
        let (send, receive) = oneshot::channel();
        let next = self.shared.push(item, send);
        let shared = Arc::clone(&self.shared);
        // In a task of its own: a batch belongs to all that are in it.
        match next {
            Next::Send(batch) => drop(tokio::spawn(async move { shared.send(batch).await })),
            Next::Wait(taken) => drop(tokio::spawn(async move { shared.send_later(taken).await })),
            Next::Nothing => {}
        }
        receive.await.ok()
    }
}

/// Items with those who wait for their answers.
type Batch<I, O> = Vec<(I, oneshot::Sender<O>)>;

/// What an item that has come makes necessary.
enum Next<I, O> {
    /// It filled this batch.
    Send(Batch<I, O>),
    /// It began a batch, which is to be sent when time is up.
    Wait(u64),
    Nothing,
}

impl<I: 'static, O: 'static> Shared<I, O> {
    fn push(&self, item: I, receiver: oneshot::Sender<O>) -> Next<I, O> {
        let mut queue = self.lock();
        queue.waiting.push((item, receiver));
        match queue.waiting.len() {
            count if count >= self.max_items => Next::Send(queue.take()),
            1 => Next::Wait(queue.taken),
            _ => Next::Nothing,
        }
    }

    async fn send_later(&self, taken: u64) {
        tokio::time::sleep(self.max_wait).await;
        let batch = {
            let mut queue = self.lock();
            // Another batch than the one that began the wait is not due yet.
            if queue.taken != taken {
                return;
            }
            queue.take()
        };
        self.send(batch).await;
    }

    async fn send(&self, batch: Batch<I, O>) {
        // Whoever has given up is not asked for.
        let wanted = batch.into_iter().filter(|(_, receiver)| !receiver.is_canceled());
        let (items, receivers): (Vec<I>, Vec<_>) = wanted.unzip();
        if items.is_empty() {
            return;
        }
        for (receiver, answer) in receivers.into_iter().zip(self.sender.send(items).await) {
            // Nobody may wait any more; its time limit has told the caller.
            let _ = receiver.send(answer);
        }
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Queue<I, O>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use futures::future::{BoxFuture, join_all, ready};

    use super::{Batcher, SendBatch};

    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Vec<Vec<u32>>>>);

    impl SendBatch<u32, u32> for Recorder {
        fn send(&self, items: Vec<u32>) -> BoxFuture<'_, Vec<u32>> {
            self.0.lock().unwrap().push(items.clone());
            Box::pin(ready(items.into_iter().map(|item| item * 2).collect()))
        }
    }

    fn run(count: u32, max_items: usize, max_wait: Duration) -> Vec<Vec<u32>> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let recorder = Recorder::default();
        let batch = Batcher::new(max_items, max_wait, recorder.clone());
        let answers = runtime.block_on(join_all((0..count).map(|item| batch.ask(item))));
        assert_eq!(answers, (0..count).map(|item| Some(item * 2)).collect::<Vec<_>>());
        let sent = recorder.0.lock().unwrap().clone();
        let mut items: Vec<u32> = sent.concat();
        items.sort_unstable();
        assert_eq!(items, (0..count).collect::<Vec<_>>(), "each is sent once");
        assert!(sent.iter().all(|batch| (1..=max_items).contains(&batch.len())), "{sent:?}");
        sent
    }

    #[test]
    fn full_batches_do_not_wait() {
        let start = Instant::now();
        let sent = run(64, 16, Duration::from_secs(30));
        assert!(start.elapsed() < Duration::from_secs(10) && sent.len() == 4, "{sent:?}");
    }

    #[test]
    fn a_rest_waits_no_longer_than_agreed() {
        let start = Instant::now();
        let sent = run(5, 16, Duration::from_millis(100));
        assert_eq!(sent, [[0, 1, 2, 3, 4]]);
        assert!(
            start.elapsed() >= Duration::from_millis(100)
                && start.elapsed() < Duration::from_secs(10)
        );
    }

    #[test]
    fn one_by_one() {
        assert_eq!(run(7, 1, Duration::from_secs(30)).concat().len(), 7);
    }

    #[test]
    fn who_gives_up_is_not_sent() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let recorder = Recorder::default();
        let batch = Batcher::new(16, Duration::from_millis(50), recorder.clone());
        runtime.block_on(async {
            let given_up = tokio::time::timeout(Duration::from_millis(5), batch.ask(1)).await;
            assert!(given_up.is_err());
            assert_eq!(batch.ask(2).await, Some(4));
        });
        assert_eq!(*recorder.0.lock().unwrap(), [[2]]);
    }
}
