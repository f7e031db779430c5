//! What a router is asked, and what it answers.

use serde::{Deserialize, Serialize};

/// A question with a name.
///
/// ```
/// let question = posttrain_router::Question::new("q1", "What is 7 + 5?");
/// assert_eq!(question.text, "What is 7 + 5?");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Names it, in errors and reports.
    pub id: String,
    /// What is asked.
    pub text: String,
}

impl Question {
    /// A question of this name and text.
    ///
    /// ```
    /// assert_eq!(posttrain_router::Question::new("q1", "Why?").id, "q1");
    /// ```
    pub fn new(id: impl Into<String>, text: impl Into<String>) -> Self {
        Self { id: id.into(), text: text.into() }
    }
}

/// Where a question goes.
///
/// ```
/// let decision = posttrain_router::Decision { label: 1, probabilities: vec![0.25, 0.75], seconds: 0.0 };
/// assert_eq!(decision.confidence(), 0.75);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The label's place among the router's labels.
    pub label: usize,
    /// How probable each label is, one a label; they add up to 1.
    pub probabilities: Vec<f64>,
    /// What the decision took, in seconds; where questions are decided together, each one's share.
    pub seconds: f64,
}

impl Decision {
    /// The probability of the label; 0 where there is none of that place.
    ///
    /// ```
    /// let decision = posttrain_router::Decision { label: 2, probabilities: vec![0.25, 0.75], seconds: 0.0 };
    /// assert_eq!(decision.confidence(), 0.0);
    /// ```
    #[must_use]
    pub fn confidence(&self) -> f64 {
        self.probabilities.get(self.label).copied().unwrap_or(0.0)
    }

    /// All probability on one label.
    pub(crate) fn certain(label: usize, labels: usize, seconds: f64) -> Self {
        Self {
            label,
            probabilities: (0..labels).map(|at| f64::from(u8::from(at == label))).collect(),
            seconds,
        }
    }

    /// The most probable label, the first of equals.
    pub(crate) fn most_probable(probabilities: Vec<f64>, seconds: f64) -> Self {
        let higher = |best: usize, at: usize| {
            if probabilities[at] > probabilities[best] { at } else { best }
        };
        Self { label: (0..probabilities.len()).reduce(higher).unwrap_or(0), probabilities, seconds }
    }
}
