//! How a matrix lies in memory.

use crate::KernelError;
use posttrain_tensor::TensorError;
use tch::Tensor;

/// Row by row, or feature by feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Rows,
    Columns,
}

/// The matrix `[rows, features]` as it lies: its layout, and a contiguous tensor over the same
/// memory (its transpose, where it lies feature by feature).
pub(crate) fn lying(argument: &'static str, x: &Tensor) -> Result<(Layout, Tensor), KernelError> {
    if x.dim() != 2 {
        return Err(TensorError::Shape { argument, expected: vec![-1, -1], got: x.size() }.into());
    }

    if x.is_contiguous() {
        return Ok((Layout::Rows, x.f_detach()?));
    }

    let transposed = x.f_detach()?.f_transpose(0, 1)?;
    if transposed.is_contiguous() {
        return Ok((Layout::Columns, transposed));
    }

    Err(TensorError::Strided { argument, strides: x.stride() }.into())
}

impl Layout {
    /// A contiguous result over memory of this layout as the matrix that it is.
    pub fn matrix(self, lying: Tensor) -> Result<Tensor, KernelError> {
        match self {
            Self::Rows => Ok(lying),
            Self::Columns => Ok(lying.f_transpose(0, 1)?),
        }
    }
}
