//! Training an adapter: datums, the trainer's primitives, a service around them, memory plans.
//!
//! A [`Datum`] is a text with the positions that are scored and what is known of each; an
//! [`Objective`](posttrain_loss::Objective) turns their scores into a loss. [`Trainer`] knows
//! neither policy gradients nor preferences: it is primitives. [`forward`](Trainer::forward) scores
//! datums, [`forward_backward`](Trainer::forward_backward) adds the gradient of an objective,
//! [`optim_step`](Trainer::optim_step) applies what has been added up,
//! [`snapshot`](Trainer::snapshot) gives a sampler the present policy without copying the base,
//! [`save_state`](Trainer::save_state) keeps all of it and [`load_state`](Trainer::load_state) goes
//! on. Any number of trainers stand on one base, whose batches can go through it
//! [together](forward_backward_together); a [`TrainingService`] has them on a thread of its own, for
//! clients on others.
//!
//! ```
//! use posttrain_loss::PolicyObjective;
//! use posttrain_lora::LoraConfig;
//! use posttrain_model::{Decoder, ModelConfig};
//! use posttrain_train::{Datum, Trainer, TrainerConfig};
//! use std::sync::Arc;
//!
//! let model = Arc::new(Decoder::random(&ModelConfig::tiny(), 7, tch::Kind::Float, tch::Device::Cpu)?);
//! let lora = LoraConfig { rank: 4, ..LoraConfig::default() };
//! let mut trainer = Trainer::new(model, &lora, TrainerConfig::default(), 7)?;
//!
//! // Two completions of one prompt, the first better than the second.
//! let prompt = [1, 2, 3];
//! let completion = |token, advantage| {
//!     Datum::completion(&prompt, &[token]).with_sampling_logprobs(vec![-4.2]).with_advantage(advantage)
//! };
//! let datums = [completion(4, 1.0), completion(5, -1.0)];
//! let passes = trainer.forward_backward(&datums, &PolicyObjective::default())?;
//! assert_eq!(passes.metrics.policy.tokens, 2);
//!
//! let params = trainer.adam_params(1e-3);
//! assert!(trainer.optim_step(&params)?.grad_norm > 0.0);
//! assert_eq!(trainer.policy_version(), 1);
//! # Ok::<(), posttrain_train::TrainError>(())
//! ```

mod config;
mod datum;
mod error;
mod event_file;
mod memory;
mod micro_batch;
mod out_of_memory;
mod panics;
mod pass;
mod plan;
mod scores;
mod service;
mod state;
mod trainer;
mod whole_batch;

pub use config::{DeadGroups, GradientCheckpointing, TrainerConfig};
pub use datum::{Datum, step_totals};
pub use error::TrainError;
pub use event_file::EventFile;
pub use memory::peak_memory_bytes;
pub use plan::{MemoryPlan, PlanRequest};
pub use posttrain_kernel::Workers;
pub use posttrain_rollout::derive_seed;
pub use scores::{DatumScores, TextScores, TopRequest, TopScores, score_texts, top_logprobs};
pub use service::{Pending, TrainingClient, TrainingService, TrainingServiceConfig};
pub use state::{TrainerState, adapter_folder};
pub use trainer::{ForwardBackward, OptimStep, Trainer, TrainerCall, forward_backward_together};
