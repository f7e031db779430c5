//! The rows of a decoding step, multiplied natively where the processor can, by libtorch elsewhere.

use crate::LoraError;
use posttrain_kernel::PackedColumns;
use std::ops::Range;
use tch::Tensor;

/// Rows to be multiplied with weights; what comes of it has a row for each feature.
pub(crate) struct FewRows {
    /// `[rows, in]`.
    x: Tensor,
    packed: Option<PackedColumns>,
}

impl FewRows {
    /// The rows `rows` of `x: [N, in]`.
    pub fn of(x: &Tensor, rows: Range<i64>) -> Result<Self, LoraError> {
        let packed = PackedColumns::of(x, rows.start as usize..rows.end as usize)?;
        Ok(Self { x: x.f_narrow(0, rows.start, rows.end - rows.start)?, packed })
    }

    /// `x·Wᵀ` for `weight: [out, in]`: `[out, rows]`, a row for each feature.
    pub fn product(&self, weight: &Tensor) -> Result<Tensor, LoraError> {
        match &self.packed {
            Some(packed) if weight.is_contiguous() => Ok(packed.product(weight)?),
            _ => Ok(weight.f_mm(&self.x.f_transpose(0, 1)?)?),
        }
    }

    /// Adds `x·Wᵀ` in place to `into: [features, N]`, from row and feature `at` of the product on.
    pub fn add_product(
        &self,
        weight: &Tensor,
        into: &mut Tensor,
        [row, feature]: [i64; 2],
    ) -> Result<(), LoraError> {
        if let Some(packed) = self.packed.as_ref().filter(|_| weight.is_contiguous()) {
            return Ok(packed.add_product(weight, into, feature as usize, row as usize)?);
        }

        let mut part =
            into.f_narrow(1, row, self.x.size()[0])?.f_narrow(0, feature, weight.size()[0])?;
        let _ = part.f_addmm_(weight, &self.x.f_transpose(0, 1)?)?;
        Ok(())
    }
}
