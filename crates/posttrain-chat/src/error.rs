//! The crate's error: every way in which a server can fail to give an answer.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Which deadline passed; see [`Deadlines`](crate::client::Deadlines).
///
/// ```
/// assert_eq!(posttrain_chat::Deadline::Read.to_string(), "read");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Deadline {
    /// The time to connect.
    Connect,
    /// The time without a byte.
    Read,
    /// The time of one attempt.
    Attempt,
    /// The time of a call with all its retries and pauses.
    Total,
}

impl std::fmt::Display for Deadline {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Connect => "connect",
            Self::Read => "read",
            Self::Attempt => "attempt",
            Self::Total => "total",
        })
    }
}

/// Why there is no answer. No variant ever holds a key: endpoints are shown without user
/// information and query values, and what a server said is cleared of every secret of the client
/// before it is kept.
///
/// ```
/// use posttrain_chat::{ChatError, Deadline};
///
/// let error = ChatError::TimedOut { endpoint: "http://localhost:8000/v1".into(), deadline: Deadline::Read, seconds: 2.0 };
/// assert_eq!(error.cause(), "timed_out");
/// assert_eq!(error.to_string(), "http://localhost:8000/v1: the read deadline of 2 s passed");
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// A configuration value is out of its range.
    #[error("`{field}` is {got}: expected {expected}")]
    InvalidConfig {
        /// The field.
        field: String,
        /// What came; never a secret.
        got: String,
        /// What is allowed, in words.
        expected: &'static str,
    },
    /// A request's field is out of its range, found before anything was sent.
    #[error("request: `{field}` is {got}: expected {expected}")]
    InvalidRequest {
        /// The field.
        field: String,
        /// What came.
        got: String,
        /// What is allowed, in words.
        expected: &'static str,
    },
    /// The API key cannot be had from where it should be.
    #[error("the API key from {origin}: {problem}")]
    NoKey {
        /// The environment variable or the file.
        origin: String,
        /// What is wrong with it, in words.
        problem: &'static str,
    },
    /// The HTTP client cannot be set up (certificates, proxy).
    #[error("the HTTP client cannot be set up")]
    Setup {
        /// What went wrong.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// No connection, or one that broke.
    #[error("{endpoint}: the connection failed or broke")]
    Broken {
        /// The server.
        endpoint: String,
        /// What went wrong, without the address.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// A deadline passed.
    #[error("{endpoint}: the {deadline} deadline of {seconds} s passed")]
    TimedOut {
        /// The server.
        endpoint: String,
        /// Which deadline.
        deadline: Deadline,
        /// Its length, in seconds.
        seconds: f64,
    },
    /// The server answered with a status that is not a success.
    #[error("{endpoint}: HTTP status {status}: {body}")]
    Status {
        /// The server.
        endpoint: String,
        /// The status code.
        status: u16,
        /// The beginning of the answer, cleared of secrets.
        body: String,
        /// What its `Retry-After` asks for.
        retry_after: Option<Duration>,
    },
    /// The server answered with a redirect, which is never followed: the key and the texts would go
    /// elsewhere.
    #[error(
        "{endpoint}: redirected (HTTP status {status}), which is not followed: give the final address"
    )]
    Redirected {
        /// The server.
        endpoint: String,
        /// The status code.
        status: u16,
    },
    /// The answer is larger than the configured bound.
    #[error("{endpoint}: the answer is larger than {limit} bytes")]
    TooLarge {
        /// The server.
        endpoint: String,
        /// The bound, in bytes.
        limit: usize,
    },
    /// The answer is not JSON.
    #[error("{endpoint}: the answer is not JSON: {body}")]
    InvalidJson {
        /// The server.
        endpoint: String,
        /// The beginning of the answer, cleared of secrets.
        body: String,
        /// What the parser said.
        #[source]
        source: Arc<serde_json::Error>,
    },
    /// The answer is JSON of another form than agreed, or a stream that is none.
    #[error("{endpoint}: `{field}` of the answer is {got}: expected {expected}")]
    UnexpectedAnswer {
        /// The server.
        endpoint: String,
        /// The place in the answer.
        field: &'static str,
        /// The beginning of what came, cleared of secrets.
        got: String,
        /// What is needed, in words.
        expected: &'static str,
    },
    /// The server reported an error inside an answer that began as a success (in a stream, for
    /// example).
    #[error("{endpoint}: the server reported: {message}")]
    Reported {
        /// The server.
        endpoint: String,
        /// What it said, cleared of secrets.
        message: String,
    },
    /// A stream ended before the answer did.
    #[error("{endpoint}: the stream ended before the answer did")]
    CutStream {
        /// The server.
        endpoint: String,
    },
    /// Every replica is out of service for longer than the call may take.
    #[error(
        "all {replicas} replicas are out of service for longer than the call may take ({seconds} s)"
    )]
    Unavailable {
        /// How many there are.
        replicas: usize,
        /// The total deadline, in seconds.
        seconds: f64,
    },
    /// The text is not of the form that was asked for.
    #[error("the answer is not {expected}: {text}")]
    OffFormat {
        /// What was asked for, in words.
        expected: String,
        /// The beginning of the text.
        text: String,
    },
    /// The response cache cannot be opened.
    #[error("the cache {}: {action}", path.display())]
    Cache {
        /// The folder or file.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// What went wrong.
        #[source]
        source: Arc<io::Error>,
    },
    /// A model that is not a server (a test's, a user's own) failed.
    #[error("model `{model}` failed ({cause}): {message}")]
    Failed {
        /// The model.
        model: String,
        /// A short key that failures are counted by.
        cause: &'static str,
        /// What went wrong.
        message: String,
    },
}

impl ChatError {
    /// A short key that stays the same from release to release, to count failures by.
    ///
    /// ```
    /// use posttrain_chat::ChatError;
    ///
    /// let status = |status| ChatError::Status { endpoint: "e".into(), status, body: String::new(), retry_after: None };
    /// assert_eq!(status(429).cause(), "http_429");
    /// assert_eq!(status(418).cause(), "http_4xx");
    /// ```
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::InvalidConfig { .. } => "invalid_config",
            Self::InvalidRequest { .. } => "invalid_request",
            Self::NoKey { .. } => "no_key",
            Self::Setup { .. } => "setup",
            Self::Broken { .. } => "broken_connection",
            Self::TimedOut { .. } => "timed_out",
            Self::Status { status, .. } => status_cause(*status),
            Self::Redirected { .. } => "redirected",
            Self::TooLarge { .. } => "too_large",
            Self::InvalidJson { .. } => "invalid_json",
            Self::UnexpectedAnswer { .. } => "unexpected_answer",
            Self::Reported { .. } => "reported",
            Self::CutStream { .. } => "cut_stream",
            Self::Unavailable { .. } => "unavailable",
            Self::OffFormat { .. } => "off_format",
            Self::Cache { .. } => "cache",
            Self::Failed { cause, .. } => cause,
        }
    }

    /// Whether the same request may well succeed a moment later: statuses 408, 409, 429 and 5xx,
    /// broken connections, and all deadlines but the total one.
    ///
    /// ```
    /// use posttrain_chat::ChatError;
    ///
    /// let status = |status| ChatError::Status { endpoint: "e".into(), status, body: String::new(), retry_after: None };
    /// assert!(status(503).is_transient() && !status(400).is_transient());
    /// ```
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Broken { .. } | Self::CutStream { .. } => true,
            Self::TimedOut { deadline, .. } => *deadline != Deadline::Total,
            Self::Status { status, .. } => matches!(status, 408 | 409 | 429 | 500..=599),
            _ => false,
        }
    }

    #[cfg(feature = "client")]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a constructor of errors takes literals, numbers and texts alike"
    )]
    pub(crate) fn invalid_config(field: &str, got: impl ToString, expected: &'static str) -> Self {
        Self::InvalidConfig { field: field.to_owned(), got: got.to_string(), expected }
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "a constructor of errors takes literals, numbers and texts alike"
    )]
    pub(crate) fn invalid_request(field: &str, got: impl ToString, expected: &'static str) -> Self {
        Self::InvalidRequest { field: field.to_owned(), got: got.to_string(), expected }
    }

    #[cfg(feature = "client")]
    pub(crate) fn cache(path: impl Into<PathBuf>, action: &'static str, source: io::Error) -> Self {
        Self::Cache { path: path.into(), action, source: Arc::new(source) }
    }
}

fn status_cause(status: u16) -> &'static str {
    match status {
        400 => "http_400",
        401 => "http_401",
        403 => "http_403",
        404 => "http_404",
        408 => "http_408",
        409 => "http_409",
        413 => "http_413",
        422 => "http_422",
        429 => "http_429",
        500 => "http_500",
        502 => "http_502",
        503 => "http_503",
        504 => "http_504",
        _ if status / 100 == 4 => "http_4xx",
        _ if status / 100 == 5 => "http_5xx",
        _ => "http_status",
    }
}
