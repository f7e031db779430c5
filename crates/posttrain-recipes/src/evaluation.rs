//! Accuracy on held-out examples.

use posttrain_statistics::Share;
use serde::{Deserialize, Serialize};

/// A policy's accuracy on a set of examples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Answers sampled at temperature 1. Where there are several to a question they are not
    /// independent, and the interval is narrower than the truth.
    pub sampled: Share,
    /// One answer an example, the most probable token each time; absent where it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub greedy: Option<Share>,
}

/// Which answers are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvaluationMode {
    /// Sampled at temperature 1 alone.
    Sampled,
    /// Sampled and greedy.
    SampledAndGreedy,
}
