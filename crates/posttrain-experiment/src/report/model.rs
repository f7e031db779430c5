//! What one model did.

use crate::Dynamics;
use posttrain_statistics::Share;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A trained model: its training, and its accuracy on every domain's test set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    /// The domains that it was trained on: one for a specialist, several for a generalist.
    #[serde(default)]
    pub domains: Vec<String>,
    /// Steps trained.
    pub steps: u64,
    /// Seconds of training, validation left out.
    pub seconds: f64,
    /// The step whose checkpoint was the best in validation, and is what was tested.
    pub best_step: u64,
    /// Validation accuracy: step and share, in the order of steps.
    #[serde(default)]
    pub validation: Vec<(u64, f64)>,
    /// How the reward moved, by [`Dynamics::of`].
    pub dynamics: Dynamics,
    /// Each domain's test set: one answer a question, sampled at temperature 1.
    #[serde(default)]
    pub test: BTreeMap<String, Share>,
    /// The same, the most probable token each time; absent where it was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_greedy: Option<BTreeMap<String, Share>>,
    /// A point a step.
    #[serde(default)]
    pub curve: Vec<CurvePoint>,
}

impl ModelReport {
    /// Whether it was trained on more than one domain.
    #[must_use]
    pub fn is_generalist(&self) -> bool {
        self.domains.len() > 1
    }

    /// Accuracy over all test sets together; none where it was not tested.
    ///
    /// ```
    /// use posttrain_experiment::ModelReport;
    /// use posttrain_statistics::Share;
    ///
    /// let test = [("math".to_owned(), Share::of(1, 2)), ("social".to_owned(), Share::of(2, 2))].into();
    /// assert_eq!(ModelReport { test, ..ModelReport::default() }.test_pooled(), Some(Share::of(3, 4)));
    /// ```
    #[must_use]
    pub fn test_pooled(&self) -> Option<Share> {
        Share::pooled(self.test.values())
    }
}

/// The untrained base.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BaseReport {
    /// Each domain's test set, as for a model.
    #[serde(default)]
    pub test: BTreeMap<String, Share>,
    /// The same, greedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_greedy: Option<BTreeMap<String, Share>>,
}

/// One training step, of what `metrics.jsonl` has of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// The step, from 1.
    pub step: u64,
    /// Mean reward of the step's completions.
    pub reward: f64,
    /// Deviation of those rewards.
    #[serde(default)]
    pub reward_std: f64,
    /// Share of groups with unequal rewards: the others teach nothing.
    #[serde(default)]
    pub groups_with_signal: f64,
    /// Mean |train − sampling| log-probability, nats.
    #[serde(default)]
    pub logprob_gap: f64,
    /// Mean entropy of the policy, nats.
    #[serde(default)]
    pub entropy: f64,
    /// Mean tokens of a completion.
    #[serde(default)]
    pub completion_tokens: f64,
    /// Share of completions that were cut.
    #[serde(default)]
    pub truncated: f64,
    /// Seconds of the step.
    #[serde(default)]
    pub seconds: f64,
}

/// A model that is not in the report, because its training did not finish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingModel {
    /// Its name.
    pub model: String,
    /// Why, in words.
    pub reason: String,
    /// Its last saved step; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_step: Option<u64>,
}
