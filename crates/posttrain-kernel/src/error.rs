//! What can go wrong.

use posttrain_tensor::TensorError;
use tch::TchError;

/// An error of this crate. Nothing has been computed when one comes back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A tensor does not fit: its shape, its kind, its device, or how it lies in memory.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// libtorch refused an operation: memory, usually.
    #[error("libtorch refused an operation")]
    Torch(#[from] TchError),
}
