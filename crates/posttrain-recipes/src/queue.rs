//! What has been sampled and scored, and not been trained on yet, as a saved state holds it.

use crate::rollout::{Rollout, RolloutCost, ScoreFailure, ScoredCompletion, ScoredGroup};
use posttrain_data::Example;
use posttrain_reward::Score;
use posttrain_rollout::{Completion, FinishReason};
use serde::{Deserialize, Serialize};

/// A batch that waits to be trained on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedRollout {
    groups: Vec<SavedGroup>,
    cost: RolloutCost,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedGroup {
    example: Example,
    prompt: Vec<i64>,
    completions: Vec<SavedCompletion>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedCompletion {
    tokens: Vec<i64>,
    logprobs: Vec<f32>,
    text: String,
    finish_reason: FinishReason,
    policy_version: u64,
    token_versions: Vec<u64>,
    score: Result<Score, ScoreFailure>,
}

impl From<&Rollout> for SavedRollout {
    fn from(rollout: &Rollout) -> Self {
        Self { groups: rollout.groups.iter().map(SavedGroup::from).collect(), cost: rollout.cost }
    }
}

impl From<SavedRollout> for Rollout {
    fn from(saved: SavedRollout) -> Self {
        Self { groups: saved.groups.into_iter().map(ScoredGroup::from).collect(), cost: saved.cost }
    }
}

impl From<&ScoredGroup> for SavedGroup {
    fn from(group: &ScoredGroup) -> Self {
        Self {
            example: group.example.clone(),
            prompt: group.prompt.clone(),
            completions: group.completions.iter().map(SavedCompletion::from).collect(),
        }
    }
}

impl From<SavedGroup> for ScoredGroup {
    fn from(saved: SavedGroup) -> Self {
        Self {
            example: saved.example,
            prompt: saved.prompt,
            completions: saved.completions.into_iter().map(ScoredCompletion::from).collect(),
        }
    }
}

impl From<&ScoredCompletion> for SavedCompletion {
    fn from(scored: &ScoredCompletion) -> Self {
        let completion = &scored.completion;
        Self {
            tokens: completion.tokens.clone(),
            logprobs: completion.logprobs.clone(),
            text: completion.text.clone(),
            finish_reason: completion.finish_reason,
            policy_version: completion.policy_version,
            token_versions: completion.token_versions.clone(),
            score: scored.score.clone(),
        }
    }
}

impl From<SavedCompletion> for ScoredCompletion {
    fn from(saved: SavedCompletion) -> Self {
        let completion = Completion {
            tokens: saved.tokens,
            logprobs: saved.logprobs,
            text: saved.text,
            finish_reason: saved.finish_reason,
            policy_version: saved.policy_version,
            token_versions: saved.token_versions,
            recording: None,
        };
        Self { completion, score: saved.score }
    }
}
