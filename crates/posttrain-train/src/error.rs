//! What can go wrong in training.

use std::path::PathBuf;

/// An error of this crate. Its fields are data, so that a caller can act on them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A configuration value is out of its range.
    #[error("config: `{field}` must be {expected}, got {got}")]
    Config {
        /// The field.
        field: &'static str,
        /// The range that it must lie in.
        expected: &'static str,
        /// What was given.
        got: String,
    },
    /// A batch does not fit together.
    #[error("training batch: completion {completion} of group {group}: expected {expected}, got {got}")]
    Batch {
        /// The group's place in the batch.
        group: usize,
        /// The completion's place in the group.
        completion: usize,
        /// What was expected.
        expected: &'static str,
        /// What came.
        got: String,
    },
    /// A gradient is not a number: the step was not taken, and the gradients were cleared.
    #[error("the gradient's norm is {norm}: the step was not taken")]
    NonFiniteGradient {
        /// The norm.
        norm: f64,
    },
    /// Memory did not suffice for a pass, nor for one of half the size.
    #[error(
        "out of memory with micro-batches of {micro_batch_tokens} tokens ({reason}): lower `trainer.micro_batch_tokens`, set `trainer.checkpointing = \"blocks\"`, lower `lora.rank`, or quantise the base"
    )]
    OutOfMemory {
        /// The budget of the last try.
        micro_batch_tokens: usize,
        /// What the allocator said.
        reason: String,
    },
    /// `optim_step` was called before any `forward_backward`.
    #[error("there is no gradient: `forward_backward` comes before `optim_step`")]
    NoGradient,
    /// Too many rewards failed for a step to mean anything.
    #[error(
        "step {step}: {failed} of {total} rewards failed, more than the share of {allowed} allowed; by cause: {causes}"
    )]
    RewardFailures {
        /// The step.
        step: u64,
        /// Completions without a reward.
        failed: usize,
        /// Completions in all.
        total: usize,
        /// The share that the configuration allows.
        allowed: f64,
        /// How often each cause occurred.
        causes: String,
    },
    /// A model cannot be fetched from the hub.
    #[error(transparent)]
    Hub(#[from] posttrain_hub::HubError),
    /// No threads for rewards can be had.
    #[error("the threads that wait for rewards cannot be started: {source}")]
    Runtime {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A prompt of the data cannot be sampled from.
    #[error("example `{id}`: {source}")]
    Prompt {
        /// The example's id.
        id: String,
        /// Why.
        #[source]
        source: posttrain_rollout::RequestError,
    },
    /// The run's folder belongs to a run with another configuration.
    #[error(
        "{path}: was begun with another configuration (`{field}` was {was}, is now {now}); give a new folder, or the old configuration to go on"
    )]
    OtherRun {
        /// The state's file.
        path: PathBuf,
        /// The first field that differs.
        field: String,
        /// Its value when the run began.
        was: String,
        /// Its value now.
        now: String,
    },
    /// Another process trains in the same folder.
    #[error("{path}: another process trains here; wait for it, or give another folder", path = path.display())]
    Busy {
        /// The lock that it holds.
        path: PathBuf,
    },
    /// A saved state does not fit the trainer.
    #[error("{path}: {reason}")]
    State {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A file of the run is not the JSON that was written.
    #[error("{path}: line {line}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The parser's answer.
        #[source]
        source: serde_json::Error,
    },
    /// The data failed.
    #[error(transparent)]
    Data(#[from] posttrain_data::DataError),
    /// The loss failed.
    #[error(transparent)]
    Loss(#[from] posttrain_loss::LossError),
    /// The adapter failed.
    #[error(transparent)]
    Lora(#[from] posttrain_lora::LoraError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] posttrain_model::ModelError),
    /// The reward's configuration or its runner failed.
    #[error(transparent)]
    Reward(#[from] posttrain_reward::RewardError),
    /// Sampling failed.
    #[error(transparent)]
    Rollout(#[from] posttrain_rollout::RolloutError),
    /// libtorch refused an operation (memory, device, shape).
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

impl TrainError {
    /// `Ok` if a configuration value is in its range, else the error that names it.
    pub(crate) fn check(
        field: &'static str,
        ok: bool,
        expected: &'static str,
        got: impl ToString,
    ) -> Result<(), TrainError> {
        if ok { Ok(()) } else { Err(Self::Config { field, expected, got: got.to_string() }) }
    }

    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> TrainError {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
