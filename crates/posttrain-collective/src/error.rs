//! What can go wrong between ranks.

use posttrain_tensor::TensorError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectiveError {
    /// A variable that torchrun sets is missing, or is not what it should be.
    #[error("environment: {variable} must be {expected}, got {got}")]
    Environment {
        /// The variable.
        variable: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        got: String,
    },
    /// Several ranks were asked for where they cannot be joined.
    #[error("{size} ranks: torch's process groups are bound on Linux alone")]
    Unsupported {
        /// How many.
        size: usize,
    },
    /// The ranks could not be joined, or a call that all have to make did not come to its end.
    #[error("rank {rank} of {size}: {operation}: {reason}")]
    Operation {
        /// This rank.
        rank: usize,
        /// How many there are.
        size: usize,
        /// What it was about.
        operation: &'static str,
        /// Who did not come, and what c10d says.
        reason: String,
    },
    /// Another rank failed, and says so.
    #[error("rank {rank} failed: {reason}")]
    Rank {
        /// Which.
        rank: usize,
        /// Its error.
        reason: String,
    },
    /// Ranks that should be the same are not.
    #[error("rank {rank} differs from rank 0 in its {what}: all ranks need the same")]
    Differs {
        /// The first that does.
        rank: usize,
        /// In what.
        what: &'static str,
    },
    /// What a rank sent cannot be read: it is of another version of the program.
    #[error("what rank {rank} sent cannot be read: {reason}")]
    Unreadable {
        /// Which.
        rank: usize,
        /// Why not.
        reason: String,
    },
    /// A tensor is of a sort that cannot be sent.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// libtorch refused an operation (memory, device, shape).
    #[error("libtorch refused an operation")]
    Torch(#[from] tch::TchError),
}
