//! What a response is worth that was cut off.

use serde::{Deserialize, Serialize};

use crate::{Sample, Score};

/// What a response is worth that was cut off.
///
/// ```
/// use posttrain_chat::FinishReason;
/// use posttrain_reward::verifiers::AnswerConfig;
/// use posttrain_reward::{Sample, Truncated, Verifier};
///
/// let sample = Sample { termination: FinishReason::Length, ..Sample::new("3 + 9?", "12", "It is 12") };
/// let value = |truncated| {
///     let reward = AnswerConfig { truncated, ..AnswerConfig::default() }.build()?;
///     reward.verify(&sample).map(|score| score.value())
/// };
/// assert_eq!(value(Truncated::Judged)?, 1.0);
/// assert_eq!(value(Truncated::Wrong)?, 0.0);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncated {
    /// What its text is worth, as in TRL, where `mask_truncated_completions` is off by default.
    #[default]
    Judged,
    /// Nothing: the policy is to end by itself.
    Wrong,
}

impl Truncated {
    /// The score of a response that is wrong for being cut off.
    pub(crate) fn score(self, sample: &Sample) -> Option<Score> {
        let wrong = self == Self::Wrong && sample.termination.is_truncated();

        wrong.then(|| Score::binary(false).with_note("cut off"))
    }
}
