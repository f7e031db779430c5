//! The streaming runner: completions go in as they finish, scores come out in the order of
//! submission.

pub(crate) mod clock;
mod progress;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::Instant;

use crate::error::panicked;
use crate::{Reward, RewardError, Sample, Score};
use clock::within;
use progress::Tally;

pub use progress::ScoringProgress;

/// Limits of a [`Scorer`].
///
/// ```
/// use posttrain_reward::ScorerConfig;
///
/// assert_eq!(ScorerConfig::default().in_flight, 256);
/// assert!(ScorerConfig { in_flight: 0, ..ScorerConfig::default() }.validate().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScorerConfig {
    /// Completions that are scored at the same time, at least 1; a push beyond waits. The default,
    /// 256, is what one judge replica batches (vLLM's `max_num_seqs`).
    pub in_flight: usize,
    /// Seconds that one completion's scoring may take, more than 0. The default, 60, is this
    /// crate's own choice: room for a judge that reasons, an end to one that never answers. The
    /// time of a response's own program does not count, nor its wait for a place to run: it ends by
    /// the limits of its sandbox, and is then wrong, where here it would be an error that a policy
    /// could choose.
    pub time_limit_seconds: f64,
    /// Seconds from the making of the scorer to the end of its step, more than 0: what has no score
    /// by then fails with [`RewardError::DeadlinePassed`], and so does whatever is pushed later, at
    /// once. It bounds a step whose judge is down, where otherwise every `in_flight` completions
    /// would cost a time limit. The time of sampling counts. Default: none.
    pub deadline_seconds: Option<f64>,
    /// How often a scoring that failed is tried again, where the failure may pass: see
    /// [`RewardError::is_transient`]. Each attempt has the time limit to itself. Default: 0.
    pub retries: u32,
}

impl Default for ScorerConfig {
    fn default() -> Self {
        Self { in_flight: 256, time_limit_seconds: 60.0, deadline_seconds: None, retries: 0 }
    }
}

impl ScorerConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// use posttrain_reward::ScorerConfig;
    ///
    /// let config = ScorerConfig { time_limit_seconds: f64::NAN, ..ScorerConfig::default() };
    /// assert_eq!(config.validate().unwrap_err().cause(), "invalid_config");
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        if !(1..=Semaphore::MAX_PERMITS).contains(&self.in_flight) {
            let (field, expected) =
                ("in_flight", "at least 1 and at most tokio's number of permits");
            return Err(RewardError::InvalidConfig {
                field,
                got: self.in_flight.to_string(),
                expected,
            });
        }
        self.limits().map(|_| ())
    }

    fn limits(&self) -> Result<Limits, RewardError> {
        let sample = seconds("time_limit_seconds", self.time_limit_seconds)?;
        let step =
            self.deadline_seconds.map(|limit| seconds("deadline_seconds", limit)).transpose()?;
        // A deadline beyond the clock's end is none.
        let step = step.and_then(|limit| Some((Instant::now().checked_add(limit)?, limit)));
        Ok(Limits { sample, step, retries: self.retries })
    }
}

/// A span of time from a configuration.
fn seconds(field: &'static str, seconds: f64) -> Result<Duration, RewardError> {
    let span = Duration::try_from_secs_f64(seconds).ok().filter(|span| !span.is_zero());
    let expected = "a finite number of seconds, more than 0";
    span.ok_or_else(|| RewardError::InvalidConfig { field, got: seconds.to_string(), expected })
}

/// When a sample's scoring ends at the latest.
#[derive(Clone, Copy)]
struct Limits {
    sample: Duration,
    /// The step's end, and how long after the scorer's making that is.
    step: Option<(Instant, Duration)>,
    retries: u32,
}

impl Limits {
    /// The error of a sample that takes too long: which of the two limits ended it.
    fn late(&self, reward: &str) -> RewardError {
        let reward = reward.to_owned();
        match self.step {
            Some((end, deadline)) if end <= Instant::now() => {
                RewardError::DeadlinePassed { reward, seconds: deadline.as_secs_f64() }
            }
            _ => RewardError::TimedOut { reward, seconds: self.sample.as_secs_f64() },
        }
    }
}

/// Scores a step's completions while others are still being sampled.
///
/// [`push`](Self::push) from the thread that samples: it starts the scoring and returns at once, or
/// waits while `in_flight` completions are being scored (back-pressure). [`finish`](Self::finish)
/// waits for the rest. One result for each push, in the order of the pushes; a reward that fails,
/// hangs or panics costs its own sample alone. [`submit`](Self::submit) and
/// [`collect`](Self::collect) are the same for async callers. Dropping a scorer gives up what is
/// unfinished.
///
/// ```
/// use posttrain_reward::{Sample, Scorer, ScorerConfig, Verifier};
/// use posttrain_reward::verifiers::ExactMatch;
/// use std::sync::Arc;
///
/// let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
/// let reward = Arc::new(ExactMatch.into_reward());
/// let mut scorer = Scorer::new(reward, &ScorerConfig::default(), runtime.handle().clone())?;
/// for response in ["4", "5"] {
///     scorer.push(Sample::new("2 + 2?", "4", response))?;
/// }
/// let values: Vec<f64> = scorer.finish()?.into_iter().map(|score| score.unwrap().value()).collect();
/// assert_eq!(values, [1.0, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Scorer {
    reward: Arc<dyn Reward>,
    runtime: Handle,
    permits: Arc<Semaphore>,
    limits: Limits,
    tally: Tally,
    /// By place; those that were taken are gone.
    tasks: BTreeMap<usize, Task>,
    pushed: usize,
}

type Task = JoinHandle<Result<Score, RewardError>>;

impl Scorer {
    /// A scorer whose tasks run on `runtime`.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`]; [`RewardError::WouldDeadlock`] where the runtime is
    /// single-threaded: its tasks would not move while the sampling thread samples.
    ///
    /// ```
    /// use posttrain_reward::{Scorer, ScorerConfig, Verifier};
    /// use posttrain_reward::verifiers::ExactMatch;
    ///
    /// let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// let reward = std::sync::Arc::new(ExactMatch.into_reward());
    /// let error = Scorer::new(reward, &ScorerConfig::default(), runtime.handle().clone()).err().unwrap();
    /// assert_eq!(error.cause(), "would_deadlock");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new(
        reward: Arc<dyn Reward>,
        config: &ScorerConfig,
        runtime: Handle,
    ) -> Result<Self, RewardError> {
        config.validate()?;
        if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
            return Err(RewardError::WouldDeadlock { call: "Scorer::new" });
        }
        let permits = Arc::new(Semaphore::new(config.in_flight));
        Ok(Self {
            reward,
            runtime,
            permits,
            limits: config.limits()?,
            tally: Tally::default(),
            tasks: BTreeMap::new(),
            pushed: 0,
        })
    }

    /// Starts to score `sample`, waiting for room where `in_flight` are being scored. Returns its
    /// place in the results.
    ///
    /// # Errors
    /// [`RewardError::WouldDeadlock`] on a thread of a single-threaded tokio runtime, where
    /// blocking is not allowed.
    ///
    /// ```
    /// use posttrain_reward::{Sample, Scorer, ScorerConfig, Verifier};
    /// use posttrain_reward::verifiers::ExactMatch;
    ///
    /// let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    /// let reward = std::sync::Arc::new(ExactMatch.into_reward());
    /// let mut scorer = Scorer::new(reward, &ScorerConfig::default(), runtime.handle().clone())?;
    /// assert_eq!(scorer.push(Sample::new("", "4", "4"))?, 0);
    /// assert_eq!(scorer.push(Sample::new("", "4", "5"))?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn push(&mut self, sample: Sample) -> Result<usize, RewardError> {
        let runtime = self.runtime.clone();
        blocking("Scorer::push", || runtime.block_on(self.submit(sample)))?
    }

    /// Waits for what is unfinished and returns one result for each push, in the order of the
    /// pushes.
    ///
    /// # Errors
    /// [`RewardError::WouldDeadlock`] as in [`push`](Self::push). What happened to a sample is in
    /// its own result.
    ///
    /// ```
    /// use posttrain_reward::{Scorer, ScorerConfig, Verifier};
    /// use posttrain_reward::verifiers::ExactMatch;
    ///
    /// let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    /// let reward = std::sync::Arc::new(ExactMatch.into_reward());
    /// let scorer = Scorer::new(reward, &ScorerConfig::default(), runtime.handle().clone())?;
    /// assert!(scorer.finish()?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn finish(self) -> Result<Vec<Result<Score, RewardError>>, RewardError> {
        let runtime = self.runtime.clone();
        blocking("Scorer::finish", || runtime.block_on(self.collect()))
    }

    /// [`push`](Self::push) for async callers, on a runtime of any kind.
    ///
    /// # Errors
    /// [`RewardError::Cancelled`] is the only one, and cannot happen while the scorer is alive.
    ///
    /// ```
    /// use posttrain_reward::{Sample, Scorer, ScorerConfig, Verifier};
    /// use posttrain_reward::verifiers::ExactMatch;
    ///
    /// let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    /// let reward = std::sync::Arc::new(ExactMatch.into_reward());
    /// let mut scorer = Scorer::new(reward, &ScorerConfig::default(), runtime.handle().clone())?;
    /// assert_eq!(runtime.block_on(scorer.submit(Sample::new("2 + 2?", "4", "4")))?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn submit(&mut self, sample: Sample) -> Result<usize, RewardError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit =
            permit.map_err(|_| RewardError::Cancelled { reward: self.reward.name().to_owned() })?;
        self.tally.push();
        let place = self.pushed;
        self.pushed += 1;

        let (reward, limits, tally) = (Arc::clone(&self.reward), self.limits, self.tally.clone());
        let task = self.runtime.spawn(async move {
            let result = score_one(&*reward, sample, limits, permit).await;
            tally.count(&result);
            result
        });
        self.tasks.insert(place, task);
        Ok(place)
    }

    /// What has happened so far; for a progress bar, or to stop a step whose failures pile up.
    ///
    /// The trainer of this workspace looks at the failures when the step's scores are in, and stops
    /// in words where more than a configured share failed (`max_reward_failures`).
    ///
    /// ```
    /// use posttrain_reward::{Sample, Scorer, ScorerConfig, Verifier};
    /// use posttrain_reward::verifiers::ExactMatch;
    ///
    /// let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    /// let reward = std::sync::Arc::new(ExactMatch.into_reward());
    /// let mut scorer = Scorer::new(reward, &ScorerConfig::default(), runtime.handle().clone())?;
    /// scorer.push(Sample::new("2 + 2?", "", "4"))?;
    /// while scorer.progress().waiting() > 0 {
    ///     std::thread::sleep(std::time::Duration::from_millis(1));
    /// }
    /// assert_eq!(scorer.progress().failed, [("empty_reference", 1)].into());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn progress(&self) -> ScoringProgress {
        self.tally.get()
    }

    /// [`finish`](Self::finish) for async callers, on a runtime of any kind.
    ///
    /// ```
    /// use posttrain_reward::{Sample, Scorer, ScorerConfig, Verifier};
    /// use posttrain_reward::verifiers::ExactMatch;
    ///
    /// let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    /// let reward = std::sync::Arc::new(ExactMatch.into_reward());
    /// let mut scorer = Scorer::new(reward, &ScorerConfig::default(), runtime.handle().clone())?;
    /// let scores = runtime.block_on(async {
    ///     scorer.submit(Sample::new("2 + 2?", "4", "4")).await?;
    ///     Ok::<_, posttrain_reward::RewardError>(scorer.collect().await)
    /// })?;
    /// assert_eq!(scores[0].as_ref().unwrap().value(), 1.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn collect(mut self) -> Vec<Result<Score, RewardError>> {
        let places: Vec<usize> = self.tasks.keys().copied().collect();
        self.take(&places).wait().await
    }

    /// Takes the results at some places out of the scorer, to be waited for by themselves: of a
    /// group that is whole, while others are still pushed. [`collect`](Self::collect) and
    /// [`finish`](Self::finish) then return the rest.
    ///
    /// A place that was taken before, or never given, is answered with [`RewardError::Cancelled`].
    ///
    /// ```
    /// use posttrain_reward::{Sample, Scorer, ScorerConfig, Verifier};
    /// use posttrain_reward::verifiers::ExactMatch;
    ///
    /// let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    /// let reward = std::sync::Arc::new(ExactMatch.into_reward());
    /// let mut scorer = Scorer::new(reward, &ScorerConfig::default(), runtime.handle().clone())?;
    /// let first = scorer.push(Sample::new("", "4", "4"))?;
    /// scorer.push(Sample::new("", "4", "5"))?;
    ///
    /// let group = scorer.take(&[first]);
    /// assert_eq!(runtime.block_on(group.wait())[0].as_ref().unwrap().value(), 1.0);
    /// assert_eq!(scorer.finish()?.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn take(&mut self, places: &[usize]) -> PendingScores {
        let tasks = places.iter().map(|place| self.tasks.remove(place)).collect();
        PendingScores { reward: self.reward.name().to_owned(), tasks }
    }
}

impl Drop for Scorer {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

/// Results that were taken out of a [`Scorer`]. Dropping them gives up what is unfinished.
#[must_use = "the scores are given up when this is dropped"]
pub struct PendingScores {
    reward: String,
    tasks: Vec<Option<Task>>,
}

impl PendingScores {
    /// Waits for all of them; in the order in which their places were given.
    pub async fn wait(mut self) -> Vec<Result<Score, RewardError>> {
        let mut scores = Vec::with_capacity(self.tasks.len());
        for task in &mut self.tasks {
            let joined = match task {
                Some(task) => task.await.ok(),
                None => None,
            };
            // Panics are caught inside the task, so a failed join is a runtime that has shut down.
            scores
                .push(joined.unwrap_or_else(|| {
                    Err(RewardError::Cancelled { reward: self.reward.clone() })
                }));
        }
        scores
    }
}

impl Drop for PendingScores {
    fn drop(&mut self) {
        self.tasks.iter().flatten().for_each(JoinHandle::abort);
    }
}

/// Scores one sample; the permit goes back when it is done, failed or dropped.
async fn score_one(
    reward: &dyn Reward,
    sample: Sample,
    limits: Limits,
    _permit: OwnedSemaphorePermit,
) -> Result<Score, RewardError> {
    let end = limits.step.map(|(end, _)| end);
    if end.is_some_and(|end| end <= Instant::now()) {
        return Err(limits.late(reward.name()));
    }

    let mut retries = limits.retries;
    loop {
        match attempt(reward, &sample, limits).await {
            Err(error) if retries > 0 && error.is_transient() => retries -= 1,
            result => return result,
        }
    }
}

async fn attempt(
    reward: &dyn Reward,
    sample: &Sample,
    limits: Limits,
) -> Result<Score, RewardError> {
    let end = limits.step.map(|(end, _)| end);
    // The call to `score` is inside, too: a reward may panic before it returns its future.
    let scoring = within(limits.sample, end, async { reward.score(sample).await });
    match AssertUnwindSafe(scoring).catch_unwind().await {
        Ok(Some(score)) => score,
        Ok(None) => Err(limits.late(reward.name())),
        Err(payload) => Err(panicked(reward.name(), &*payload)),
    }
}

/// Runs a call that blocks, told to tokio where the thread is one of its workers.
fn blocking<T>(call: &'static str, wait: impl FnOnce() -> T) -> Result<T, RewardError> {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Err(_) => Ok(wait()),
        Ok(RuntimeFlavor::MultiThread) => Ok(block_in_place(wait)),
        Ok(_) => Err(RewardError::WouldDeadlock { call }),
    }
}
