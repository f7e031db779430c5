//! What a run is: every number that its result depends on.

use crate::RecipeError;
use crate::checkpoint::CheckpointConfig;
use crate::curriculum::CurriculumConfig;
use crate::groups::DynamicSampling;
use crate::guard::GuardConfig;
use crate::mode::{AsynchronousConfig, GroupOrder, Mode};
use crate::remote::SamplerConfig;
use crate::shaping::{OverlongPenalty, TruncatedCompletions};
use posttrain_data::{BatchConfig, BatchStream, Example, LastBatch};
use posttrain_lora::LoraConfig;
use posttrain_loss::policy::PolicyLoss;
use posttrain_loss::{AdvantageConfig, Objective, PolicyObjective};
use posttrain_optim::Schedule;
use posttrain_reward::ScorerConfig;
use posttrain_rollout::{EngineConfig, SamplingParams};
use posttrain_train::{TrainerConfig, derive_seed};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// When and on what a run is evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// Steps between evaluations on the validation split, 1 and up. The last step is always
    /// evaluated.
    pub every: u64,
    /// Examples of the validation split that are used, from its beginning; all of them by default.
    pub examples: Option<usize>,
    /// Answers to each question at temperature 1, 1 and up. More of them choose the best step with
    /// less luck, and cost little, since they share their prompt.
    pub samples: usize,
}

impl Default for EvaluationConfig {
    /// Every 20 steps (tinker-cookbook's `eval_every`), on the whole split, one answer a question.
    fn default() -> Self {
        Self { every: 20, examples: None, samples: 1 }
    }
}

/// A run of reinforcement learning on one policy.
///
/// Defaults are those of the peers, named field by field; the learning rate is tinker-cookbook's
/// for LoRA on arithmetic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RlConfig {
    /// Seed of everything: data order, adapter, sampling, dropout.
    pub seed: u64,
    /// Steps, 1 and up: rollout, scoring, training. One without any signal takes no optimizer step.
    pub steps: u64,
    /// How sampling and training take turns.
    pub mode: Mode,
    /// How many versions the policy that wrote a token may be behind the one that is trained, at
    /// least 1 in an asynchronous run; in the other modes it is 0, whatever this says. prime-rl: at
    /// most 8, TRL's `AsyncGRPO` and SkyRL: 4.
    pub max_staleness: u64,
    /// In which order groups are trained on, where they do not wait for each other.
    pub group_order: GroupOrder,
    /// What an asynchronous run that trains in the order of arrival does besides.
    pub asynchronous: AsynchronousConfig,
    /// Prompts a step, `P`, 1 and up.
    pub prompts: u64,
    /// Completions a prompt, `G`, 1 and up; with 1 there is nothing to compare and nothing is
    /// learnt. TRL: 8.
    pub group_size: usize,
    /// The learning rate, above 0.
    pub learning_rate: f64,
    /// How it moves.
    pub schedule: Schedule,
    /// A PEFT folder that the policy begins with, of the layers, ranks and scales that `lora`
    /// describes: what supervised fine-tuning has taught, for one. It is the reference, too, where
    /// the objective has one, and is copied into the run's folder. Left out, the policy begins as the
    /// base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PathBuf>,
    /// The adapter.
    pub lora: LoraConfig,
    /// How completions are sampled in training. Truncation (top-k, top-p, min-p) is refused: the
    /// trainer could not tell the probabilities of what was cut away.
    pub sampling: SamplingParams,
    /// How rewards become advantages.
    pub advantage: AdvantageConfig,
    /// The loss.
    pub objective: PolicyObjective,
    /// Passes and optimizer.
    pub trainer: TrainerConfig,
    /// The generation engine.
    pub engine: EngineConfig,
    /// Where completions are sampled, in training and in evaluations.
    #[serde(skip_serializing_if = "SamplerConfig::is_local")]
    pub sampler: SamplerConfig,
    /// The rewards' runner.
    pub scorer: ScorerConfig,
    /// The share of a step's rewards that may fail before the run stops in words, in [0, 1].
    pub max_reward_failures: f64,
    /// A group in which fewer rewards than this came about is not trained on, 1 and up.
    pub smallest_group: usize,
    /// What becomes of completions that were cut.
    pub truncated: TruncatedCompletions,
    /// What a completion near the token limit loses.
    pub overlong_penalty: Option<OverlongPenalty>,
    /// Which examples come, and how often.
    pub curriculum: CurriculumConfig,
    /// Has groups that teach nothing replaced by others.
    pub dynamic_sampling: Option<DynamicSampling>,
    /// Optimizer steps that a step's groups are divided among, 1 and up, at most `prompts`
    /// (tinker-cookbook: `num_substeps`; verl: `ppo_mini_batch_size`). Those behind the first are
    /// as much off-policy as the steps before them moved the policy.
    pub optimizer_steps: u64,
    /// When to evaluate.
    pub evaluation: EvaluationConfig,
    /// What a run warns of, or stops at.
    pub guards: GuardConfig,
    /// Steps between saved states, 1 and up.
    pub checkpoint_every: u64,
    /// Which saved states are kept.
    pub checkpoints: CheckpointConfig,
    /// Completions a step that are written to `samples.jsonl`.
    pub logged_samples: usize,
}

impl Default for RlConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            steps: 100,
            mode: Mode::default(),
            max_staleness: 1,
            group_order: GroupOrder::default(),
            asynchronous: AsynchronousConfig::default(),
            prompts: 8,
            group_size: 8,
            learning_rate: 1e-4,
            schedule: Schedule::Constant,
            adapter: None,
            lora: LoraConfig::default(),
            sampling: SamplingParams::default(),
            advantage: AdvantageConfig::default(),
            objective: PolicyObjective::default(),
            trainer: TrainerConfig::default(),
            engine: EngineConfig::default(),
            sampler: SamplerConfig::default(),
            scorer: ScorerConfig::default(),
            max_reward_failures: 0.5,
            smallest_group: 1,
            truncated: TruncatedCompletions::Score,
            overlong_penalty: None,
            curriculum: CurriculumConfig::default(),
            dynamic_sampling: None,
            optimizer_steps: 1,
            evaluation: EvaluationConfig::default(),
            guards: GuardConfig::default(),
            checkpoint_every: 10,
            checkpoints: CheckpointConfig::default(),
            logged_samples: 8,
        }
    }
}

impl RlConfig {
    /// Checks every field's range, and that they fit each other.
    ///
    /// # Errors
    /// The first field that is out of range is named.
    pub fn validate(&self) -> Result<(), RecipeError> {
        RecipeError::check_counts(&[
            ("steps", self.steps),
            ("prompts", self.prompts),
            ("group_size", self.group_size as u64),
            ("evaluation.every", self.evaluation.every),
            ("evaluation.samples", self.evaluation.samples as u64),
            ("checkpoint_every", self.checkpoint_every),
            ("smallest_group", self.smallest_group as u64),
            ("optimizer_steps", self.optimizer_steps),
            ("evaluation.examples", self.evaluation.examples.unwrap_or(1) as u64),
        ])?;
        RecipeError::check_learning_rate(self.learning_rate)?;
        let share = self.max_reward_failures;
        RecipeError::check(
            "max_reward_failures",
            (0.0..=1.0).contains(&share),
            "from 0 to 1",
            &share,
        )?;
        let record_mib = self.engine.record_mib;
        let expected = "0 with dropout, which the sampler's activations have not been through";
        RecipeError::check(
            "engine.record_mib",
            record_mib == 0 || self.lora.dropout == 0.0,
            expected,
            &record_mib,
        )?;
        check_sampling("sampling", &self.sampling)?;
        self.validate_groups()?;
        self.validate_mode()?;
        self.guards.validate()?;
        self.checkpoints.validate()?;
        self.schedule.validate()?;
        self.lora.validate()?;
        self.advantage.validate()?;
        self.objective.validate()?;
        self.validate_correction()?;
        self.scorer.validate()?;
        Ok(self.trainer.validate()?)
    }

    /// Beside a correction the bounds of a loss are about the policy at the step's beginning. What
    /// that is worth is not computed, so that they would bound nothing behind its first optimizer
    /// step.
    fn validate_correction(&self) -> Result<(), RecipeError> {
        let unbounded = PolicyLoss::ImportanceSampling { ratio_cap: None };
        let plain = self.objective.correction.is_none() || self.objective.loss == unbounded;
        let expected = "1 beside a correction, unless the loss is importance_sampling without a cap: its bounds would bound nothing";
        let steps = self.optimizer_steps;
        RecipeError::check("optimizer_steps", steps == 1 || plain, expected, &steps)
    }

    /// The batches of a run on `train`, from their beginning: each example comes once an epoch.
    ///
    /// # Errors
    /// [`RecipeError::Data`] without examples, or with fewer than `prompts`.
    pub fn batches(&self, train: &[Example]) -> Result<BatchStream, RecipeError> {
        let seed = derive_seed(self.seed, "data", 0, 0);
        let config = BatchConfig { prompts: self.prompts, seed, last: LastBatch::Carry };
        Ok(BatchStream::new(train.to_vec(), config)?)
    }

    /// Whole steps that an asynchronous run in the order of the data samples ahead: the last of a
    /// step's optimizer steps is then at most `max_staleness` versions ahead of what it trains on.
    #[must_use]
    pub fn steps_ahead(&self) -> u64 {
        let each = self.optimizer_steps.max(1);
        self.max_staleness.saturating_sub(each - 1) / each
    }

    /// Groups that are sampled, scored or waiting at a time, where they are trained on as they
    /// arrive: one waits for as many steps as it may be stale, and no longer.
    #[must_use]
    pub fn queued_groups(&self) -> usize {
        let whole_batches = self.prompts.saturating_mul(self.steps_ahead().max(1));
        self.asynchronous.queued_groups.unwrap_or(whole_batches as usize)
    }

    fn validate_groups(&self) -> Result<(), RecipeError> {
        let steps = self.optimizer_steps;
        RecipeError::check("optimizer_steps", steps <= self.prompts, "at most `prompts`", &steps)?;
        let smallest = self.smallest_group;
        let expected = "at most `group_size`";
        RecipeError::check("smallest_group", smallest <= self.group_size, expected, &smallest)?;
        if let Some(penalty) = self.overlong_penalty {
            penalty.validate(self.sampling.max_tokens)?;
            let scored = self.truncated == TruncatedCompletions::Score;
            let expected = "left out with `truncated = \"exclude\"`";
            RecipeError::check("overlong_penalty", scored, expected, &format!("{penalty:?}"))?;
        }
        self.curriculum.validate()?;
        self.dynamic_sampling.map_or(Ok(()), |dynamic| dynamic.validate())
    }

    fn validate_mode(&self) -> Result<(), RecipeError> {
        let by_arrival = self.group_order == GroupOrder::Arrival;
        if self.mode == Mode::OnPolicy {
            let expected = "fixed with `mode = \"on_policy\"`, which trains on all groups at once";
            RecipeError::check("group_order", !by_arrival, expected, "arrival")?;
        }
        if self.mode == Mode::Streaming {
            let batch = matches!(self.advantage, AdvantageConfig::BatchNormalized { .. });
            let expected = "one that needs no other group in streaming";
            RecipeError::check("advantage", !batch, expected, "batch_normalized")?;
        }

        let asynchronous = self.mode == Mode::Asynchronous;
        if !self.sampler.is_local() {
            let expected = "local with `group_order = \"arrival\"` in an asynchronous run";
            RecipeError::check("sampler", !(asynchronous && by_arrival), expected, "servers")?;
            let unused = self.engine == EngineConfig::default();
            let expected = "left out with servers that sample, whose engines are their own";
            RecipeError::check("engine", unused, expected, &format!("{:?}", self.engine))?;
            self.sampler.validate()?;
            let least = self.sampling.min_tokens;
            let expected =
                "0 with servers: until then they take what ends a completion for impossible";
            RecipeError::check("sampling.min_tokens", least == 0, expected, &least)?;
        }
        if asynchronous {
            let expected = "at least 1 in an asynchronous run (0 is `mode = \"on_policy\"`)";
            RecipeError::check("max_staleness", self.max_staleness >= 1, expected, &0)?;
            let expected =
                "at least 2 · `optimizer_steps` − 1 in an asynchronous run: each step is a version";
            let got = self.max_staleness;
            RecipeError::check("max_staleness", self.steps_ahead() >= 1, expected, &got)?;
        }
        if asynchronous && !by_arrival {
            let expected = "left out in an asynchronous run in the data's order, whose next groups \
                            are asked for before it is known which teach nothing";
            let got = format!("{:?}", self.dynamic_sampling);
            RecipeError::check(
                "dynamic_sampling",
                self.dynamic_sampling.is_none(),
                expected,
                &got,
            )?;
        }
        if asynchronous && by_arrival {
            let deadline = self.scorer.deadline_seconds;
            let expected = "none in an asynchronous run by arrival: no step waits for all rewards";
            RecipeError::check(
                "scorer.deadline_seconds",
                deadline.is_none(),
                expected,
                &deadline.unwrap_or_default(),
            )?;
            return self.asynchronous.validate(self.prompts);
        }
        let expected = "left out, unless groups are trained on asynchronously in order of arrival";
        let unused = self.asynchronous == AsynchronousConfig::default();
        RecipeError::check("asynchronous", unused, expected, &format!("{:?}", self.asynchronous))
    }
}

/// Checks that what is sampled can be trained on.
pub(crate) fn check_sampling(
    field: &'static str,
    sampling: &SamplingParams,
) -> Result<(), RecipeError> {
    let s = sampling;
    let truncated =
        s.top_k.is_some() || s.top_p.is_some_and(|p| p < 1.0) || s.min_p.is_some_and(|p| p > 0.0);
    let expected = "without top_k, top_p and min_p: the importance ratio of a truncated distribution is biased";
    RecipeError::check(field, !truncated, expected, "truncated")?;
    let drawn = s.temperature > 0.0;
    let got = format!("temperature {}", s.temperature);
    RecipeError::check(field, drawn, "at a temperature above 0 in training", &got)?;
    s.validate().map_err(|e| RecipeError::Config {
        field,
        expected: "in range",
        got: e.to_string(),
    })
}
