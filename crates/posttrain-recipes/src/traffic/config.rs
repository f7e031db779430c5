//! How a policy learns from traffic.

use super::{CaptureConfig, GateConfig};
use crate::{PromptStyle, RecipeError};
use posttrain_chat::{Tool, ToolFormat};
use posttrain_lora::LoraConfig;
use posttrain_loss::policy::Correction;
use posttrain_loss::{Objective, PolicyObjective};
use posttrain_reward::RewardConfig;
use posttrain_rollout::{EngineConfig, SamplingParams};
use posttrain_train::TrainerConfig;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A policy that learns from what it serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrafficConfig {
    /// The name that clients ask for it by.
    pub name: String,
    /// Seed of the adapter and of the gate's samples.
    pub seed: u64,
    /// The adapter.
    pub lora: LoraConfig,
    /// The loss; off-policy corrected unless it says otherwise.
    pub objective: PolicyObjective,
    /// Passes and optimizer.
    pub trainer: TrainerConfig,
    /// What a candidate is made of.
    pub learn: LearnConfig,
    /// What is kept of what is served.
    pub capture: CaptureConfig,
    /// What a candidate has to show.
    pub gate: GateConfig,
    /// What a candidate that has shown it is given first.
    pub canary: CanaryConfig,
    /// When a new version takes over.
    pub swap: Swap,
    /// Versions that are kept on the disk beside those that may serve, 1 and up.
    pub versions: usize,
    /// The tasks of the gate.
    pub held_out: HeldOutConfig,
    /// The judge that reads what a user wrote next: its question is what was answered, its response
    /// what the user wrote. Without one nothing can be said that way.
    pub follow_up: Option<RewardConfig>,
}

impl Default for TrafficConfig {
    fn default() -> Self {
        let objective =
            PolicyObjective { correction: Some(Correction::default()), ..Default::default() };
        Self {
            name: "traffic".into(),
            seed: 0,
            lora: LoraConfig::default(),
            objective,
            trainer: TrainerConfig::default(),
            learn: LearnConfig::default(),
            capture: CaptureConfig::default(),
            gate: GateConfig::default(),
            canary: CanaryConfig::default(),
            swap: Swap::default(),
            versions: 4,
            held_out: HeldOutConfig::default(),
            follow_up: None,
        }
    }
}

impl TrafficConfig {
    /// Checks every field's range.
    ///
    /// # Errors
    /// The first field that is out of range is named.
    pub fn validate(&self) -> Result<(), RecipeError> {
        RecipeError::check("name", !self.name.is_empty(), "a name", "an empty one")?;
        RecipeError::check_counts(&[("versions", self.versions as u64)])?;
        self.lora.validate()?;
        self.objective.validate()?;
        self.trainer.validate()?;
        self.learn.validate()?;
        self.capture.validate()?;
        let read = self.follow_up.is_none() || self.capture.text;
        RecipeError::check("capture.text", read, "true: a follow-up's judge reads it", &false)?;
        self.gate.validate()?;
        self.canary.validate()?;
        let told_apart = self.capture.conversation && self.capture.user;
        let expected = "1 where conversations or users are not kept: a trial hears each once";
        let share = self.canary.share;
        RecipeError::check("canary.share", told_apart || share == 1.0, expected, &share)
    }
}

/// What a candidate is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LearnConfig {
    /// Completions with feedback that make a candidate, 1 and up.
    pub completions: usize,
    /// Seconds after which fewer make one, if there is at least one step's worth; more than 0.
    pub seconds: Option<f64>,
    /// Completions of an optimizer step, 2 and up.
    pub batch: usize,
    /// The learning rate.
    pub learning_rate: f64,
    /// Candidates that a completion may be behind the policy that learns from it; older ones are
    /// left out.
    pub max_staleness: usize,
    /// Completions that wait for feedback in memory, 1 and up; what is said of older ones is kept
    /// and not trained on.
    pub waiting: usize,
    /// How fast a route's baseline follows its rewards, above 0 and at most 1.
    pub baseline_rate: f64,
}

impl Default for LearnConfig {
    fn default() -> Self {
        Self {
            completions: 256,
            seconds: None,
            batch: 64,
            learning_rate: 1e-4,
            max_staleness: 4,
            waiting: 100_000,
            baseline_rate: 0.2,
        }
    }
}

impl LearnConfig {
    fn validate(&self) -> Result<(), RecipeError> {
        RecipeError::check_counts(&[
            ("learn.completions", self.completions as u64),
            ("learn.waiting", self.waiting as u64),
        ])?;
        RecipeError::check("learn.batch", self.batch >= 2, "at least 2", &self.batch)?;
        RecipeError::check_learning_rate(self.learning_rate)?;
        let seconds = self.seconds.unwrap_or(1.0);
        let positive = seconds.is_finite() && seconds > 0.0;
        RecipeError::check("learn.seconds", positive, "finite and above 0", &seconds)?;
        let rate = self.baseline_rate > 0.0 && self.baseline_rate <= 1.0;
        RecipeError::check(
            "learn.baseline_rate",
            rate,
            "above 0 and at most 1",
            &self.baseline_rate,
        )
    }
}

/// What a candidate that the gate has passed is given before it serves everybody.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CanaryConfig {
    /// The share of requests that it answers meanwhile, above 0 and at most 1; at 1 it takes over
    /// at once.
    pub share: f64,
    /// Pairs of feedback, one of a completion of its own and one of the present policy's, after
    /// which it takes over unless it is shown to be worse, 1 and up.
    pub pairs: usize,
}

impl Default for CanaryConfig {
    fn default() -> Self {
        Self { share: 1.0, pairs: 200 }
    }
}

impl CanaryConfig {
    fn validate(&self) -> Result<(), RecipeError> {
        let share = self.share > 0.0 && self.share <= 1.0;
        RecipeError::check("canary.share", share, "above 0 and at most 1", &self.share)?;
        RecipeError::check_counts(&[("canary.pairs", self.pairs as u64)])
    }
}

/// When a new version takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Swap {
    /// With the next request: what is under way is finished by the version that began it.
    #[default]
    Request,
    /// With the next token: what is under way goes on by the new version.
    Token,
}

/// The tasks of the gate, with the verifier that training never sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeldOutConfig {
    /// A `.jsonl` or `.parquet` file of questions with answers and domains.
    pub path: PathBuf,
    /// How a question is put.
    pub prompt: PromptStyle,
    /// How an answer is drawn; the seed is the decision's own.
    pub sampling: SamplingParams,
    /// The generation engine.
    pub engine: EngineConfig,
    /// The verifier.
    pub reward: RewardConfig,
    /// How calls of tools are written, by which the guard of calls reads answers.
    pub tool_format: ToolFormat,
    /// Tools that every task offers, where the prompt's form is a conversation: without any the
    /// guard sees only calls that nobody asked for.
    pub tools: Vec<Tool>,
}

impl Default for HeldOutConfig {
    fn default() -> Self {
        Self {
            path: "held_out.jsonl".into(),
            prompt: PromptStyle::default(),
            sampling: SamplingParams::default(),
            engine: EngineConfig::default(),
            reward: RewardConfig::default(),
            tool_format: ToolFormat::default(),
            tools: Vec::new(),
        }
    }
}
