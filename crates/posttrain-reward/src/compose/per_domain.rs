//! A table of rewards by domain.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::{BoxFuture, ready};

use crate::{Reward, RewardError, Sample, Score};

/// Each domain's samples go to that domain's reward; a domain without one is an error.
///
/// ```
/// use posttrain_reward::{Reward, Sample, Verifier};
/// use posttrain_reward::compose::PerDomain;
/// use posttrain_reward::verifiers::{AnswerConfig, ExactMatch};
/// use std::sync::Arc;
///
/// let table = PerDomain::new()
///     .with("mathematics", Arc::new(AnswerConfig::default().build()?.into_reward()))
///     .with("codes", Arc::new(ExactMatch.into_reward()));
/// let sample = Sample { domain: "codes".into(), ..Sample::new("Say xK.", "xK", "It is xK") };
/// assert_eq!(futures::executor::block_on(table.score(&sample))?.value(), 0.0);
///
/// let stray = Sample { domain: "law".into(), ..sample };
/// assert_eq!(futures::executor::block_on(table.score(&stray)).unwrap_err().cause(), "unknown_domain");
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Clone, Default)]
pub struct PerDomain {
    rewards: BTreeMap<String, Arc<dyn Reward>>,
}

impl PerDomain {
    /// An empty table.
    ///
    /// ```
    /// use posttrain_reward::{Reward, Sample};
    /// use posttrain_reward::compose::PerDomain;
    ///
    /// let error = futures::executor::block_on(PerDomain::new().score(&Sample::new("", "4", "4"))).unwrap_err();
    /// assert_eq!(error.cause(), "unknown_domain");
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the reward of a domain, in place of an earlier one.
    ///
    /// ```
    /// use posttrain_reward::{Reward, Sample, Verifier};
    /// use posttrain_reward::compose::PerDomain;
    /// use posttrain_reward::verifiers::ExactMatch;
    ///
    /// let table = PerDomain::new().with("law", std::sync::Arc::new(ExactMatch.into_reward()));
    /// let sample = Sample { domain: "law".into(), ..Sample::new("", "yes", "yes") };
    /// assert_eq!(futures::executor::block_on(table.score(&sample))?.value(), 1.0);
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    #[must_use]
    pub fn with(mut self, domain: impl Into<String>, reward: Arc<dyn Reward>) -> Self {
        self.rewards.insert(domain.into(), reward);
        self
    }

    fn unknown(&self, sample: &Sample) -> RewardError {
        let known = self.rewards.keys().cloned().collect();
        RewardError::UnknownDomain { id: sample.id.clone(), domain: sample.domain.clone(), known }
    }
}

impl Reward for PerDomain {
    fn name(&self) -> &str {
        "per_domain"
    }

    fn score<'a>(&'a self, sample: &'a Sample) -> BoxFuture<'a, Result<Score, RewardError>> {
        match self.rewards.get(&sample.domain) {
            Some(reward) => reward.score(sample),
            None => Box::pin(ready(Err(self.unknown(sample)))),
        }
    }
}
