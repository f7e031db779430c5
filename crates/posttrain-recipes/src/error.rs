//! What can go wrong in a run.

use std::path::PathBuf;

/// An error of this crate. Its fields are data, so that a caller can act on them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
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
    /// No threads for rewards can be had.
    #[error("the threads that wait for rewards cannot be started")]
    Runtime {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The thread that samples ahead of the trainer has ended before its time: it panicked.
    #[error("the sampling thread ended before its batches were done")]
    SamplerEnded,
    /// The thread that trains on groups as they come has ended before its time.
    #[error("the training thread ended before its groups were done")]
    TrainerEnded,
    /// It was asked to stop before it was done, and nothing of it is kept.
    #[error("stopped before it was done")]
    Stopped,
    /// Nothing can be learned from an example.
    #[error("example `{id}`: {reason}")]
    Example {
        /// The example's id.
        id: String,
        /// Why, in words.
        reason: String,
    },
    /// A prompt of the data cannot be sampled from.
    #[error("example `{id}` cannot be sampled from")]
    Prompt {
        /// The example's id.
        id: String,
        /// Why.
        #[source]
        source: posttrain_rollout::RequestError,
    },
    /// The run's folder belongs to a run with another configuration.
    #[error(
        "{path}: was begun with another configuration ({difference}); give a new folder, or the old configuration to go on"
    )]
    OtherRun {
        /// The state's file.
        path: PathBuf,
        /// The first field that differs, as it was and as it is.
        difference: posttrain_store::Difference,
    },
    /// A saved state was written by another version of this workspace.
    #[error(
        "{path}: a state of form {found}, and this version reads and writes form {expected}; end the run with the version that began it, or give a new folder"
    )]
    StateFormat {
        /// The state's file.
        path: PathBuf,
        /// The form that it is in.
        found: u32,
        /// The form that this version knows.
        expected: u32,
    },
    /// A guard has stopped the run, whose state is saved.
    #[error("step {step}: {reason}")]
    Guard {
        /// The step.
        step: u64,
        /// What was seen, and what may be done about it.
        reason: String,
    },
    /// A teacher's server answered something else than log-probabilities of what it was to read.
    #[error("teacher `{model}`: the answer {reason}")]
    TeacherReply {
        /// The model's name at the server.
        model: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// A teacher's server could not be asked.
    #[error(transparent)]
    Chat(#[from] posttrain_chat::ChatError),
    /// A server that is to sample cannot be of use, or none has been for too long.
    #[error("sampler {url}: {reason}")]
    Sampler {
        /// The server; the last that was asked, where none is of use.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The ranks that make the run do not come together.
    #[error(transparent)]
    Collective(#[from] posttrain_collective::CollectiveError),
    /// A file or folder of the run failed.
    #[error(transparent)]
    Store(#[from] posttrain_store::StoreError),
    /// A model cannot be fetched from the hub.
    #[error(transparent)]
    Hub(#[from] posttrain_hub::HubError),
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
    /// The learning rate's schedule is out of range.
    #[error(transparent)]
    Optim(#[from] posttrain_optim::OptimError),
    /// The reward's configuration or its runner failed.
    #[error(transparent)]
    Reward(#[from] posttrain_reward::RewardError),
    /// The sampling service took a request back.
    #[error(transparent)]
    Service(#[from] posttrain_rollout::ServiceError),
    /// Episodes cannot be played as they are configured.
    #[error(transparent)]
    Episode(#[from] posttrain_environment::EpisodeError),
    /// Sampling failed.
    #[error(transparent)]
    Rollout(#[from] posttrain_rollout::RolloutError),
    /// Training failed.
    #[error(transparent)]
    Train(#[from] posttrain_train::TrainError),
}

impl RecipeError {
    /// The error of an example that nothing can be learned from.
    pub(crate) fn example(example: &posttrain_data::Example, reason: String) -> Self {
        Self::Example { id: example.id.clone(), reason }
    }

    /// `Ok` if every count is at least 1, else the error that names the first that is not.
    pub(crate) fn check_counts(counts: &[(&'static str, u64)]) -> Result<(), Self> {
        counts.iter().try_for_each(|(field, n)| Self::check(field, *n >= 1, "at least 1", n))
    }

    /// `Ok` for a learning rate that can be learned with.
    pub(crate) fn check_learning_rate(rate: f64) -> Result<(), Self> {
        let fits = rate.is_finite() && rate > 0.0;
        Self::check("learning_rate", fits, "finite and above 0", &rate)
    }

    /// `Ok` if a configuration value is in its range, else the error that names it.
    pub(crate) fn check(
        field: &'static str,
        ok: bool,
        expected: &'static str,
        got: &(impl ToString + ?Sized),
    ) -> Result<(), Self> {
        if ok { Ok(()) } else { Err(Self::Config { field, expected, got: got.to_string() }) }
    }
}

/// An error with everything below it, in one line.
pub(crate) fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut below = error.source();
    while let Some(source) = below {
        told += &format!(": {source}");
        below = source.source();
    }
    told
}
