//! What a reward looks at: a question, its reference answer and one completion.

use posttrain_answer::AnswerError;
use posttrain_chat::FinishReason;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::RewardError;

/// One completion with all that a reward may need to judge it.
///
/// ```
/// use posttrain_chat::FinishReason;
/// use posttrain_reward::Sample;
///
/// let sample = Sample { domain: "mathematics".into(), ..Sample::new("What is 3 + 9?", "12", "It is 12.") };
/// assert_eq!((sample.reference.as_str(), sample.termination), ("12", FinishReason::Stop));
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sample {
    /// The dataset row's key; error messages name it.
    pub id: String,
    /// The question's domain, which [`PerDomain`](crate::compose::PerDomain) chooses a reward by.
    pub domain: String,
    /// What the policy was asked.
    pub question: String,
    /// The right answer. Never shown to the policy.
    pub reference: String,
    /// What the policy answered, decoded, without special tokens.
    pub response: String,
    /// How the response ended.
    pub termination: FinishReason,
    /// How many tokens the response has in the policy's vocabulary, its end token included, where
    /// the sampler counted.
    pub tokens: Option<usize>,
    /// Whatever else the dataset row carries (test cases, file names).
    pub metadata: Map<String, Value>,
}

impl Sample {
    /// A sample with no id, domain or metadata, which the model itself ended.
    ///
    /// ```
    /// let sample = posttrain_reward::Sample::new("2 + 2?", "4", "4");
    /// assert_eq!(sample.response, "4");
    /// ```
    pub fn new(
        question: impl Into<String>,
        reference: impl Into<String>,
        response: impl Into<String>,
    ) -> Self {
        Self {
            question: question.into(),
            reference: reference.into(),
            response: response.into(),
            ..Self::default()
        }
    }

    /// The reference without surrounding white space.
    ///
    /// # Errors
    /// [`RewardError::EmptyReference`] where nothing is left: an unanswerable question is a mistake
    /// in the data.
    pub(crate) fn checked_reference(&self) -> Result<&str, RewardError> {
        match self.reference.trim() {
            "" => Err(RewardError::EmptyReference { id: self.id.clone() }),
            reference => Ok(reference),
        }
    }

    /// The error for a field, or a key of the metadata, that the sample lacks.
    pub(crate) fn missing(&self, field: &'static str, expected: &'static str) -> RewardError {
        RewardError::MissingField { id: self.id.clone(), field, expected }
    }

    /// The error for a reference that is not `expected`.
    pub(crate) fn bad_reference(&self, expected: &'static str) -> RewardError {
        let reference = self.reference.chars().take(80).collect();
        RewardError::BadReference { id: self.id.clone(), reference, expected }
    }

    /// The error for a reference that agrees with no answer.
    pub(crate) fn refused(&self, error: AnswerError) -> RewardError {
        match error {
            AnswerError::EmptyReference => RewardError::EmptyReference { id: self.id.clone() },
            AnswerError::BadReference { reference, expected } => {
                RewardError::BadReference { id: self.id.clone(), reference, expected }
            }
            other => RewardError::invalid_rule(other),
        }
    }

    /// The error for two answers that `verifier` cannot tell apart.
    pub(crate) fn undecided(&self, verifier: &str, reason: &'static str) -> RewardError {
        RewardError::Undecided { id: self.id.clone(), verifier: verifier.to_owned(), reason }
    }
}
