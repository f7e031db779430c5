//! Rewards that only compute: the `Verifier` trait, and the pool that keeps them off the async
//! threads.

mod pool;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures::channel::oneshot;
use futures::future::BoxFuture;

use crate::error::panicked;
use crate::{Reward, RewardError, Sample, Score};

/// Scores a completion by computing alone: no waiting, no input or output.
///
/// ```
/// use posttrain_reward::{RewardError, Sample, Score, Verifier};
///
/// struct Short;
///
/// impl Verifier for Short {
///     fn name(&self) -> &str {
///         "short"
///     }
///     fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
///         Ok(Score::binary(sample.response.len() <= 3))
///     }
/// }
///
/// assert_eq!(Short.verify(&Sample::new("2 + 2?", "4", "four"))?.value(), 0.0);
/// # Ok::<(), RewardError>(())
/// ```
pub trait Verifier: Send + Sync + 'static {
    /// What metrics and errors call this verifier.
    fn name(&self) -> &str;

    /// Scores one completion.
    ///
    /// # Errors
    /// Whatever kept the verifier from a verdict, such as a reference that is not a number.
    fn verify(&self, sample: &Sample) -> Result<Score, RewardError>;

    /// This verifier as a [`Reward`].
    ///
    /// ```
    /// use posttrain_reward::{Reward, Sample, Verifier};
    /// use posttrain_reward::verifiers::ExactMatch;
    ///
    /// let reward = ExactMatch.into_reward();
    /// let score = futures::executor::block_on(reward.score(&Sample::new("2 + 2?", "4", "4")))?;
    /// assert_eq!(score.value(), 1.0);
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    fn into_reward(self) -> OnCpu<Self>
    where
        Self: Sized,
    {
        OnCpu { verifier: Arc::new(self) }
    }
}

impl<V: Verifier + ?Sized> Verifier for Box<V> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
        (**self).verify(sample)
    }
}

/// A [`Verifier`] as a [`Reward`]: it runs on a rayon pool, so that it never blocks an async
/// thread.
///
/// The sample is copied to the pool. A [`Scorer`](crate::Scorer)'s time limit counts the wait for a
/// pool thread, too; when it ends the waiting, work that has not begun is dropped. A thread cannot
/// be killed: a verifier that has begun runs on to its end, which is why every verifier of this
/// crate is bounded. For a user's own that hangs, the pool gets new threads once half of its
/// threads are at work beyond their time limit, so that other verifiers go on; once that has
/// happened to eight times the pool's threads at the same time, verifiers fail with the cause
/// `verifiers_hang`. Code that may hang or crash belongs into a
/// [`Subprocess`](crate::outside::Subprocess), which can be killed.
///
/// ```
/// use posttrain_reward::{OnCpu, Reward, Verifier};
/// use posttrain_reward::verifiers::ExactMatch;
///
/// let reward: OnCpu<ExactMatch> = ExactMatch.into_reward();
/// assert_eq!(reward.name(), "exact");
/// ```
#[derive(Debug)]
pub struct OnCpu<V> {
    verifier: Arc<V>,
}

impl<V: Verifier> Reward for OnCpu<V> {
    fn name(&self) -> &str {
        self.verifier.name()
    }

    fn score<'a>(&'a self, sample: &'a Sample) -> BoxFuture<'a, Result<Score, RewardError>> {
        Box::pin(async move {
            let (send, receive) = oneshot::channel();
            let (verifier, sample) = (Arc::clone(&self.verifier), sample.clone());
            // Dropped with this future where the time limit ends it: the pool then knows of a
            // thread that is stuck.
            let ticket = pool::run(self.name(), move || answer(&*verifier, &sample, send))?;
            let verdict = receive.await;
            ticket.over();
            verdict
                .unwrap_or_else(|_| Err(RewardError::Cancelled { reward: self.name().to_owned() }))
        })
    }
}

/// Verifies on a pool thread.
fn answer<V: Verifier>(
    verifier: &V,
    sample: &Sample,
    send: oneshot::Sender<Result<Score, RewardError>>,
) {
    let verdict = catch_unwind(AssertUnwindSafe(|| verifier.verify(sample)));
    let verdict = verdict.unwrap_or_else(|payload| Err(panicked(verifier.name(), &*payload)));
    // The receiver may have given up meanwhile; its time limit has told the caller.
    let _ = send.send(verdict);
}

/// A verifier made of a closure; [`from_fn`] makes it.
///
/// ```
/// use posttrain_reward::{Reward, Sample, Score, from_fn};
///
/// assert_eq!(from_fn("always", |_: &Sample| Ok(Score::binary(true))).name(), "always");
/// ```
pub struct VerifierFn<F> {
    name: String,
    function: F,
}

impl<F> Verifier for VerifierFn<F>
where
    F: Fn(&Sample) -> Result<Score, RewardError> + Send + Sync + 'static,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
        (self.function)(sample)
    }
}

/// A plain function or closure as a reward.
///
/// ```
/// use posttrain_reward::{Reward, Sample, Score, from_fn};
///
/// let brief = from_fn("brief", |sample: &Sample| Score::new(1.0 / (1.0 + sample.response.len() as f64)));
/// let score = futures::executor::block_on(brief.score(&Sample::new("2 + 2?", "4", "4")))?;
/// assert_eq!(score.value(), 0.5);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
pub fn from_fn<F>(name: impl Into<String>, function: F) -> OnCpu<VerifierFn<F>>
where
    F: Fn(&Sample) -> Result<Score, RewardError> + Send + Sync + 'static,
{
    VerifierFn { name: name.into(), function }.into_reward()
}
