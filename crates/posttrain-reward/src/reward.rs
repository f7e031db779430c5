//! The `Reward` trait: anything that can score a completion, now or after waiting.

use futures::future::BoxFuture;

use crate::{RewardError, Sample, Score};

/// Scores completions. Async, because judges and remote rewards wait; usable as `Arc<dyn Reward>`.
///
/// A verifier that only computes implements [`Verifier`](crate::Verifier) instead and becomes a
/// reward by [`into_reward`](crate::Verifier::into_reward); a closure becomes one by
/// [`from_fn`](crate::from_fn). Implement this trait by hand for what waits. The future must not
/// block its thread.
///
/// ```
/// use futures::future::BoxFuture;
/// use posttrain_reward::{Reward, RewardError, Sample, Score};
///
/// /// Right where a service (here: nothing but a yield) agrees.
/// struct Remote;
///
/// impl Reward for Remote {
///     fn name(&self) -> &str {
///         "remote"
///     }
///     fn score<'a>(&'a self, sample: &'a Sample) -> BoxFuture<'a, Result<Score, RewardError>> {
///         Box::pin(async move {
///             tokio::task::yield_now().await;
///             Ok(Score::binary(sample.response == sample.reference))
///         })
///     }
/// }
///
/// let score = futures::executor::block_on(Remote.score(&Sample::new("2 + 2?", "4", "4")))?;
/// assert_eq!(score.value(), 1.0);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
pub trait Reward: Send + Sync {
    /// What metrics and errors call this reward.
    fn name(&self) -> &str;

    /// Scores one completion.
    ///
    /// # Errors
    /// Whatever kept the reward from a verdict. A wrong answer is `Ok` with the value 0; not
    /// knowing is an error.
    fn score<'a>(&'a self, sample: &'a Sample) -> BoxFuture<'a, Result<Score, RewardError>>;
}
