//! How policies are trained in environments.

use crate::RecipeError;
use crate::checkpoint::CheckpointConfig;
use crate::config::check_sampling;
use posttrain_data::BatchConfig;
use posttrain_environment::EpisodeConfig;
use posttrain_lora::LoraConfig;
use posttrain_loss::{AdvantageConfig, Objective, PolicyObjective};
use posttrain_optim::Schedule;
use posttrain_rollout::EngineConfig;
use posttrain_train::{TrainerConfig, derive_seed};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The role of a run that has one policy.
const POLICY: &str = "policy";

/// What a run's folder has beside its roles' folders.
const RESERVED: [&str; 2] = ["checkpoints", "tensorboard"];

/// Reinforcement learning in environments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentConfig {
    /// Seed of everything: data order, adapters, sampling.
    pub seed: u64,
    /// Steps.
    pub steps: u64,
    /// Tasks a step, 1 and up.
    pub tasks: u64,
    /// Episodes of each task, 2 and up: what an episode is worth is told by the others of its
    /// group.
    pub group_size: usize,
    /// The policies that act, by the names that environments know them by. The first role of an
    /// episode is its environment's own; the others are its sub-agents'.
    pub roles: BTreeMap<String, RoleConfig>,
    /// The role that plays the tasks.
    pub main_role: String,
    /// What an episode is worth beside the others of its role and task.
    pub advantage: AdvantageConfig,
    /// The loss. An episode of several contexts is one sequence to `sequence_mean`; ratios of
    /// sequences are each context's own.
    pub objective: PolicyObjective,
    /// Passes and optimizer.
    pub trainer: TrainerConfig,
    /// How episodes are played.
    pub episode: EpisodeConfig,
    /// The generation engine. `keep_tokens` is what holds keys and values between turns.
    pub engine: EngineConfig,
    /// Episodes that are played at the same time, 1 and up: while one waits for its tools, the
    /// others are sampled.
    pub in_flight: usize,
    /// The share of a step's episodes that may fail, from 0 to 1; more end the run in words. A
    /// failed episode has no reward and is not trained on.
    pub max_failures: f64,
    /// When to evaluate.
    pub evaluation: AgentEvaluationConfig,
    /// Steps between saved states, 1 and up.
    pub checkpoint_every: u64,
    /// Which saved states are kept.
    pub checkpoints: CheckpointConfig,
    /// Episodes a step that `episodes.jsonl` has.
    pub logged_episodes: usize,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoleConfig {
    /// Whether it is trained; else it stays what it is: its `adapter`, or the base.
    pub trained: bool,
    /// Every so many steps it is trained, 1 and up: with two roles of 2 and their `offset`s 0 and 1
    /// they are trained by turns.
    pub every: u64,
    /// The first step that it is trained in, from 0, below `every`.
    pub offset: u64,
    /// A PEFT folder that it begins with: a warm start, and the reference where the objective has
    /// one.
    pub adapter: Option<PathBuf>,
    /// The adapter, where none is given.
    pub lora: LoraConfig,
    /// The learning rate, above 0.
    pub learning_rate: f64,
    /// How it moves.
    pub schedule: Schedule,
}

impl Default for RoleConfig {
    fn default() -> Self {
        Self {
            trained: true,
            every: 1,
            offset: 0,
            adapter: None,
            lora: LoraConfig::default(),
            learning_rate: 1e-4,
            schedule: Schedule::Constant,
        }
    }
}

/// When episodes of held-out tasks are played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentEvaluationConfig {
    /// Steps between evaluations, 1 and up; there is one at the end as well.
    pub every: u64,
    /// Tasks, the first so many; all where it is left out.
    pub tasks: Option<usize>,
}

impl Default for AgentEvaluationConfig {
    fn default() -> Self {
        Self { every: 20, tasks: None }
    }
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            steps: 100,
            tasks: 8,
            group_size: 8,
            roles: BTreeMap::from([(POLICY.to_owned(), RoleConfig::default())]),
            main_role: POLICY.to_owned(),
            advantage: AdvantageConfig::default(),
            objective: PolicyObjective::default(),
            trainer: TrainerConfig::default(),
            episode: EpisodeConfig::default(),
            engine: EngineConfig { keep_tokens: 16_384, ..EngineConfig::default() },
            in_flight: 256,
            max_failures: 0.2,
            evaluation: AgentEvaluationConfig::default(),
            checkpoint_every: 10,
            checkpoints: CheckpointConfig::default(),
            logged_episodes: 4,
        }
    }
}

impl AgentConfig {
    /// Checks every field's range.
    ///
    /// # Errors
    /// The first field that is out of range is named.
    pub fn validate(&self) -> Result<(), RecipeError> {
        RecipeError::check_counts(&[
            ("steps", self.steps),
            ("tasks", self.tasks),
            ("in_flight", self.in_flight as u64),
            ("evaluation.every", self.evaluation.every),
            ("checkpoint_every", self.checkpoint_every),
        ])?;
        RecipeError::check("group_size", self.group_size >= 2, "at least 2", &self.group_size)?;
        let share = (0.0..=1.0).contains(&self.max_failures);
        RecipeError::check("max_failures", share, "from 0 to 1", &self.max_failures)?;

        let known = self.roles.contains_key(&self.main_role);
        RecipeError::check("main_role", known, "one of `roles`", &self.main_role)?;
        for (name, role) in &self.roles {
            let plain = !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
                && !RESERVED.contains(&name.as_str());
            let expected =
                "named by letters, digits, `-` and `_`, and not as the run's own folders";
            RecipeError::check("roles", plain, expected, name)?;
            RecipeError::check_learning_rate(role.learning_rate)?;
            RecipeError::check_counts(&[("roles.every", role.every)])?;
            let within = role.offset < role.every;
            RecipeError::check("roles.offset", within, "below `every`", &role.offset)?;
            role.schedule.validate()?;
            role.lora.validate()?;
        }
        let trained = self.roles.values().any(|role| role.trained);
        RecipeError::check("roles", trained, "at least one that is trained", "none")?;

        self.advantage.validate()?;
        self.objective.validate()?;
        self.checkpoints.validate()?;
        self.episode.validate()?;
        check_sampling("episode.sampling", &self.episode.sampling)?;
        let recorded = self.engine.record_mib;
        let expected = "0: a policy's turns are trained on anew";
        RecipeError::check("engine.record_mib", recorded == 0, expected, &recorded)?;
        self.engine.validate()?;
        Ok(self.trainer.validate()?)
    }

    /// The order of the data.
    pub(crate) fn batches(&self) -> BatchConfig {
        let seed = derive_seed(self.seed, "data", 0, 0);
        BatchConfig { prompts: self.tasks, seed, ..BatchConfig::default() }
    }
}
