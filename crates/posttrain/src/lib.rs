//! Post-training libraries for language models, on libtorch: one dependency for all of them.
//!
//! Each module is a crate of its own, which a project can depend on alone:
//!
//! | module | crate | for |
//! | --- | --- | --- |
//! | [`store`] | `posttrain-store` | files and folders that survive the death of their writer, append-only logs |
//! | [`statistics`] | `posttrain-statistics` | Wilson and bootstrap intervals, McNemar's test, sequential paired tests |
//! | [`tensor`] | `posttrain-tensor` | frozen tensors that threads share, tensors' memory as slices, safetensors files |
//! | [`answer`] | `posttrain-answer` | text to answer: `same(reference, answer)` |
//! | [`data`] | `posttrain-data` | examples, readers, leak-free splits, domain mixing |
//! | [`hub`] | `posttrain-hub` | models from the hub into Python's cache |
//! | [`kernel`] | `posttrain-kernel` | native CPU kernels, worker threads |
//! | [`chat`] | `posttrain-chat` | messages, chat models; over HTTP with retries, limits, replicas, a cache |
//! | [`collective`] | `posttrain-collective` | what ranks do together: alone, by threads, by torch's c10d under torchrun |
//! | [`loss`] | `posttrain-loss` | advantages, policy losses, KL, fused log-probabilities, the token sampler |
//! | [`lora`] | `posttrain-lora` | adapters beside a frozen base, PEFT files |
//! | [`model`] | `posttrain-model` | decoders, tokenizer, chat template |
//! | [`reward`] | `posttrain-reward` | verifiable rewards, scored as completions stream in |
//! | [`rollout`] | `posttrain-rollout` | the generation engine |
//! | [`environment`] | `posttrain-environment` | what a policy acts in: turns, tools, budgets, trajectories |
//! | [`router`] | `posttrain-router` | routers in front of specialists, and what their errors cost |
//! | [`train`] | `posttrain-train` | datums, trainer primitives, the training service |
//! | [`optim`] | `posttrain-optim` | AdamW, schedules, clipping |
//! | [`recipes`] | `posttrain-recipes` | training loops, evaluation, runs that resume |
//! | [`experiment`] | `posttrain-experiment` | specialists against a generalist, the report |
//!
//! ```
//! use posttrain::loss::AdvantageConfig;
//! use posttrain::reward::verifiers::AnswerConfig;
//! use posttrain::reward::{Sample, Verifier};
//!
//! // Two answers to one question, scored and compared.
//! let verifier = AnswerConfig::default().build()?;
//! let value = |text: &str| Ok::<_, posttrain::reward::RewardError>(verifier.verify(&Sample::new("7 + 5?", "12", text))?.value());
//! let rewards = [Some(value("7 + 5 = 12")? as f32), Some(value("It is 11.")? as f32)];
//! let advantages = AdvantageConfig::GroupMean {}.advantages(&rewards, &[2])?;
//! assert_eq!(advantages.values, [0.5, -0.5]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub use posttrain_answer as answer;
pub use posttrain_chat as chat;
pub use posttrain_collective as collective;
pub use posttrain_data as data;
pub use posttrain_environment as environment;
pub use posttrain_experiment as experiment;
pub use posttrain_hub as hub;
pub use posttrain_kernel as kernel;
pub use posttrain_lora as lora;
pub use posttrain_loss as loss;
pub use posttrain_model as model;
pub use posttrain_optim as optim;
pub use posttrain_recipes as recipes;
pub use posttrain_reward as reward;
pub use posttrain_rollout as rollout;
pub use posttrain_router as router;
pub use posttrain_statistics as statistics;
pub use posttrain_store as store;
pub use posttrain_tensor as tensor;
pub use posttrain_train as train;
