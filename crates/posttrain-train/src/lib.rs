//! Training a policy by reinforcement learning: primitives, the loop over them, checkpoints, metrics, evaluation.
//!
//! [`Trainer`] is four primitives: [`forward_backward`](Trainer::forward_backward) adds a batch's gradient,
//! [`optim_step`](Trainer::optim_step) applies it, [`snapshot`](Trainer::snapshot) gives the sampler a policy version
//! without copying the base, [`save_state`](Trainer::save_state) keeps all of it. [`RlRun`] is a client of the four: it
//! samples groups, scores each completion the moment that it is finished, turns rewards into advantages, trains,
//! evaluates, keeps the best checkpoint, and goes on from where it was killed to the numbers that it would have reached.
//!
//! ```
//! use posttrain_loss::PolicyObjective;
//! use posttrain_lora::LoraConfig;
//! use posttrain_model::{Decoder, ModelConfig};
//! use posttrain_train::{Trainer, TrainerConfig, TrainingBatch, TrainingCompletion, TrainingGroup};
//!
//! let model = Decoder::random(&ModelConfig::tiny(), 7, tch::Kind::Float, tch::Device::Cpu)?;
//! let lora = LoraConfig { rank: 4, ..LoraConfig::default() };
//! let mut trainer = Trainer::new(&model, &lora, TrainerConfig::default(), 7)?;
//!
//! // Two completions of one prompt, the first better than the second.
//! let completion = |token, advantage| TrainingCompletion { tokens: vec![token], sampling_logprobs: vec![-4.2], advantage, recording: None };
//! let group = TrainingGroup { prompt: vec![1, 2, 3], completions: vec![completion(4, 1.0), completion(5, -1.0)] };
//! let outcome = trainer.forward_backward(&TrainingBatch::new(vec![group])?, &PolicyObjective::default())?;
//! assert_eq!(outcome.metrics.tokens, 2);
//! let step = trainer.optim_step(1e-3)?;
//! assert!(step.grad_norm > 0.0);
//! assert_eq!(trainer.policy_version(), 1);
//! # Ok::<(), posttrain_train::TrainError>(())
//! ```

mod accuracy;
mod adamw;
mod batch;
mod checkpoint;
mod config;
mod console;
mod error;
mod evaluation;
mod evaluator;
mod event_file;
mod folder;
mod loaded;
mod logprobs;
mod memory;
mod metrics;
mod micro_batch;
mod observer;
mod out_of_memory;
mod pass;
mod plan;
mod policy;
mod rl;
mod rollout;
mod schedule;
mod seed;
mod trainer;

pub use accuracy::Accuracy;
pub use adamw::{AdamW, AdamWConfig};
pub use batch::{TrainingBatch, TrainingCompletion, TrainingGroup};
pub use checkpoint::{BestStep, RunState};
pub use config::{
    DeadGroups, EvaluationConfig, GradientCheckpointing, RlConfig, TrainerConfig, TrainerWorkers, TruncatedCompletions,
};
pub use console::Console;
pub use error::TrainError;
pub use evaluation::{Evaluation, EvaluationMode};
pub use evaluator::{Answer, Asked, Drawing, Evaluator};
pub use event_file::EventFile;
pub use folder::{recover_folder, replace_folder};
pub use loaded::{LoadedModel, ModelSource};
pub use logprobs::{TextScores, score_texts};
pub use memory::peak_memory_bytes;
pub use metrics::{MetricsLog, StepRecord, read_metrics};
pub use observer::{Event, Observer, Phase, Silent};
pub use plan::{MemoryPlan, PlanRequest};
pub use policy::{Policy, PromptForm, PromptStyle, Shot};
pub use rl::{RlRun, RunOutcome};
pub use schedule::Schedule;
pub use seed::derive_seed;
pub use trainer::{ForwardBackward, OptimStep, PolicySnapshot, Trainer};
