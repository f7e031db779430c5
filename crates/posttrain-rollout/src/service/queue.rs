//! What clients and workers share: who waits for room, what each worker has to do, which policies
//! there are.

use super::{Published, Transition};
use crate::service::client::SampleEvent;
use crate::{PolicySnapshot, Request, RequestError, SamplingStats};
use futures::channel::{mpsc, oneshot};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A request's number within a service.
pub(crate) type Ticket = u64;

/// Whether a service still takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    /// What is accepted is finished.
    Draining,
    /// What is accepted is given up.
    Stopped,
}

/// What a worker is told.
pub(crate) enum Command {
    Submit(Box<Job>),
    Cancel(Ticket),
    Replace { old: Option<PolicySnapshot>, new: PolicySnapshot },
}

/// A request that there is room for.
pub(crate) struct Submission {
    pub request: Request,
    /// The name of the policy that samples, which may have got another one while the request waited
    /// for room.
    pub policy_name: Option<String>,
    pub deadline: Option<Instant>,
    pub tokens: bool,
}

/// Some samples of a request, for one worker.
pub(crate) struct Job {
    pub ticket: Ticket,
    pub request: Request,
    pub samples: Range<usize>,
    pub deadline: Option<Instant>,
    pub tokens: bool,
    pub events: mpsc::UnboundedSender<SampleEvent>,
}

/// Everything behind the lock.
struct Inner {
    state: State,
    next_ticket: Ticket,
    /// Samples that are accepted and not answered yet.
    pending: usize,
    /// Samples that wait for room, in the order of their coming.
    waiting: VecDeque<(usize, oneshot::Sender<()>)>,
    workers: Vec<Assigned>,
    policies: BTreeMap<String, PolicySnapshot>,
}

/// What one worker has been given.
#[derive(Default)]
struct Assigned {
    commands: VecDeque<Command>,
    /// Its samples that are not answered yet.
    samples: usize,
    /// What its engines have done.
    stats: SamplingStats,
}

/// The meeting place of clients and workers.
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    /// Told whenever a worker may have something to do.
    news: Condvar,
    max_pending: usize,
}

/// Samples that a client has room for.
pub(crate) enum Room {
    /// Now.
    Granted,
    /// Once the receiver hears of it.
    Later(oneshot::Receiver<()>),
    /// Never: the service takes nothing more.
    Closed,
}

impl Queue {
    pub fn new(workers: usize, max_pending: usize) -> Self {
        let inner = Inner {
            state: State::Open,
            next_ticket: 0,
            pending: 0,
            waiting: VecDeque::new(),
            workers: (0..workers).map(|_| Assigned::default()).collect(),
            policies: BTreeMap::new(),
        };
        Self { inner: Mutex::new(inner), news: Condvar::new(), max_pending }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while the lock is held; if it did, counters could be off, and nothing
        // unsafe follows.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for room for `samples` samples.
    pub fn room(&self, samples: usize) -> Room {
        let mut inner = self.lock();
        if inner.state != State::Open {
            return Room::Closed;
        }
        if inner.waiting.is_empty() && inner.fits(samples, self.max_pending) {
            inner.pending += samples;
            return Room::Granted;
        }

        let (send, receive) = oneshot::channel();
        inner.waiting.push_back((samples, send));
        Room::Later(receive)
    }

    /// Asks for room, and takes none if it is not there now.
    pub fn room_now(&self, samples: usize) -> Room {
        let mut inner = self.lock();
        match inner.state {
            State::Open if inner.waiting.is_empty() && inner.fits(samples, self.max_pending) => {
                inner.pending += samples;
                Room::Granted
            }
            State::Open => Room::Later(oneshot::channel().1),
            _ => Room::Closed,
        }
    }

    /// Gives back room that was granted and not used.
    pub fn give_back(&self, samples: usize) {
        let mut inner = self.lock();
        inner.pending -= samples;
        inner.let_in(self.max_pending);
        self.tell_the_end(inner);
    }

    /// Divides a request, for which there is room, among the workers that have the least to do.
    pub fn submit(
        &self,
        submission: Submission,
        events: &mpsc::UnboundedSender<SampleEvent>,
    ) -> Ticket {
        let Submission { mut request, policy_name, deadline, tokens } = submission;
        let mut inner = self.lock();
        if let Some(policy) = policy_name.and_then(|name| inner.policies.get(&name)) {
            request.policy = Some(policy.clone());
        }
        let ticket = inner.next_ticket;
        inner.next_ticket += 1;

        // Room that was granted before the service stopped is not work any more.
        if inner.state == State::Stopped {
            for sample in 0..request.samples {
                let outcome =
                    crate::Outcome { request: 0, sample, result: Err(RequestError::Cancelled) };
                let _ = events.unbounded_send(SampleEvent::Finished(outcome));
            }
            inner.pending -= request.samples;
            return ticket;
        }

        let workers = inner.workers.len();
        let parts = request.samples.div_ceil(SAMPLES_PER_PART).clamp(1, workers);
        for part in 0..parts {
            let start = request.samples * part / parts;
            let end = request.samples * (part + 1) / parts;
            let job = Job {
                ticket,
                request: request.clone(),
                samples: start..end,
                deadline,
                tokens,
                events: events.clone(),
            };
            if let Some(worker) = inner.workers.iter_mut().min_by_key(|worker| worker.samples) {
                worker.samples += end - start;
                worker.commands.push_back(Command::Submit(Box::new(job)));
            }
        }
        drop(inner);
        self.news.notify_all();
        ticket
    }

    /// Tells every worker to give a request up.
    pub fn cancel(&self, ticket: Ticket) {
        let mut inner = self.lock();
        for worker in &mut inner.workers {
            worker.commands.push_back(Command::Cancel(ticket));
        }
        drop(inner);
        self.news.notify_all();
    }

    /// Puts a policy under a name.
    pub fn publish(&self, name: &str, policy: PolicySnapshot, transition: Transition) {
        let mut inner = self.lock();
        if let (Some(old), Transition::Follow) = (inner.policies.get(name).cloned(), transition) {
            for worker in &mut inner.workers {
                worker
                    .commands
                    .push_back(Command::Replace { old: Some(old.clone()), new: policy.clone() });
            }
        }
        inner.policies.insert(name.to_owned(), policy);
        drop(inner);
        self.news.notify_all();
    }

    /// Takes a policy's name back. Its rows finish.
    pub fn retire(&self, name: &str) -> Option<PolicySnapshot> {
        self.lock().policies.remove(name)
    }

    /// The policy of a name.
    pub fn policy(&self, name: &str) -> Option<PolicySnapshot> {
        self.lock().policies.get(name).cloned()
    }

    /// All policies that have a name.
    pub fn policies(&self) -> Vec<Published> {
        let inner = self.lock();
        let published = |(name, policy): (&String, &PolicySnapshot)| Published {
            name: name.clone(),
            policy: policy.clone(),
        };
        inner.policies.iter().map(published).collect()
    }

    /// Samples that are accepted and not answered yet.
    pub fn pending(&self) -> usize {
        self.lock().pending
    }

    /// Takes down what a worker's engines have done so far.
    pub fn worked(&self, worker: usize, stats: SamplingStats) {
        self.lock().workers[worker].stats = stats;
    }

    /// What all workers' engines have done.
    pub fn stats(&self) -> SamplingStats {
        let mut all = SamplingStats::default();
        self.lock().workers.iter().for_each(|worker| all.add(&worker.stats));
        all
    }

    /// Stops taking requests.
    pub fn end(&self, state: State) {
        let mut inner = self.lock();
        if inner.state != State::Stopped {
            inner.state = state;
        }
        // Whoever waits for room hears that there will be none.
        inner.waiting.clear();
        drop(inner);
        self.news.notify_all();
    }

    /// What worker `index` is told, and how the service ends, if nothing more will come. Waits for
    /// news if `idle`.
    pub fn commands(&self, index: usize, idle: bool) -> (Vec<Command>, Option<State>) {
        let mut inner = self.lock();
        while idle && inner.workers[index].commands.is_empty() && inner.expects_more() {
            inner = self.news.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        let ends = !inner.expects_more();
        (inner.workers[index].commands.drain(..).collect(), ends.then_some(inner.state))
    }

    /// Takes note that worker `index` has answered a sample.
    pub fn answered(&self, index: usize) {
        let mut inner = self.lock();
        inner.pending -= 1;
        inner.workers[index].samples -= 1;
        inner.let_in(self.max_pending);
        self.tell_the_end(inner);
    }

    /// Wakes the workers of a service that has nothing more to do.
    fn tell_the_end(&self, inner: MutexGuard<'_, Inner>) {
        let ends = inner.pending == 0 && inner.state != State::Open;
        drop(inner);
        if ends {
            self.news.notify_all();
        }
    }
}

/// Samples that a worker gets at least of a request that is divided: each computes the prompt anew.
const SAMPLES_PER_PART: usize = 4;

impl Inner {
    /// Whether a worker may still be given something: room that was granted while the service was
    /// open counts.
    fn expects_more(&self) -> bool {
        match self.state {
            State::Open => true,
            State::Draining => self.pending > 0,
            State::Stopped => false,
        }
    }

    fn fits(&self, samples: usize, most: usize) -> bool {
        self.pending == 0 || self.pending + samples <= most
    }

    /// Tells those who wait that there is room, as far as there is.
    fn let_in(&mut self, most: usize) {
        while let Some(samples) = self.waiting.front().map(|(samples, _)| *samples) {
            if !self.fits(samples, most) {
                return;
            }
            let Some((samples, waiter)) = self.waiting.pop_front() else { return };
            // Whoever has stopped waiting takes no room.
            if waiter.send(()).is_ok() {
                self.pending += samples;
            }
        }
    }
}
