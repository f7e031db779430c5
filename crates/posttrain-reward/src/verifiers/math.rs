//! Right where the response's answer is the reference's, as mathematics.

use posttrain_answer::Verdict;
use posttrain_answer::math::Math;
use posttrain_answer::response::ending;
use serde::{Deserialize, Serialize};

use crate::{RewardError, Sample, Score, Truncated, Verifier};

/// What a response is worth whose answer is not of the grammar that is read, or longer, deeper or
/// larger than what is read.
///
/// ```
/// use posttrain_reward::verifiers::{MathConfig, Unreadable};
/// use posttrain_reward::{Sample, Verifier};
///
/// let sample = Sample::new("?", "5", r"\boxed{\int 2x}");
/// let wrong = MathConfig::default().build()?;
/// assert_eq!(wrong.verify(&sample)?.value(), 0.0);
/// let undecided = MathConfig { unreadable: Unreadable::Undecided, ..MathConfig::default() }.build()?;
/// assert_eq!(undecided.verify(&sample).unwrap_err().cause(), "undecided");
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unreadable {
    /// Nothing, as in math-verify: the policy is to write answers that can be read.
    #[default]
    Wrong,
    /// [`RewardError::Undecided`], so that something else may look at it.
    Undecided,
}

/// The reward of questions whose answer is mathematics: 1 or 0, by [`Math`], which says what is
/// read and when it is right.
///
/// Where both sides are read and cannot be told apart within the budget, the error is
/// [`RewardError::Undecided`]; a reference that cannot be read is [`RewardError::BadReference`]. In
/// a file the fields of `rule` stand beside the others: `decimals = 3`.
///
/// ```
/// use posttrain_reward::verifiers::MathConfig;
/// use posttrain_reward::{Sample, Verifier};
///
/// let verifier = MathConfig::default().build()?;
/// let value = |reference: &str, response: &str| {
///     verifier.verify(&Sample::new("?", reference, response)).map(|score| score.value())
/// };
/// assert_eq!(value(r"\frac{1}{2}", r"So it is \boxed{0.5}.")?, 1.0);
/// assert_eq!(value("2", r"\boxed{1 \text{ or } 2}")?, 0.0);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MathConfig {
    /// Where the answer is, and when it is right.
    #[serde(flatten)]
    pub rule: Math,
    /// What a response is worth that was cut off. Default: what its text is worth.
    pub truncated: Truncated,
    /// What a response is worth whose answer cannot be read. Default: nothing, as in math-verify.
    pub unreadable: Unreadable,
}

impl MathConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// use posttrain_reward::verifiers::MathConfig;
    ///
    /// let mut config = MathConfig::default();
    /// config.rule.decimals = 1000;
    /// assert!(config.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        self.rule.validate().map_err(RewardError::invalid_rule)
    }

    /// The verifier.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    ///
    /// ```
    /// use posttrain_reward::verifiers::MathConfig;
    /// use posttrain_reward::{Sample, Verifier};
    ///
    /// let verifier = MathConfig::default().build()?;
    /// assert_eq!(verifier.verify(&Sample::new("?", r"2\sqrt{3}", r"\boxed{\sqrt{12}}"))?.value(), 1.0);
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn build(self) -> Result<MathMatch, RewardError> {
        self.validate()?;
        Ok(MathMatch { config: self })
    }
}

/// The verifier that [`MathConfig`] describes and builds.
///
/// The score's note says what was compared.
///
/// ```
/// use posttrain_reward::verifiers::MathConfig;
/// use posttrain_reward::{Sample, Verifier};
///
/// let score = MathConfig::default().build()?.verify(&Sample::new("?", "5", r"\boxed{6}"))?;
/// assert_eq!(score.note(), Some("`6`, expected `5`"));
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct MathMatch {
    config: MathConfig,
}

impl Verifier for MathMatch {
    fn name(&self) -> &str {
        "math"
    }

    fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
        let comparison = self.config.rule.compare(&sample.reference, &sample.response);
        let comparison = comparison.map_err(|error| sample.refused(error))?;
        if let Some(score) = self.config.truncated.score(sample) {
            return Ok(score);
        }

        let score = match comparison.verdict {
            Verdict::Same => Score::binary(true),
            Verdict::Different => Score::binary(false),
            Verdict::Missing => return self.unreadable(sample, "no answer found"),
            Verdict::Unreadable(reason) => return self.unreadable(sample, reason),
            Verdict::Undecided(reason) => return Err(sample.undecided(self.name(), reason)),
            _ => {
                return Err(sample
                    .undecided(self.name(), "the verdict is of a kind that is not known here"));
            }
        };
        let found = comparison.found.map(|found| found.text).unwrap_or_default();
        let expected = ending(sample.reference.trim(), 80);
        Ok(score.with_note(format!("`{}`, expected `{expected}`", ending(&found, 80))))
    }
}

impl MathMatch {
    fn unreadable(&self, sample: &Sample, reason: &'static str) -> Result<Score, RewardError> {
        match self.config.unreadable {
            Unreadable::Wrong => Ok(Score::binary(false).with_note(reason)),
            Unreadable::Undecided => Err(sample.undecided(self.name(), reason)),
        }
    }
}
