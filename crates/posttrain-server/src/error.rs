//! What keeps a server from starting or going on.

use std::net::SocketAddr;
use std::path::PathBuf;

/// An error of this crate. What a client did wrong is not one: the client is told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// An address that others reach was asked for without keys.
    #[error(
        "`--listen {address}` is reached from other machines: give `--keys FILE`, or listen on 127.0.0.1"
    )]
    OpenToAll {
        /// The address.
        address: SocketAddr,
    },
    /// A configuration value is out of its range.
    #[error("server config: `{field}` must be {expected}, got {got}")]
    Config {
        /// The field.
        field: &'static str,
        /// The range that it must lie in.
        expected: &'static str,
        /// What was given.
        got: String,
    },
    /// A file of keys holds none, or a line that is no key. The line itself is not told.
    #[error("{}: line {line}: expected {expected}", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What was expected.
        expected: &'static str,
    },
    /// A file could not be read.
    #[error("{} cannot be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The folder of checkpoints failed.
    #[error(transparent)]
    Store(#[from] posttrain_store::StoreError),
    /// The sampling service cannot be started.
    #[error(transparent)]
    Rollout(#[from] posttrain_rollout::RolloutError),
    /// The training service cannot be started.
    #[error(transparent)]
    Train(#[from] posttrain_train::TrainError),
    /// The policy that learns from what it serves cannot be taken up.
    #[error(transparent)]
    Recipe(#[from] posttrain_recipes::RecipeError),
    /// A run's folder cannot be served.
    #[error(transparent)]
    Experiment(#[from] posttrain_experiment::ExperimentError),
}

impl ServerError {
    pub(crate) fn check(
        field: &'static str,
        ok: bool,
        expected: &'static str,
        got: &(impl ToString + ?Sized),
    ) -> Result<(), Self> {
        if ok { Ok(()) } else { Err(Self::Config { field, expected, got: got.to_string() }) }
    }
}
