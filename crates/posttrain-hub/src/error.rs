//! What can go wrong between the hub and the disk.

use std::path::PathBuf;

/// An error of this crate. No token is in any of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A model's name is not one.
    #[error("model `{name}`: expected OWNER/NAME or OWNER/NAME@REVISION")]
    Name {
        /// As written.
        name: String,
    },
    /// An environment variable has a value that makes no sense.
    #[error("{variable}: expected {expected}, got `{got}`")]
    Environment {
        /// The variable.
        variable: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        got: String,
    },
    /// The hub could not be asked, or did not answer as it should.
    #[error("{model}: {doing}: {reason}{advice}")]
    Request {
        /// The model.
        model: String,
        /// What was being done.
        doing: String,
        /// What came of it.
        reason: String,
        /// What may help; begins with a separator, or is empty.
        advice: &'static str,
    },
    /// The hub's list of files names one that would lie outside of the model's folder.
    #[error("{model}: the hub lists a file named `{file}`, which is no path inside a folder")]
    FileName {
        /// The model.
        model: String,
        /// The file.
        file: String,
    },
    /// The model has only pickled weights.
    #[error(
        "{model}: has only pickled weights ({file}), which can run code when they are opened; take a revision with safetensors, or convert them"
    )]
    Pickle {
        /// The model.
        model: String,
        /// One of them.
        file: String,
    },
    /// The model has no weights of a kind that is read.
    #[error("{model}: no model.safetensors, and no shards that model.safetensors.index.json lists")]
    NoWeights {
        /// The model.
        model: String,
    },
    /// A file is not what the hub says it is; it was removed.
    #[error(
        "{path}: {what} is {got}, the hub says {expected}; it was removed, and will be fetched again"
    )]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// `size` or `SHA-256`.
        what: &'static str,
        /// The hub's.
        expected: String,
        /// The file's.
        got: String,
    },
    /// Nothing may be asked of the network, and the cache does not have it.
    #[error("{model}: offline, and {missing} is not in the cache at {cache}")]
    Offline {
        /// The model.
        model: String,
        /// The file, or the revision.
        missing: String,
        /// The cache.
        cache: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{path} cannot be read or written")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}
