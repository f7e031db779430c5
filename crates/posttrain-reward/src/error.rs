//! The crate's error: every way in which a reward can fail to say anything.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use posttrain_answer::AnswerError;
use posttrain_chat::ChatError;

use crate::judge::NoVerdict;
use crate::outside::ProgramFailure;
use crate::spreadsheet::FileFailure;

/// Why a completion has no reward.
///
/// A failed reward is never a zero: see the [crate documentation](crate). Count failures by
/// [`RewardError::cause`].
///
/// ```
/// use posttrain_reward::RewardError;
///
/// let error = RewardError::TimedOut { reward: "judge".into(), seconds: 2.5 };
/// assert_eq!(error.cause(), "timed_out");
/// assert_eq!(error.to_string(), "reward `judge` gave no score within 2.5 s");
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RewardError {
    /// A score's value is not a finite number from 0 to 1, or one of its parts is not finite.
    #[error("score `{part}` is {value}: expected {expected}")]
    InvalidScore {
        /// `value`, or the name of the part.
        part: String,
        /// What came.
        value: f64,
        /// What is allowed, in words.
        expected: &'static str,
    },
    /// The sample has no reference answer to verify against.
    #[error("sample `{id}` has an empty reference answer")]
    EmptyReference {
        /// The sample's id.
        id: String,
    },
    /// The reference answer is not of the form that the verifier compares.
    #[error("sample `{id}`: reference `{reference}` is not {expected}")]
    BadReference {
        /// The sample's id.
        id: String,
        /// The reference, at most 80 characters of it.
        reference: String,
        /// What the verifier needs, in words.
        expected: &'static str,
    },
    /// The sample's metadata lacks what the verifier needs, or has it in another form.
    #[error("sample `{id}`: metadata `{key}` is not {expected}")]
    BadMetadata {
        /// The sample's id.
        id: String,
        /// The metadata's key.
        key: String,
        /// What the verifier needs, in words.
        expected: &'static str,
    },
    /// The verifier read both sides and cannot tell whether they agree, where a person or a judge
    /// might.
    #[error("sample `{id}`: `{verifier}` cannot say: {reason}")]
    Undecided {
        /// The sample's id.
        id: String,
        /// The verifier's name.
        verifier: String,
        /// What kept it from a verdict, in words.
        reason: &'static str,
    },
    /// No reward is registered for the sample's domain.
    #[error("sample `{id}`: no reward for domain `{domain}`; there are rewards for {known:?}")]
    UnknownDomain {
        /// The sample's id.
        id: String,
        /// The domain that was asked for.
        domain: String,
        /// The domains that have a reward, sorted.
        known: Vec<String>,
    },
    /// The sample lacks what the reward needs to know.
    #[error("sample `{id}` has no `{field}`: expected {expected}")]
    MissingField {
        /// The sample's id.
        id: String,
        /// The field, or the key of the metadata.
        field: &'static str,
        /// What the reward needs, in words.
        expected: &'static str,
    },
    /// A task in the sample's metadata (tests, workbooks) is not of the form that the reward reads.
    #[error("sample `{id}`: metadata `{key}` is not {expected}: {reason}")]
    BadTask {
        /// The sample's id.
        id: String,
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
        /// What the reward reads, in words.
        expected: &'static str,
    },
    /// The step's deadline passed before the sample was scored.
    #[error("reward `{reward}` gave no score before the step's deadline of {seconds} s")]
    DeadlinePassed {
        /// The reward's name.
        reward: String,
        /// The deadline, in seconds from the making of the scorer.
        seconds: f64,
    },
    /// The reward did not answer within its time limit.
    #[error("reward `{reward}` gave no score within {seconds} s")]
    TimedOut {
        /// The reward's name.
        reward: String,
        /// The limit, in seconds.
        seconds: f64,
    },
    /// The reward panicked. The panic was caught; other samples are not touched.
    #[error("reward `{reward}` panicked: {message}")]
    Panicked {
        /// The reward's name.
        reward: String,
        /// The panic's message.
        message: String,
    },
    /// The runtime or the thread pool went away before the reward answered.
    #[error("reward `{reward}` was cancelled: its runtime or thread pool has shut down")]
    Cancelled {
        /// The reward's name.
        reward: String,
    },
    /// A reward's program did not answer as agreed.
    #[error("reward `{reward}`: `{program}` failed; on standard error: {stderr:?}")]
    Program {
        /// The reward's name.
        reward: String,
        /// The program, without its arguments.
        program: String,
        /// The end of what it wrote on standard error.
        stderr: String,
        /// What it did instead.
        #[source]
        failure: ProgramFailure,
    },
    /// A file that the reward compares cannot be read.
    #[error("{} cannot be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        failure: FileFailure,
    },
    /// A reward outside of this process answered, but not by the contract.
    #[error("reward `{reward}` answered {reply:?}: {reason}")]
    BadReply {
        /// The reward's name.
        reward: String,
        /// The beginning of the answer.
        reply: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A reward outside of this process says that it has no score.
    #[error("reward `{reward}` says: {message}")]
    Reported {
        /// The reward's name.
        reward: String,
        /// Its words, at most 200 characters of them.
        message: String,
    },
    /// The model that a judge asks gave no answer.
    #[error("reward `{reward}`: the chat model gave no answer")]
    Chat {
        /// The reward's name.
        reward: String,
        /// What kept it.
        source: Arc<ChatError>,
    },
    /// The client of a judge's server cannot be set up: a field out of its range, a key that is not
    /// there, a cache that cannot be opened.
    #[error("the client of a judge's server cannot be set up")]
    Client {
        /// What kept it.
        source: Arc<ChatError>,
    },
    /// The model that a judge asks answered, and there is no verdict in the answer.
    #[error("sample `{id}`: no verdict from `{reward}`: {problem}: {answer:?}")]
    NoVerdict {
        /// The sample's id.
        id: String,
        /// The reward's name.
        reward: String,
        /// Why it is none.
        problem: NoVerdict,
        /// The answer, at most 200 characters of it.
        answer: String,
    },
    /// The sample has no response to compare with.
    #[error("sample `{id}` has no text in the field `{field}` of its metadata to compare with")]
    NoOpponent {
        /// The sample's id.
        id: String,
        /// The field of its metadata.
        field: String,
    },
    /// A user's own reward failed.
    #[error("reward `{reward}` failed ({cause})")]
    Failed {
        /// The reward's name.
        reward: String,
        /// A short key that failures are counted by, such as `http_429`.
        cause: &'static str,
        /// What went wrong.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// A configuration value is out of its range.
    #[error("`{field}` is {got}: expected {expected}")]
    InvalidConfig {
        /// The field.
        field: &'static str,
        /// What came.
        got: String,
        /// What is allowed, in words.
        expected: &'static str,
    },
    /// A blocking call was made, or a runtime given, where waiting would stop the very tasks that
    /// are waited for.
    #[error(
        "`{call}` needs a multi-threaded tokio runtime: on a single-threaded one it would wait for itself"
    )]
    WouldDeadlock {
        /// The call.
        call: &'static str,
    },
}

impl RewardError {
    /// Wraps the error of a user's own reward; `cause` is the key that it is counted by.
    ///
    /// ```
    /// use posttrain_reward::RewardError;
    /// use std::error::Error;
    ///
    /// let source = "12x".parse::<i64>().unwrap_err();
    /// let error = RewardError::failed("my-reward", "parse", source);
    /// assert_eq!(error.cause(), "parse");
    /// assert_eq!(error.source().unwrap().to_string(), "invalid digit found in string");
    /// ```
    pub fn failed(
        reward: &str,
        cause: &'static str,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self::Failed { reward: reward.to_owned(), cause, source: Arc::new(source) }
    }

    /// The error in one line, with everything below it: no message repeats what its source says.
    ///
    /// ```
    /// use posttrain_reward::RewardError;
    ///
    /// let source = "12x".parse::<i64>().unwrap_err();
    /// let error = RewardError::failed("my-reward", "parse", source);
    /// assert_eq!(error.report(), "reward `my-reward` failed (parse): invalid digit found in string");
    /// ```
    #[must_use]
    pub fn report(&self) -> String {
        with_sources(self)
    }

    /// The error of an option that is out of its range.
    pub(crate) fn invalid_rule(error: AnswerError) -> Self {
        match error {
            AnswerError::InvalidConfig { field, got, expected } => {
                Self::InvalidConfig { field, got, expected }
            }
            // Options are checked without a reference.
            other => Self::InvalidConfig {
                field: "rule",
                got: other.to_string(),
                expected: "options in their ranges",
            },
        }
    }

    /// A short key that stays the same from release to release, to count failures by.
    ///
    /// ```
    /// use posttrain_reward::RewardError;
    ///
    /// assert_eq!(RewardError::EmptyReference { id: "7".into() }.cause(), "empty_reference");
    /// ```
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::InvalidScore { .. } => "invalid_score",
            Self::EmptyReference { .. } => "empty_reference",
            Self::BadReference { .. } => "bad_reference",
            Self::BadMetadata { .. } => "bad_metadata",
            Self::Undecided { .. } => "undecided",
            Self::UnknownDomain { .. } => "unknown_domain",
            Self::MissingField { .. } => "missing_field",
            Self::BadTask { .. } => "bad_task",
            Self::DeadlinePassed { .. } => "deadline_passed",
            Self::TimedOut { .. } => "timed_out",
            Self::Panicked { .. } => "panicked",
            Self::Cancelled { .. } => "cancelled",
            Self::Program { failure, .. } => failure.cause(),
            Self::File { failure, .. } => failure.cause(),
            Self::BadReply { .. } => "bad_reply",
            Self::Reported { .. } => "reported",
            Self::Chat { source, .. } | Self::Client { source } => ChatError::cause(source),
            Self::NoVerdict { problem, .. } => problem.cause(),
            Self::NoOpponent { .. } => "no_opponent",
            Self::Failed { cause, .. } => cause,
            Self::InvalidConfig { .. } => "invalid_config",
            Self::WouldDeadlock { .. } => "would_deadlock",
        }
    }

    /// Whether the same completion may be scored when it is tried again: what a server, a process
    /// or a judge failed at, and not what the data, the task or the configuration has wrong.
    ///
    /// ```
    /// use posttrain_reward::RewardError;
    ///
    /// let late = RewardError::TimedOut { reward: "judge".into(), seconds: 60.0 };
    /// assert!(late.is_transient());
    /// let unknown =
    ///     RewardError::UnknownDomain { id: "1".into(), domain: "art".into(), known: vec![] };
    /// assert!(!unknown.is_transient());
    /// ```
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::TimedOut { .. }
                | Self::Panicked { .. }
                | Self::Program { .. }
                | Self::File { .. }
                | Self::BadReply { .. }
                | Self::Reported { .. }
                | Self::Chat { .. }
                | Self::Client { .. }
                | Self::NoVerdict { .. }
                | Self::Failed { .. }
        )
    }
}

/// An error and all of its sources, joined by colons.
pub(crate) fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(source) = below {
        text = format!("{text}: {source}");
        below = source.source();
    }
    text
}

/// The message of a caught panic.
pub(crate) fn panicked(reward: &str, payload: &(dyn std::any::Any + Send)) -> RewardError {
    let message = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let message = message.or_else(|| payload.downcast_ref::<String>().cloned());
    let message = message.unwrap_or_else(|| "a payload that is not text".to_owned());
    RewardError::Panicked { reward: reward.to_owned(), message }
}
