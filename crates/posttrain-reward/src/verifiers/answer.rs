//! The binary reward of short answers.

use posttrain_answer::response::ending;
use posttrain_answer::short::ShortAnswer;
use serde::{Deserialize, Serialize};

use crate::{RewardError, Sample, Score, Truncated, Verifier};

/// The reward of questions with a short answer, a number or a few words: 1 or 0, by
/// [`ShortAnswer`], which says what is accepted and what earns nothing.
///
/// In a file the fields of `rule` stand beside the others: `strictness = "whole_response"`.
///
/// ```
/// use posttrain_reward::verifiers::AnswerConfig;
/// use posttrain_reward::{Sample, Verifier};
///
/// let reward = AnswerConfig::default().build()?;
/// let value = |reference: &str, response: &str| {
///     reward.verify(&Sample::new("?", reference, response)).map(|score| score.value())
/// };
/// assert_eq!(value("12", "3 + 9 = 12")?, 1.0);
/// assert_eq!(value("9", "7 8 9 10")?, 0.0);
/// assert_eq!(value("Paris", "The capital of France is Paris.")?, 1.0);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnswerConfig {
    /// Where the answer is, and when it is right.
    #[serde(flatten)]
    pub rule: ShortAnswer,
    /// What a response is worth that was cut off. Default: what its text is worth.
    pub truncated: Truncated,
}

impl AnswerConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// use posttrain_reward::verifiers::AnswerConfig;
    ///
    /// let mut config = AnswerConfig::default();
    /// assert!(config.validate().is_ok());
    /// config.rule.order.clear();
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
    /// use posttrain_answer::short::{ShortAnswer, Strictness};
    /// use posttrain_reward::verifiers::AnswerConfig;
    /// use posttrain_reward::{Sample, Verifier};
    ///
    /// let rule = ShortAnswer { strictness: Strictness::WholeResponse, ..ShortAnswer::default() };
    /// let strict = AnswerConfig { rule, ..AnswerConfig::default() }.build()?;
    /// assert_eq!(strict.verify(&Sample::new("3 + 9?", "12", " 12. "))?.value(), 1.0);
    /// assert_eq!(strict.verify(&Sample::new("3 + 9?", "12", "It is 12"))?.value(), 0.0);
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn build(self) -> Result<AnswerMatch, RewardError> {
        self.validate()?;
        Ok(AnswerMatch { config: self })
    }
}

/// The verifier that [`AnswerConfig`] describes and builds.
///
/// The score's note says what was compared, for the eyes of whoever reads the samples.
///
/// ```
/// use posttrain_reward::verifiers::AnswerConfig;
/// use posttrain_reward::{Sample, Verifier};
///
/// let score = AnswerConfig::default().build()?.verify(&Sample::new("3 + 9?", "12", "The answer is 13."))?;
/// assert_eq!(score.note(), Some("`13` by Phrase, expected `12`"));
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerMatch {
    config: AnswerConfig,
}

impl Verifier for AnswerMatch {
    fn name(&self) -> &str {
        "answer"
    }

    fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
        let comparison = self.config.rule.compare(&sample.reference, &sample.response);
        let comparison = comparison.map_err(|error| sample.refused(error))?;
        if let Some(score) = self.config.truncated.score(sample) {
            return Ok(score);
        }

        let score = Score::binary(comparison.verdict.is_same());
        let Some(found) = comparison.found else {
            return Ok(score.with_note("no answer found"));
        };
        let expected = ending(sample.reference.trim(), 80);
        Ok(score.with_note(format!(
            "`{}` by {:?}, expected `{expected}`",
            ending(&found.text, 80),
            found.by
        )))
    }
}
