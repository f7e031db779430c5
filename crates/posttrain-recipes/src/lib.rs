//! Training loops on public primitives.
//!
//! [`RlRun`] is reinforcement learning with verifiable rewards: it samples groups, scores each
//! completion the moment that it is finished, turns rewards into advantages, trains, evaluates,
//! keeps the best checkpoint, and goes on from where it was killed to the numbers that it would
//! have reached. [`RlConfig::mode`] says how sampling and training take turns: on policy, streaming
//! (a group is trained on while others are still scored), or asynchronously (sampling goes on while
//! the trainer trains, a bounded number of versions behind).
//!
//! [`FineTuneRun`] learns from examples that say what is right, by one of the [`lesson`]s: answers and
//! conversations (supervised), pairs (DPO and its like), a teacher (distillation).
//!
//! Every piece of reinforcement learning is public. A [`GroupSampler`] samples and scores a [`Rollout`]; a rollout
//! gives [`advantages`](Rollout::advantages) and [`datums`](Rollout::datums); a
//! [`Trainer`](posttrain_train::Trainer) takes those. A loop of one's own is these lines, around
//! whatever it does otherwise:
//!
//! ```no_run
//! # use posttrain_recipes::*;
//! # use posttrain_loss::{AdvantageConfig, PolicyObjective};
//! # use posttrain_data::Example;
//! # use posttrain_model::TextModel;
//! # use std::sync::Arc;
//! # fn train(model: TextModel, reward: Arc<dyn Reward>, examples: Vec<Example>) -> Result<(), Box<dyn std::error::Error>> {
//! let sampler = GroupSampler::new(model.clone(), reward)?;
//! let mut trainer = posttrain_train::Trainer::new(
//!     model.decoder,
//!     &posttrain_lora::LoraConfig::default(),
//!     posttrain_train::TrainerConfig::default(),
//!     7,
//! )?;
//! for step in 0..100 {
//!     let request = RolloutRequest {
//!         examples: &examples,
//!         policies: vec![Some(trainer.snapshot()?); examples.len()],
//!         completions: 8,
//!         sampling: vec![posttrain_rollout::SamplingParams { seed: step, ..Default::default() }; examples.len()],
//!         phase: Phase::Sampling,
//!     };
//!     let rollout = sampler.rollout(request, &mut Silent)?;
//!     let shaping = RewardShaping::default();
//!     let advantages = rollout.advantages(&AdvantageConfig::GroupMean {}, &shaping)?;
//!     trainer.forward_backward(&rollout.datums(&advantages, &shaping, 1.0), &PolicyObjective::default())?;
//!     let params = trainer.adam_params(1e-4);
//!     trainer.optim_step(&params)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`agent::AgentRun`] trains one or several policies in environments: several turns, tools,
//! sub-agents.
//!
//! [`traffic::Traffic`] learns from what a server serves, behind a gate that can say no.
//!
//! [`Evaluator`] answers held-out questions; [`ModelSource`] loads a model from a configuration; an
//! [`Observer`] sees what a run tells of itself, and [`Console`] shows it on a terminal.

pub mod agent;
mod ahead;
mod arrivals;
mod checkpoint;
mod config;
mod console;
mod curriculum;
mod error;
mod evaluation;
mod evaluator;
mod fine_tune;
mod groups;
mod guard;
pub mod lesson;
mod metrics;
mod mode;
mod model_source;
mod observer;
mod prompt;
mod queue;
mod ranks;
mod remote;
mod rollout;
mod run;
mod samples;
mod shaping;
mod start;
mod step;
mod streamed;
pub mod traffic;

pub use checkpoint::{BestStep, CheckpointConfig, RunState};
pub use config::{EvaluationConfig, RlConfig};
pub use console::Console;
pub use curriculum::{CurriculumConfig, CurriculumState, SolveRateConfig};
pub use error::RecipeError;
pub use evaluation::{Evaluation, EvaluationMode};
pub use evaluator::{Answer, Decoding, Evaluator, PolicyQuestion};
pub use fine_tune::{FineTuneConfig, FineTuneRecord, FineTuneRun};
pub use groups::DynamicSampling;
pub use guard::{Guard, GuardAction, GuardConfig};
pub use metrics::{MetricsLog, MetricsRecord, StepRecord, read_metrics};
pub use mode::{AsynchronousConfig, GroupOrder, Mode, StaleGroups};
pub use model_source::ModelSource;
pub use observer::{Event, Observer, Phase, Silent};
pub use posttrain_reward::Reward;
pub use prompt::{PromptForm, PromptStyle, Shot};
pub use ranks::Ranks;
pub use remote::{SamplerConfig, ServersConfig};
pub use rollout::{
    GroupSampler, GroupSink, Rollout, RolloutCost, RolloutRequest, ScoreFailure, ScoredCompletion,
    ScoredGroup,
};
pub use run::{RlRun, RunOutcome, load_policy};
pub use samples::{SampleLine, SampledToken};
pub use shaping::{OverlongPenalty, RewardShaping, TruncatedCompletions};
