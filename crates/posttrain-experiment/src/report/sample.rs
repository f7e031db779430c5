//! What a model answered.

use serde::{Deserialize, Serialize};

/// One question of the test set, with a model's response. Ten a model, chosen by rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerSample {
    /// The model.
    pub model: String,
    /// The question's domain.
    #[serde(default)]
    pub domain: String,
    /// The question.
    pub question: String,
    /// The reference answer.
    #[serde(default)]
    pub reference: String,
    /// What the model wrote.
    pub response: String,
    /// Whether the verifier found it right; absent where it failed.
    #[serde(default)]
    pub verdict: Option<bool>,
    /// Why there is no verdict.
    #[serde(default)]
    pub error: Option<String>,
}
