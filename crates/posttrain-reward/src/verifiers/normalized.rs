//! Right where the response is the reference after normalization.

use crate::{RewardError, Sample, Score, Verifier};
use posttrain_answer::text::Normalizer;

/// The longest response that is looked at, in bytes; a longer one is no short answer and is wrong.
const MAX_BYTES: usize = 64 * 1024;

/// The whole response equals the reference under a [`Normalizer`]. A response of more than 64 KiB
/// is wrong.
///
/// ```
/// use posttrain_reward::{Sample, Verifier};
/// use posttrain_reward::verifiers::NormalizedMatch;
///
/// let verifier = NormalizedMatch::default();
/// assert_eq!(verifier.verify(&Sample::new("Capital of France?", "Paris", " paris. "))?.value(), 1.0);
/// assert_eq!(verifier.verify(&Sample::new("Capital of France?", "Paris", "It is Paris."))?.value(), 0.0);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NormalizedMatch {
    /// What counts as the same.
    pub normalizer: Normalizer,
}

impl Verifier for NormalizedMatch {
    fn name(&self) -> &str {
        "normalized"
    }

    fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
        let reference = sample.checked_reference()?;
        let short = sample.response.len() <= MAX_BYTES;
        Ok(Score::binary(short && self.normalizer.matches(&sample.response, reference)))
    }
}
