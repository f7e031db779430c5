//! What can go wrong with a tensor, with the argument, what was expected of it and what came.

use std::path::PathBuf;
use tch::{Device, Kind, TchError};

/// An error of this crate. Nothing has been computed or written when one comes back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// A tensor has the wrong shape; -1 stands for any size.
    #[error("`{argument}` has shape {got:?}, expected {expected:?}")]
    Shape {
        /// The argument.
        argument: &'static str,
        /// Sizes expected, -1 for any.
        expected: Vec<i64>,
        /// Sizes received.
        got: Vec<i64>,
    },
    /// A tensor has the wrong kind.
    #[error("`{argument}` is of kind {got:?}, expected {expected}")]
    Kind {
        /// The argument.
        argument: &'static str,
        /// Kinds accepted.
        expected: &'static str,
        /// Kind received.
        got: Kind,
    },
    /// A tensor lies on the wrong device.
    #[error("`{argument}` is on {got:?}, expected {expected:?}")]
    Device {
        /// The argument.
        argument: &'static str,
        /// Device expected.
        expected: Device,
        /// Device received.
        got: Device,
    },
    /// A tensor is not contiguous in memory where it has to be.
    #[error("`{argument}` is not contiguous (strides {strides:?})")]
    Strided {
        /// The argument.
        argument: &'static str,
        /// Its strides.
        strides: Vec<i64>,
    },
    /// A tensor is to be written as a slice, and is not alone with its memory.
    #[error("`{argument}` shares its memory with another tensor, and cannot be written")]
    Shared {
        /// The argument.
        argument: &'static str,
    },
    /// A file lacks a tensor.
    #[error("{path}: tensor `{name}` is missing")]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in it.
        name: String,
    },
    /// A tensor in a file has a shape or kind other than the one that was expected.
    #[error("{path}: tensor `{name}`: expected {expected}, got {got}")]
    StoredTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in it.
        name: String,
        /// Shape or kind that was expected.
        expected: String,
        /// Shape or kind that came.
        got: String,
    },
    /// A file is not the safetensors that it should be.
    #[error("{path}: not a readable safetensors file")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The parser's answer.
        source: safetensors::SafeTensorError,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's own error.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Store(#[from] posttrain_store::StoreError),
    /// There is no CUDA library to load.
    #[error("{reason}")]
    NoCuda {
        /// Why.
        reason: &'static str,
    },
    /// libtorch's CUDA library does not load.
    #[error("{} does not load ({reason}); `cargo xtask setup --cuda` installs what it needs", path.display())]
    CudaLibrary {
        /// The library.
        path: PathBuf,
        /// The loader's words.
        reason: String,
    },
    /// C++ that `tch` does not bind failed.
    #[error("libtorch cannot {operation}: {reason}")]
    Shim {
        /// What was attempted, in words.
        operation: &'static str,
        /// The text of the exception.
        reason: String,
    },
    /// libtorch refused an operation: memory, device, shape.
    #[error("libtorch refused an operation")]
    Torch(#[from] TchError),
}
