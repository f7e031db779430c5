//! What can go wrong in an environment, and in playing an episode of one.

use posttrain_model::ModelError;
use posttrain_reward::RewardError;
use posttrain_rollout::{RequestError, ServiceError};

/// Why an environment cannot go on. The policy is not to blame: its episode has no reward.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// A reward failed.
    #[error("the reward failed")]
    Reward(#[from] RewardError),
    /// A tool failed, and the episode is not to go on without it.
    #[error("tool `{tool}` failed")]
    Tool {
        /// The tool's name.
        tool: String,
        /// How.
        #[source]
        source: ToolError,
    },
    /// Tools cannot be offered together, or as they are.
    #[error("tool `{tool}`: {reason}")]
    Tools {
        /// The tool's name.
        tool: String,
        /// What is wrong.
        reason: String,
    },
    /// An episode on this one's behalf failed.
    #[error("an episode of `{role}` failed")]
    Child {
        /// Who had it.
        role: String,
        /// How.
        #[source]
        source: Box<EpisodeError>,
    },
    /// It gave no answer in time: it waits for something that does not come.
    #[error("no answer within {seconds} s")]
    TimedOut {
        /// The limit, [`crate::EpisodeConfig::answer_seconds`].
        seconds: f64,
    },
    /// Something else of the environment's own.
    #[error("the environment failed: {reason}")]
    Failed {
        /// What.
        reason: String,
    },
}

/// Why a call of a tool has no result.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// The call is wrong, or has no answer: the policy reads why.
    #[error("{reason}")]
    Refused {
        /// Why, for the policy.
        reason: String,
    },
    /// It took too long.
    #[error("no answer within {seconds} s")]
    TimedOut {
        /// The limit.
        seconds: f64,
    },
    /// Whatever answers calls is gone, or says what nobody understands.
    #[error("{reason}")]
    Failed {
        /// What happened.
        reason: String,
    },
}

impl ToolError {
    /// A refusal.
    pub fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into() }
    }

    /// A failure.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into() }
    }
}

/// Why an episode could not be played.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EpisodeError {
    /// A configuration value is out of its range.
    #[error("`{field}` must be {expected}, got {got}")]
    Config {
        /// The field of [`crate::EpisodeConfig`].
        field: &'static str,
        /// Its range.
        expected: &'static str,
        /// What was given.
        got: String,
    },
    /// Messages cannot be put to the model.
    #[error("turn {turn}: what the policy is to read cannot be put to the model")]
    Text {
        /// The turn, from 0.
        turn: usize,
        /// Why.
        #[source]
        source: ModelError,
    },
    /// The sampling service takes no request.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// A turn was not sampled.
    #[error("turn {turn} was not sampled")]
    Sampling {
        /// The turn, from 0.
        turn: usize,
        /// Why.
        #[source]
        source: RequestError,
    },
    /// The environment cannot go on.
    #[error("turn {turn}")]
    Environment {
        /// The turn, from 0.
        turn: usize,
        /// Why.
        #[source]
        source: EnvironmentError,
    },
    /// A reward is not a number.
    #[error("turn {turn}: expected a finite reward, got {got}")]
    Reward {
        /// The turn, from 0.
        turn: usize,
        /// What came.
        got: f64,
    },
    /// A number that an environment tells is none.
    #[error("expected a finite `{name}` from the environment, got {got}")]
    Metric {
        /// Its name.
        name: String,
        /// What came.
        got: f64,
    },
    /// Whoever plays has no turn to give.
    #[error("turn {turn}: {reason}")]
    Actor {
        /// The turn, from 0.
        turn: usize,
        /// Why.
        reason: String,
    },
}
