//! The generation engine: batched sampling from one frozen base, with many adapters beside it.
//!
//! Requests go in with [`Engine::submit`]; every [`Engine::step`] decodes one token for each
//! running row and hands out the completions that have just finished, so that a reward can begin
//! while the rest is still being sampled. A finished row's place is taken by the next waiting
//! sample at once; a group's prompt is computed once and its keys and values are shared out to the
//! group's rows. What several prompts of an adapter have in common at their beginning, such as the
//! shots of a few-shot prompt, is computed once for all that are computed together; with
//! [`EngineConfig::keep_tokens`] it is kept for those that come later, and conversations go on from
//! what was read.
//!
//! Every [`Completion`] carries its tokens, their log-probabilities under the very distribution
//! that they were drawn from, why it ended, and the version of the policy that wrote it. The
//! randomness of a sample follows from its request's seed and its own index alone, whatever else is
//! in the batch.
//!
//! ```
//! use posttrain_model::{Decoder, ModelConfig};
//! use posttrain_rollout::{Engine, EngineConfig, Request, SamplingParams};
//! use std::sync::Arc;
//!
//! let model = Arc::new(Decoder::random(&ModelConfig::tiny(), 7, tch::Kind::Float, tch::Device::Cpu)?);
//! let mut engine = Engine::new(model, None, EngineConfig::default())?;
//! let params = SamplingParams { max_tokens: 5, seed: 1, ..SamplingParams::default() };
//! engine.submit(Request::new(vec![1, 2, 3], params).samples(4));
//! let mut done = Vec::new();
//! while !engine.is_idle() {
//!     done.extend(engine.step()?);
//! }
//! assert_eq!(done.len(), 4);
//! for outcome in &done {
//!     let completion = outcome.result.as_ref().unwrap();
//!     assert!((1..=5).contains(&completion.tokens.len()));
//!     assert_eq!(completion.tokens.len(), completion.logprobs.len());
//! }
//! # Ok::<(), posttrain_rollout::RolloutError>(())
//! ```

mod assignment;
mod batch;
mod cache;
mod completion;
mod device_cache;
mod engine;
mod error;
mod kept;
mod native_cache;
mod order;
mod policy;
mod prefill;
mod request;
mod row;
mod row_shares;
mod seed;
pub mod service;
mod shards;
mod shared_prefix;
mod waiting;

pub use completion::{Completion, Outcome, Recording, SampledToken};
pub use engine::{Engine, EngineConfig, EngineLoad, SamplingStats};
pub use error::{RequestError, RolloutError, ServiceError};
pub use policy::PolicySnapshot;
pub use posttrain_chat::FinishReason;
pub use posttrain_kernel::Workers;
pub use request::{Request, RequestId, SamplingParams};
pub use seed::derive_seed;
