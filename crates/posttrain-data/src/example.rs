//! One question with its answer.

use serde::{Deserialize, Serialize};

/// A JSON object of whatever else a row carries.
pub type Metadata = serde_json::Map<String, serde_json::Value>;

/// One question with its answer, the unit of every dataset, split and batch.
///
/// Serializes with its fields in this order, `metadata` only where there is some:
///
/// ```
/// use posttrain_data::Example;
///
/// let example = Example::new("math/add/5+7#0", "math", "What is 5 + 7?", "12").with_group("math/add/5+7");
/// assert_eq!(
///     serde_json::to_string(&example).unwrap(),
///     r#"{"id":"math/add/5+7#0","domain":"math","question":"What is 5 + 7?","answer":"12","group":"math/add/5+7"}"#
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// Names the row; no two rows of a dataset share it.
    pub id: String,
    /// The subject that a specialist is trained on and that splits are stratified by.
    pub domain: String,
    /// What the model is asked, as it is.
    pub question: String,
    /// The short answer that a verifier compares with.
    pub answer: String,
    /// Names the fact that the question is about; rows of one group never stand on two sides of a
    /// split.
    pub group: String,
    /// Whatever else the row carries; nothing in this crate looks at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
}

impl Example {
    /// An example whose group is its own question (see
    /// [`normalize_question`](crate::normalize_question)).
    pub fn new(
        id: impl Into<String>,
        domain: impl Into<String>,
        question: impl Into<String>,
        answer: impl Into<String>,
    ) -> Self {
        let question = question.into();
        let group = crate::normalize_question(&question);
        Self {
            id: id.into(),
            domain: domain.into(),
            question,
            answer: answer.into(),
            group,
            metadata: None,
        }
    }

    /// The same example in another group.
    #[must_use]
    pub fn with_group(mut self, group: impl Into<String>) -> Self {
        self.group = group.into();
        self
    }
}
