//! What can go wrong in sampling: with one request, or with the engine.

use posttrain_loss::error::LogitProblem;

/// Why one request cannot be served; the others go on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The prompt leaves no room in the model's context for a single token.
    #[error("the prompt has {tokens} tokens, and the model's context is {context}")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// The model's context.
        context: usize,
    },
    /// The prompt holds no token.
    #[error("the prompt is empty")]
    PromptEmpty,
    /// The prompt holds an id that the model has no embedding for.
    #[error(
        "token id {token} at place {place} of the prompt is not below the vocabulary's size {vocab}"
    )]
    UnknownToken {
        /// The id.
        token: i64,
        /// Its place in the prompt, from 0.
        place: usize,
        /// The vocabulary's size.
        vocab: i64,
    },
    /// A sampling parameter is out of its range.
    #[error("sampling parameter `{field}` must be {expected}, got {got}")]
    Params {
        /// The field of [`crate::SamplingParams`].
        field: &'static str,
        /// The range that it must lie in.
        expected: &'static str,
        /// What was given.
        got: String,
    },
    /// The request was cancelled before this sample was finished.
    #[error("the request was cancelled")]
    Cancelled,
    /// The request's deadline passed before this sample was finished.
    #[error("the request's deadline passed before the sample was finished")]
    DeadlinePassed,
    /// What the policy computed is no distribution: its weights are no numbers any more, or too
    /// large ones.
    #[error("the policy has no distribution here ({problem}): its weights have diverged")]
    Diverged {
        /// What is wrong with the logits.
        problem: LogitProblem,
    },
    /// The engine that the sample ran in failed.
    #[error("the engine failed while it sampled: {reason}")]
    EngineFailed {
        /// What failed.
        reason: String,
    },
    /// Stop strings need a tokenizer, and the engine has none.
    #[error("stop strings were given, but the engine has no tokenizer to see text with")]
    NoTokenizer,
}

impl RequestError {
    /// Whether the request was refused as a whole before any of it was sampled.
    pub(crate) fn is_refusal(&self) -> bool {
        !matches!(
            self,
            Self::Cancelled
                | Self::DeadlinePassed
                | Self::Diverged { .. }
                | Self::EngineFailed { .. }
        )
    }
}

/// Why a service does not take a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// It is shutting down, or has ended.
    #[error("the sampling service takes no more requests")]
    Closed,
    /// It has as much to do as it may have.
    #[error("the sampling service is full: {pending} samples wait or run")]
    Full {
        /// Samples that wait or run.
        pending: usize,
    },
    /// No policy is published under the name.
    #[error("no policy is published as `{name}`; there are: {}", known.join(", "))]
    UnknownPolicy {
        /// The name.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
}

/// An error that ends sampling.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RolloutError {
    /// A configuration value is out of its range.
    #[error("engine config: `{field}` must be {expected}, got {got}")]
    Config {
        /// The field of [`crate::EngineConfig`].
        field: &'static str,
        /// The range that it must lie in.
        expected: &'static str,
        /// What was given.
        got: String,
    },
    /// A request cannot be served.
    #[error("request {request} cannot be served")]
    Request {
        /// Its place among those that were asked for together, from 0.
        request: usize,
        /// Why.
        #[source]
        source: RequestError,
    },
    /// No thread can be had.
    #[error("a thread of the sampling service cannot be started")]
    Thread {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The model failed.
    #[error(transparent)]
    Model(#[from] posttrain_model::ModelError),
    /// The token sampler failed.
    #[error(transparent)]
    Loss(#[from] posttrain_loss::LossError),
    /// libtorch refused an operation (memory, device, shape).
    #[error("libtorch refused an operation")]
    Torch(#[from] tch::TchError),
}
