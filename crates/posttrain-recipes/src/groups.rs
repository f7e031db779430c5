//! A step's groups, with others in the place of those that teach nothing.

use crate::RecipeError;
use crate::ahead::BatchRequest;
use crate::config::RlConfig;
use crate::curriculum::Curriculum;
use crate::rollout::ScoredGroup;
use crate::shaping::RewardShaping;
use posttrain_rollout::{PolicySnapshot, SamplingParams};
use posttrain_train::derive_seed;
use serde::{Deserialize, Serialize};

/// Has groups that teach nothing replaced by others (DAPO's dynamic sampling, arXiv 2503.14476),
/// until there are `prompts` that teach, or the budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DynamicSampling {
    /// The budget: a step samples at most so many times `prompts` groups, 1 and up; with 1 nothing
    /// is replaced. verl: `max_num_gen_batches`.
    pub max_batches: u64,
    /// A group whose advantages lie within this of each other is not trained on, at least 0. At 0
    /// those are the groups without any signal.
    pub min_advantage_range: f64,
}

impl Default for DynamicSampling {
    fn default() -> Self {
        Self { max_batches: 3, min_advantage_range: 0.0 }
    }
}

impl DynamicSampling {
    pub(crate) fn validate(&self) -> Result<(), RecipeError> {
        RecipeError::check_counts(&[("dynamic_sampling.max_batches", self.max_batches)])?;
        let range = self.min_advantage_range;
        let fits = range.is_finite() && range >= 0.0;
        let field = "dynamic_sampling.min_advantage_range";
        RecipeError::check(field, fits, "finite and at least 0", &range)
    }
}

impl RlConfig {
    /// Whether a group is worth training on.
    pub(crate) fn teaches(&self, group: &ScoredGroup) -> Result<bool, RecipeError> {
        let Some(dynamic) = self.dynamic_sampling else { return Ok(true) };
        let range = group.advantage_range(&self.advantage, &RewardShaping::of(self))?;
        Ok(f64::from(range) > dynamic.min_advantage_range)
    }

    /// How the completions of a step's group `row` are sampled.
    fn sampling_of(&self, step: u64, row: u64) -> SamplingParams {
        let seed = derive_seed(self.seed, "sample", step, row);
        SamplingParams { seed, ..self.sampling.clone() }
    }

    /// Groups that a step may sample.
    pub(crate) fn group_budget(&self) -> u64 {
        let batches = self.dynamic_sampling.map_or(1, |dynamic| dynamic.max_batches);
        self.prompts.saturating_mul(batches)
    }

    /// Divides what was sampled into what is trained on and what is not. Where nothing teaches, all
    /// of it is trained on, so that the step still measures how far sampler and trainer are apart.
    pub(crate) fn select(
        &self,
        groups: Vec<ScoredGroup>,
    ) -> Result<(Vec<ScoredGroup>, Vec<ScoredGroup>), RecipeError> {
        let mut trained = Vec::with_capacity(groups.len());
        let mut replaced = Vec::new();
        for group in groups {
            let into = if self.teaches(&group)? { &mut trained } else { &mut replaced };
            into.push(group);
        }
        Ok(if trained.is_empty() { (replaced, trained) } else { (trained, replaced) })
    }
}

/// Asks for a step's groups: a step's prompts first, then as many as did not teach, within the
/// budget. Every prompt is sampled by one policy, so that its advantages compare like with like.
pub(crate) struct StepGroups<'a> {
    config: &'a RlConfig,
    curriculum: &'a mut Curriculum,
    policy: PolicySnapshot,
    step: u64,
    /// Groups asked for so far.
    asked: u64,
}

impl<'a> StepGroups<'a> {
    pub fn new(
        config: &'a RlConfig,
        curriculum: &'a mut Curriculum,
        step: u64,
        policy: PolicySnapshot,
    ) -> Self {
        Self { config, curriculum, policy, step, asked: 0 }
    }

    /// What is to be sampled next, where `taught` of the groups so far taught something; none where
    /// they suffice, or the budget is spent.
    pub fn next(&mut self, taught: usize) -> Option<BatchRequest> {
        let lacking = self.config.prompts.saturating_sub(taught as u64);
        let count = lacking.min(self.config.group_budget() - self.asked);
        if count == 0 {
            return None;
        }

        let examples = self.curriculum.next(count as usize);
        let rows = self.asked..self.asked + count;
        self.asked += count;
        Some(BatchRequest {
            examples,
            policy: self.policy.clone(),
            completions: self.config.group_size,
            sampling: rows.map(|row| self.config.sampling_of(self.step, row)).collect(),
        })
    }
}
