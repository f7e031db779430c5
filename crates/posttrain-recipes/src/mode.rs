//! How sampling and training take turns.

use crate::RecipeError;
use posttrain_rollout::service::Transition;
use serde::{Deserialize, Serialize};

/// How sampling and training take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A step samples and scores all of its groups, then trains on them.
    #[default]
    OnPolicy,
    /// A step trains on each group as soon as its last reward is in, while others are sampled and
    /// scored; gradients add up to one optimizer step at its end. As on-policy as the above.
    Streaming,
    /// Sampling goes on while the trainer trains, by a policy that is at most
    /// [`RlConfig::max_staleness`](crate::RlConfig::max_staleness) versions behind.
    Asynchronous,
}

/// In which order groups are trained on, where they do not wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupOrder {
    /// The order of the data: a run repeats, and resumes, to the same numbers. Its price is to
    /// wait: in streaming for the groups before, in asynchronous runs for all groups of a batch,
    /// and at each checkpoint for the batches that are being sampled.
    #[default]
    Fixed,
    /// The order in which they are finished. Nothing waits, and no run repeats another one.
    Arrival,
}

/// What becomes of a group that is too stale when its turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StaleGroups {
    /// It is not trained on; its example comes again in the next epoch.
    Drop,
    /// It is not trained on; its example is sampled again at once.
    #[default]
    Requeue,
    /// It is trained on all the same: for an objective that corrects for it.
    Keep,
}

/// What an asynchronous run that trains in the order of arrival does besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AsynchronousConfig {
    /// What becomes of groups that are too stale.
    pub stale_groups: StaleGroups,
    /// What becomes of completions under way when a new policy comes: they finish on the one that
    /// they began with, or follow the new one from their next token on.
    pub transition: Transition,
    /// Groups that are sampled, scored or waiting to be trained on at a time, at least a step's
    /// prompts; by default as many steps' prompts as they may be steps stale, one's at least. Sampling
    /// waits where there are as many.
    pub queued_groups: Option<usize>,
}

impl AsynchronousConfig {
    /// Checks the ranges.
    pub(crate) fn validate(&self, prompts: u64) -> Result<(), RecipeError> {
        let queued = self.queued_groups.unwrap_or(usize::MAX);
        RecipeError::check(
            "asynchronous.queued_groups",
            queued as u64 >= prompts,
            "at least `prompts`: fewer never make a batch",
            &queued,
        )
    }
}
