//! Training as a service: trainers on a thread of their own, spoken to through clients.

use crate::panics::caught;
use crate::scores::DatumScores;
use crate::trainer::{Made, together};
use crate::{Datum, ForwardBackward, OptimStep, TrainError, Trainer, TrainerCall, TrainerConfig};
use futures::channel::oneshot;
use futures::executor::block_on;
use posttrain_lora::LoraConfig;
use posttrain_loss::Objective;
use posttrain_model::Decoder;
use posttrain_optim::AdamParams;
use posttrain_rollout::PolicySnapshot;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;

/// A trainer's number within a service.
type TrainerId = u64;

/// Something to do with a trainer. Whoever waits for it hears what came of it.
enum Job {
    Any(Work),
    /// What can share passes with others'.
    Passes(PassesJob),
}

type Work = Box<dyn FnOnce(&mut Trainer) + Send>;

struct PassesJob {
    datums: Vec<Datum>,
    objective: Arc<dyn Objective>,
    done: Box<dyn FnOnce(Result<ForwardBackward, TrainError>) + Send>,
}

/// What is done next, with the trainers that it is done with.
enum Turn {
    Any(TrainerId, Box<Trainer>, Work),
    Passes(Vec<(TrainerId, Box<Trainer>, PassesJob)>),
}

/// A trainer and what waits for it.
struct Place {
    /// Away while a job runs.
    trainer: Option<Box<Trainer>>,
    jobs: VecDeque<Job>,
    /// Whether its last client has gone: it ends with its last job.
    closing: bool,
}

/// Everything behind the lock.
struct Inner {
    places: BTreeMap<TrainerId, Place>,
    next_id: TrainerId,
    /// Whose job ran last: the next one's turn comes after it.
    last: TrainerId,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// What is queued is done.
    Draining,
    /// What is queued is given up.
    Stopped,
}

struct Shared {
    inner: Mutex<Inner>,
    news: Condvar,
    /// Calls that went through the base beside another one's.
    shared_calls: AtomicU64,
    model: Arc<Decoder>,
    config: TrainingServiceConfig,
}

/// How a training service works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingServiceConfig {
    /// Calls of one trainer that may wait, 1 and up: one more is answered with
    /// [`TrainError::QueueFull`], so that a client that never waits cannot fill the memory.
    pub max_queued: usize,
    /// Whether calls of several trainers go through the base
    /// [together](crate::forward_backward_together). What a trainer comes to then depends on who else
    /// called, up to rounding; without, it is the same to the bit.
    pub share_passes: bool,
}

impl Default for TrainingServiceConfig {
    /// 256 calls: a pipelined client has two or three. Each has passes of its own.
    fn default() -> Self {
        Self { max_queued: 256, share_passes: false }
    }
}

/// Trainers of any number of adapters on one base, on a thread of their own.
///
/// Calls of one trainer are done in the order in which they were made, those of several by turns.
/// The next call may be made while one runs. An error, a panic included, goes to the call that
/// caused it, and to no other.
///
/// With [`TrainingServiceConfig::share_passes`], calls of
/// [`forward_backward`](TrainingClient::forward_backward) that are several trainers' next ones go
/// through the base together, as many as have no more tokens than a micro-batch.
///
/// [`Trainer`] is the same without a thread, and gives the same numbers, up to rounding where a pass
/// is shared.
///
/// ```
/// use posttrain_lora::LoraConfig;
/// use posttrain_loss::CrossEntropy;
/// use posttrain_model::{Decoder, ModelConfig};
/// use posttrain_train::{Datum, TrainerConfig, TrainingService};
/// use std::sync::Arc;
///
/// let model = Arc::new(Decoder::random(&ModelConfig::tiny(), 7, tch::Kind::Float, tch::Device::Cpu)?);
/// let service = TrainingService::start(model)?;
/// let client = service.create(&LoraConfig { rank: 4, ..LoraConfig::default() }, TrainerConfig::default(), 7)?;
///
/// // Both calls are made before the first is done.
/// let datum = Datum::text(&[1, 2, 3], &[0.0, 1.0, 1.0]);
/// let passes = client.forward_backward(vec![datum], Arc::new(CrossEntropy::default()));
/// let step = client.optim_step(TrainerConfig::default().adam_params(1e-3));
/// assert!(passes.wait()?.loss() > 0.0);
/// assert!(step.wait()?.grad_norm > 0.0);
/// assert_eq!(client.snapshot().wait()?.version, 1);
/// # Ok::<(), posttrain_train::TrainError>(())
/// ```
pub struct TrainingService {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Speaks to one trainer of a service: `Send`, `Sync` and cheap to clone. When its last clone goes,
/// the trainer ends once its calls are done.
#[derive(Clone)]
pub struct TrainingClient {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    id: TrainerId,
}

/// What a call will give: a future, or [`Pending::wait`] for a thread that can wait. To drop it is
/// to take no interest: the call is done all the same.
#[must_use = "whether a call has failed is known from what it gives alone"]
pub struct Pending<T> {
    result: oneshot::Receiver<Result<T, TrainError>>,
    /// Why the call was not taken.
    refused: Option<TrainError>,
}

impl TrainingService {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`TrainError::Thread`] where the system gives none.
    pub fn start(model: Arc<Decoder>) -> Result<Self, TrainError> {
        Self::with_config(model, TrainingServiceConfig::default())
    }

    /// Starts the thread of a service that works in a certain way.
    ///
    /// # Errors
    /// [`TrainError::Config`] names a field that is out of range; [`TrainError::Thread`] where the
    /// system gives no thread.
    pub fn with_config(
        model: Arc<Decoder>,
        config: TrainingServiceConfig,
    ) -> Result<Self, TrainError> {
        let queued = config.max_queued;
        TrainError::check("max_queued", queued >= 1, "at least 1", &queued)?;
        let inner = Inner { places: BTreeMap::new(), next_id: 1, last: 0, state: State::Open };
        let shared = Arc::new(Shared {
            inner: Mutex::new(inner),
            news: Condvar::new(),
            shared_calls: AtomicU64::new(0),
            model,
            config,
        });

        let own = shared.clone();
        // libtorch divides its operations among as many threads as on the caller's thread.
        let threads = tch::get_num_threads();
        let work = move || {
            posttrain_kernel::set_threads(threads);
            own.work();
        };
        let spawned = std::thread::Builder::new().name("training".into()).spawn(work);
        let thread = spawned.map_err(|source| TrainError::Thread { source })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// A trainer of a fresh adapter, initialized from `seed`.
    ///
    /// # Errors
    /// Those of [`Trainer::new`]; [`TrainError::ServiceClosed`] once the service ends.
    pub fn create(
        &self,
        lora: &LoraConfig,
        config: TrainerConfig,
        seed: u64,
    ) -> Result<TrainingClient, TrainError> {
        self.add(Trainer::new(self.shared.model.clone(), lora, config, seed)?)
    }

    /// Takes a trainer in.
    ///
    /// # Errors
    /// [`TrainError::ServiceClosed`] once the service ends.
    pub fn add(&self, trainer: Trainer) -> Result<TrainingClient, TrainError> {
        let mut inner = self.shared.lock();
        if inner.state != State::Open {
            return Err(TrainError::ServiceClosed);
        }
        let id = inner.next_id;
        inner.next_id += 1;
        inner.places.insert(
            id,
            Place { trainer: Some(Box::new(trainer)), jobs: VecDeque::new(), closing: false },
        );
        drop(inner);

        Ok(TrainingClient { handle: Arc::new(Handle { shared: self.shared.clone(), id }) })
    }

    /// How many trainers there are.
    #[must_use]
    pub fn trainers(&self) -> usize {
        self.shared.lock().places.len()
    }

    /// How many calls have gone through the base beside another trainer's.
    #[must_use]
    pub fn shared_calls(&self) -> u64 {
        self.shared.shared_calls.load(Ordering::Relaxed)
    }

    /// Takes nothing more, does everything that has been called for, and ends.
    pub fn shut_down(mut self) {
        self.end(State::Draining);
    }

    fn end(&mut self, state: State) {
        let mut inner = self.shared.lock();
        if inner.state != State::Stopped {
            inner.state = state;
        }
        drop(inner);
        self.shared.news.notify_all();
        if let Some(thread) = self.thread.take() {
            // The thread catches what panics in a job, so there is nothing to hear from it.
            let _ = thread.join();
        }
    }
}

/// Calls that wait are answered with [`TrainError::ServiceClosed`]; the one that runs is finished.
impl Drop for TrainingService {
    fn drop(&mut self) {
        self.end(State::Stopped);
    }
}

impl TrainingClient {
    /// [`Trainer::forward`].
    pub fn forward(&self, datums: Vec<Datum>) -> Pending<DatumScores> {
        self.call(move |trainer| trainer.forward(&datums))
    }

    /// [`Trainer::forward_reference`].
    pub fn forward_reference(&self, datums: Vec<Datum>) -> Pending<DatumScores> {
        self.call(move |trainer| trainer.forward_reference(&datums))
    }

    /// [`Trainer::forward_backward`].
    pub fn forward_backward(
        &self,
        datums: Vec<Datum>,
        objective: Arc<dyn Objective>,
    ) -> Pending<ForwardBackward> {
        self.forward_backward_then(datums, objective, |passes| passes)
    }

    /// The same, and what `then` makes of it before the trainer's next call is done.
    pub fn forward_backward_then<T: Send + 'static>(
        &self,
        datums: Vec<Datum>,
        objective: Arc<dyn Objective>,
        then: impl FnOnce(ForwardBackward) -> T + Send + 'static,
    ) -> Pending<T> {
        self.queue(|send| {
            let done = move |passes: Result<ForwardBackward, TrainError>| {
                send.give(caught(|| passes.map(then)));
            };
            Job::Passes(PassesJob { datums, objective, done: Box::new(done) })
        })
    }

    /// [`Trainer::optim_step`].
    pub fn optim_step(&self, params: AdamParams) -> Pending<OptimStep> {
        self.call(move |trainer| trainer.optim_step(&params))
    }

    /// [`Trainer::snapshot`].
    pub fn snapshot(&self) -> Pending<PolicySnapshot> {
        self.call(|trainer| trainer.snapshot())
    }

    /// [`Trainer::save_adapter`].
    pub fn save_adapter(&self, dir: PathBuf, base_model: String) -> Pending<()> {
        self.call(move |trainer| trainer.save_adapter(&dir, &base_model))
    }

    /// [`Trainer::save_state`] as a folder of its own, whole or not at all.
    pub fn save_state(&self, dir: PathBuf) -> Pending<()> {
        self.call(move |trainer| {
            posttrain_store::replace_folder(&dir, |fresh| trainer.save_state(fresh))
        })
    }

    /// [`Trainer::load_state`].
    pub fn load_state(&self, dir: PathBuf) -> Pending<()> {
        self.call(move |trainer| trainer.load_state(&dir))
    }

    /// [`Trainer::load_weights`].
    pub fn load_weights(&self, peft: PathBuf) -> Pending<()> {
        self.call(move |trainer| trainer.load_weights(&peft))
    }

    /// Does anything with the trainer when its turn comes. A panic comes back as
    /// [`TrainError::Panicked`].
    pub fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Trainer) -> Result<T, TrainError> + Send + 'static,
    ) -> Pending<T> {
        self.queue(|send| {
            let work = move |trainer: &mut Trainer| send.give(caught(|| work(trainer)));
            Job::Any(Box::new(work))
        })
    }

    fn queue<T>(&self, job: impl FnOnce(Waiting<T>) -> Job) -> Pending<T> {
        let (send, result) = oneshot::channel();
        let refused = self.handle.shared.queue(self.handle.id, job(Waiting(send))).err();
        Pending { result, refused }
    }
}

/// Whoever waits for a call.
struct Waiting<T>(oneshot::Sender<Result<T, TrainError>>);

impl<T> Waiting<T> {
    fn give(self, result: Result<T, TrainError>) {
        // Whoever has dropped the call takes no interest in it.
        let _ = self.0.send(result);
    }
}

/// The trainer ends with its last job.
impl Drop for Handle {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        if let Some(place) = inner.places.get_mut(&self.id) {
            place.closing = true;
        }
        inner.clear_up();
    }
}

impl<T> Pending<T> {
    /// Waits for the call to be done.
    ///
    /// # Errors
    /// The call's own; [`TrainError::QueueFull`] where it was not taken;
    /// [`TrainError::ServiceClosed`] where the service ended before its turn came.
    pub fn wait(self) -> Result<T, TrainError> {
        block_on(self)
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, TrainError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(refused) = self.refused.take() {
            return Poll::Ready(Err(refused));
        }
        let result = ready!(Pin::new(&mut self.result).poll(context));
        Poll::Ready(result.unwrap_or(Err(TrainError::ServiceClosed)))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while the lock is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job, or says why it is not taken.
    fn queue(&self, id: TrainerId, job: Job) -> Result<(), TrainError> {
        let mut inner = self.lock();
        if inner.state != State::Open {
            return Err(TrainError::ServiceClosed);
        }
        let place = inner.places.get_mut(&id).ok_or(TrainError::ServiceClosed)?;
        let queued = place.jobs.len();
        if queued >= self.config.max_queued {
            return Err(TrainError::QueueFull { queued });
        }
        place.jobs.push_back(job);

        drop(inner);
        self.news.notify_all();
        Ok(())
    }

    /// Does jobs by turns until the service ends.
    fn work(&self) {
        let mut inner = self.lock();
        loop {
            if inner.state == State::Stopped {
                inner.places.clear();
                return;
            }
            match inner.next(self.config.share_passes) {
                Some(turn) => {
                    drop(inner);
                    let trainers = self.done(turn);
                    inner = self.lock();
                    trainers.into_iter().for_each(|(id, trainer)| inner.put_back(id, trainer));
                }
                None if inner.state == State::Draining => return,
                None => inner = self.news.wait(inner).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Does a turn's work and gives its trainers back.
    fn done(&self, turn: Turn) -> Vec<(TrainerId, Box<Trainer>)> {
        let mut turns = match turn {
            Turn::Any(id, mut trainer, work) => {
                work(&mut trainer);
                return vec![(id, trainer)];
            }
            Turn::Passes(turns) => turns,
        };
        let mut calls: Vec<TrainerCall> =
            turns.iter_mut().map(|(_, trainer, job)| job.of(trainer)).collect();
        let made = together(&mut calls);

        let mut trainers = Vec::with_capacity(turns.len());
        for ((id, trainer, job), Made { outcome, shared }) in turns.into_iter().zip(made) {
            self.shared_calls.fetch_add(u64::from(shared), Ordering::Relaxed);
            (job.done)(outcome);
            trainers.push((id, trainer));
        }
        trainers
    }
}

impl PassesJob {
    /// The call that it is of its trainer.
    fn of<'a>(&'a self, trainer: &'a mut Trainer) -> TrainerCall<'a> {
        TrainerCall { trainer, datums: &self.datums, objective: &*self.objective }
    }

    /// Tokens that it reads, those that its datums share counted as often as they stand there.
    fn tokens(&self) -> usize {
        self.datums.iter().map(|datum| datum.input.len() + 1).sum()
    }
}

impl Inner {
    /// The next job of the trainer whose turn it is, the first after the last one's that has any;
    /// and, where passes are shared, those of others that can go with it.
    fn next(&mut self, share_passes: bool) -> Option<Turn> {
        let has_work = |(id, place): (&TrainerId, &Place)| (!place.jobs.is_empty()).then_some(*id);
        let later = self.places.range(self.last + 1..).find_map(has_work);
        let id = later.or_else(|| self.places.iter().find_map(has_work))?;

        let place = self.places.get_mut(&id)?;
        let trainer = place.trainer.take()?;
        let job = place.jobs.pop_front()?;
        self.last = id;
        match job {
            Job::Any(work) => Some(Turn::Any(id, trainer, work)),
            Job::Passes(passes) => {
                let mut turns = vec![(id, trainer, passes)];
                if share_passes {
                    self.join(&mut turns);
                }
                Some(Turn::Passes(turns))
            }
        }
    }

    /// Adds the next calls of other trainers that can share the first one's passes, as many as a
    /// micro-batch has room for, those whose turn is next first.
    fn join(&mut self, turns: &mut Vec<(TrainerId, Box<Trainer>, PassesJob)>) {
        let Some((first, trainer, job)) = turns.first() else { return };
        let mut room = trainer.config().micro_batch_tokens.saturating_sub(job.tokens());
        let later = self.places.range(first + 1..).chain(self.places.range(..first));
        let ids: Vec<TrainerId> = later.map(|(id, _)| *id).collect();

        for id in ids {
            let Some((_, first, _)) = turns.first() else { return };
            let Some(place) = self.places.get_mut(&id) else { continue };
            let (Some(Job::Passes(job)), Some(trainer)) = (place.jobs.front(), &mut place.trainer)
            else {
                continue;
            };
            // An objective is anybody's code.
            let shares = caught(|| Ok(job.of(trainer).shares_with(first))).unwrap_or(false);
            if !shares || job.tokens() > room {
                continue;
            }
            room -= job.tokens();
            if let (Some(Job::Passes(job)), Some(trainer)) =
                (place.jobs.pop_front(), place.trainer.take())
            {
                turns.push((id, trainer, job));
            }
        }
    }

    fn put_back(&mut self, id: TrainerId, trainer: Box<Trainer>) {
        if let Some(place) = self.places.get_mut(&id) {
            place.trainer = Some(trainer);
        }
        self.clear_up();
    }

    /// Lets go of the trainers that nobody can call any more and that have nothing left to do.
    fn clear_up(&mut self) {
        self.places
            .retain(|_, place| !place.closing || !place.jobs.is_empty() || place.trainer.is_none());
    }
}
