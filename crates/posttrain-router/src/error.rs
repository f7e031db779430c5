//! The crate's error: every way in which a router can fail to decide.

use std::error::Error;
use std::path::PathBuf;

use posttrain_chat::ChatError;

/// Why there is no decision, no fit or no report.
///
/// ```
/// use posttrain_router::RouterError;
///
/// let error = RouterError::UnknownId { router: "oracle".into(), id: "q7".into() };
/// assert_eq!(error.to_string(), "router `oracle` knows no question `q7`");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouterError {
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
    /// Labels that cannot be told apart, or none at all.
    #[error("labels {got:?}: expected {expected}")]
    InvalidLabels {
        /// The labels.
        got: Vec<String>,
        /// What is allowed, in words.
        expected: &'static str,
    },
    /// Two parts that must have the same labels in the same order have not.
    #[error("`{part}` has the labels {got:?}: expected {expected:?}")]
    OtherLabels {
        /// The part.
        part: String,
        /// Its labels.
        got: Vec<String>,
        /// The other part's.
        expected: Vec<String>,
    },
    /// A label, or a row's domain, is none of the labels.
    #[error("{place}: unknown label {got:?}; expected one of {labels:?}")]
    UnknownLabel {
        /// Where it stands: a configuration's field, a split's row.
        place: String,
        /// What came.
        got: String,
        /// The labels.
        labels: Vec<String>,
    },
    /// A label has too few examples for what is asked of them.
    #[error("the {split} set has {got} examples of `{label}`: expected at least {needed}")]
    TooFewExamples {
        /// `training`, `validation` or `test`.
        split: &'static str,
        /// The label, or `any label`.
        label: String,
        /// How many are needed.
        needed: usize,
        /// How many there are.
        got: usize,
    },
    /// A fact, an id or a question stands in more than one split.
    #[error("{count} ids, groups or questions stand in more than one split, such as {first}")]
    Leak {
        /// How many.
        count: usize,
        /// The first of them, with its rows.
        first: String,
    },
    /// The oracle was not told about this question.
    #[error("router `{router}` knows no question `{id}`")]
    UnknownId {
        /// The router.
        router: String,
        /// The question's id.
        id: String,
    },
    /// A router, a scorer or an embedder answered in another form than agreed.
    #[error("`{part}`: {field} is {got}: expected {expected}")]
    BadAnswer {
        /// The part that answered.
        part: String,
        /// Which part of the answer.
        field: &'static str,
        /// What came.
        got: String,
        /// What was agreed.
        expected: String,
    },
    /// A chat model gave no answer.
    #[error("question `{id}`: model `{model}` gave no answer")]
    Chat {
        /// The question's id.
        id: String,
        /// The model.
        model: String,
        /// What went wrong.
        #[source]
        source: Box<ChatError>,
    },
    /// A chat model's answer names no label, or several.
    #[error("question `{id}`: model `{model}` answered {answer:?}: expected one of {labels:?}")]
    Unreadable {
        /// The question's id.
        id: String,
        /// The model.
        model: String,
        /// The beginning of its answer.
        answer: String,
        /// What it may answer.
        labels: Vec<String>,
    },
    /// The runtime was shut down, or the model panicked, before the question was answered.
    #[error(
        "question `{id}`: model `{model}` was cancelled: it panicked or its runtime has shut down"
    )]
    Cancelled {
        /// The question's id.
        id: String,
        /// The model.
        model: String,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Store(#[from] posttrain_store::StoreError),
    /// The operating system refused to read a file.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's own error.
        #[source]
        source: std::io::Error,
    },
    /// A file is not safetensors.
    #[error("{}: not a readable safetensors file", path.display())]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// What the reader met.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A file holds something else than a classifier, or one of another embedder.
    #[error("{}: `{field}` is {got}: expected {expected}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// The tensor or the key of the metadata.
        field: &'static str,
        /// What is there.
        got: String,
        /// What should be there.
        expected: String,
    },
    /// An implementor's own error: of a [`LabelScorer`](crate::LabelScorer), an
    /// [`Embedder`](crate::Embedder) or a [`Router`](crate::Router) that lives elsewhere.
    #[error("`{part}` failed")]
    Foreign {
        /// What failed.
        part: String,
        /// What went wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl RouterError {
    /// An implementor's own error.
    ///
    /// ```
    /// use std::error::Error;
    /// use posttrain_router::RouterError;
    ///
    /// let error = RouterError::foreign("scorer", std::io::Error::other("the device is gone"));
    /// assert_eq!(error.source().unwrap().to_string(), "the device is gone");
    /// ```
    pub fn foreign(
        part: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Foreign { part: part.into(), source: source.into() }
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "a constructor of errors takes literals, numbers and texts alike"
    )]
    pub(crate) fn config(field: &'static str, got: impl ToString, expected: &'static str) -> Self {
        Self::InvalidConfig { field, got: got.to_string(), expected }
    }

    pub(crate) fn answer(
        part: &str,
        field: &'static str,
        got: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::BadAnswer { part: part.to_owned(), field, got: got.into(), expected: expected.into() }
    }
}
