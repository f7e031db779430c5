//! What a response is worth that has only some of what was asked for.

use serde::{Deserialize, Serialize};

use crate::{RewardError, Score};

/// What a part of the answer is worth.
///
/// ```
/// use posttrain_reward::{Sample, Verifier};
/// use posttrain_reward::verifiers::{ContainsConfig, Partial};
///
/// let sample = Sample::new("Name the first two noble gases.", "helium; neon", "Helium and argon.");
/// let value = |partial| {
///     let verifier = ContainsConfig { partial, ..ContainsConfig::default() }.build()?;
///     verifier.verify(&sample).map(|score| score.value())
/// };
/// assert_eq!(value(Partial::Nothing)?, 0.0);
/// assert_eq!(value(Partial::Share)?, 0.5);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Partial {
    /// Nothing: all or nothing keeps the reward binary, as the common baselines have it.
    #[default]
    Nothing,
    /// Its share of the whole.
    Share,
}

impl Partial {
    /// The score of `found` out of `all`, with the share as a part for the metrics.
    pub(crate) fn score(self, found: usize, all: usize) -> Result<Score, RewardError> {
        let share = if all == 0 { 0.0 } else { found as f64 / all as f64 };
        let score = match self {
            Self::Nothing => Score::binary(found == all && all > 0),
            Self::Share => Score::new(share)?,
        };
        score.with_part("share", share)
    }
}
