//! A cascade: the cheap reward first, the dear one where the first cannot say.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::{Reward, RewardError, Sample, Score};

/// Which errors of a reward send the sample on to the next one.
///
/// ```
/// use posttrain_reward::RewardError;
/// use posttrain_reward::compose::GoOn;
///
/// let undecided = RewardError::Undecided { id: "7".into(), verifier: "math".into(), reason: "a proof" };
/// let late = RewardError::TimedOut { reward: "math".into(), seconds: 1.0 };
/// assert!(GoOn::CannotSay.after(&undecided) && !GoOn::CannotSay.after(&late));
/// assert!(GoOn::AnyFailure.after(&undecided) && GoOn::AnyFailure.after(&late));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GoOn {
    /// Only where the reward is not made for the sample: [`RewardError::BadReference`] and
    /// [`RewardError::Undecided`]. A crash, a limit or a mistake in the data stays an error, so
    /// that it is counted and seen.
    #[default]
    CannotSay,
    /// Whatever the error is. Faults of the first reward then shift verdicts to the second without
    /// a word.
    AnyFailure,
}

impl GoOn {
    /// Whether `error` sends the sample on.
    ///
    /// ```
    /// use posttrain_reward::RewardError;
    /// use posttrain_reward::compose::GoOn;
    ///
    /// assert!(!GoOn::CannotSay.after(&RewardError::EmptyReference { id: "7".into() }));
    /// ```
    #[must_use]
    pub fn after(self, error: &RewardError) -> bool {
        match self {
            Self::CannotSay => {
                matches!(error, RewardError::BadReference { .. } | RewardError::Undecided { .. })
            }
            Self::AnyFailure => true,
        }
    }
}

/// The verdict of the first reward that has one: a verifier, then a judge where the verifier cannot
/// say.
///
/// The rewards are asked one after the other, so a judge is paid only for what the verifier leaves
/// over. The score is the deciding reward's own, with a part under that reward's name and the name
/// in the note. Where none decides, the last error is the result.
///
/// ```
/// use posttrain_answer::number::Numeric;
/// use posttrain_reward::compose::{FirstThatDecides, GoOn};
/// use posttrain_reward::verifiers::NumericMatch;
/// use posttrain_reward::{Reward, Sample, Score, Verifier, from_fn};
/// use std::sync::Arc;
///
/// let judge = from_fn("judge", |sample: &Sample| Ok(Score::binary(sample.response.contains("prime"))));
/// let verifier = NumericMatch::new(Numeric::default())?.into_reward();
/// let reward = FirstThatDecides::new([Arc::new(verifier) as Arc<dyn Reward>, Arc::new(judge)], GoOn::CannotSay)?;
/// let score = |sample: Sample| futures::executor::block_on(reward.score(&sample));
///
/// assert_eq!(score(Sample::new("2 + 2?", "4", "4"))?.note(), Some("decided by `numeric`"));
/// let asked = score(Sample::new("What is 7?", "a prime number", "It is prime."))?;
/// assert_eq!((asked.value(), asked.parts()), (1.0, [("judge".to_owned(), 1.0)].as_slice()));
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Clone)]
pub struct FirstThatDecides {
    rewards: Vec<Arc<dyn Reward>>,
    go_on: GoOn,
}

impl FirstThatDecides {
    /// A cascade of rewards, in the order in which they are asked.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] where there is no reward.
    ///
    /// ```
    /// use posttrain_reward::compose::{FirstThatDecides, GoOn};
    ///
    /// assert_eq!(FirstThatDecides::new([], GoOn::CannotSay).err().unwrap().cause(), "invalid_config");
    /// ```
    pub fn new(
        rewards: impl IntoIterator<Item = Arc<dyn Reward>>,
        go_on: GoOn,
    ) -> Result<Self, RewardError> {
        let rewards: Vec<_> = rewards.into_iter().collect();
        if rewards.is_empty() {
            return Err(RewardError::InvalidConfig {
                field: "rewards",
                got: "none".to_owned(),
                expected: "at least one",
            });
        }
        Ok(Self { rewards, go_on })
    }

    async fn decide(&self, sample: &Sample) -> Result<Score, RewardError> {
        let mut last = RewardError::Cancelled { reward: self.name().to_owned() };
        for reward in &self.rewards {
            match reward.score(sample).await {
                Ok(score) => return decided_by(reward.name(), score),
                Err(error) if self.go_on.after(&error) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

impl Reward for FirstThatDecides {
    fn name(&self) -> &str {
        "first_that_decides"
    }

    fn score<'a>(&'a self, sample: &'a Sample) -> BoxFuture<'a, Result<Score, RewardError>> {
        Box::pin(self.decide(sample))
    }
}

fn decided_by(name: &str, score: Score) -> Result<Score, RewardError> {
    let value = score.value();
    let note = match score.note() {
        Some(note) => format!("decided by `{name}`: {note}"),
        None => format!("decided by `{name}`"),
    };
    Ok(score.with_part(name, value)?.with_note(note))
}
