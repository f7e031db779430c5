//! What can go wrong in a step.

use std::path::PathBuf;

/// An error of this crate. Its fields are data, so that a caller can act on them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptimError {
    /// A constant is out of its range.
    #[error("optimizer: `{field}` must be {expected}, got {got}")]
    Config {
        /// The field.
        field: &'static str,
        /// The range that it must lie in.
        expected: &'static str,
        /// What was given.
        got: String,
    },
    /// The gradient is not finite: the step was not taken, and the gradients were cleared.
    #[error("the gradient's norm is {norm}: the step was not taken")]
    NonFiniteGradient {
        /// The norm.
        norm: f64,
    },
    /// Parameters are not those that the moments belong to.
    #[error("optimizer: {reason}")]
    Parameters {
        /// What differs.
        reason: String,
    },
    /// A saved state does not fit the parameters.
    #[error("{}: {reason}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A file of tensors cannot be read or written.
    #[error(transparent)]
    Tensors(#[from] posttrain_tensor::TensorError),
    /// libtorch refused an operation (memory, device, shape).
    #[error("libtorch refused an operation")]
    Torch(#[from] tch::TchError),
}

impl OptimError {
    /// `Ok` if a constant is in its range, else the error that names it.
    pub(crate) fn check(
        field: &'static str,
        ok: bool,
        expected: &'static str,
        got: &impl ToString,
    ) -> Result<(), Self> {
        if ok { Ok(()) } else { Err(Self::Config { field, expected, got: got.to_string() }) }
    }
}
