//! Right where the response is the reference, byte for byte.

use crate::{RewardError, Sample, Score, Verifier};

/// `response == reference`, nothing trimmed.
///
/// ```
/// use posttrain_reward::{Sample, Verifier};
/// use posttrain_reward::verifiers::ExactMatch;
///
/// assert_eq!(ExactMatch.verify(&Sample::new("2 + 2?", "4", "4"))?.value(), 1.0);
/// assert_eq!(ExactMatch.verify(&Sample::new("2 + 2?", "4", "4 "))?.value(), 0.0);
/// assert_eq!(ExactMatch.verify(&Sample::new("2 + 2?", " ", "4")).unwrap_err().cause(), "empty_reference");
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExactMatch;

impl Verifier for ExactMatch {
    fn name(&self) -> &str {
        "exact"
    }

    fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
        sample.checked_reference()?;
        Ok(Score::binary(sample.response == sample.reference))
    }
}
