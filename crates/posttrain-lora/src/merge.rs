//! Folding an update into a weight.

use crate::{LoraError, LoraPair};
use tch::{Kind, Tensor};

/// `W + s·B·A`, added in f32 and rounded to `W`'s kind; `weight: [out, in]`, no gradient.
///
/// # Errors
/// [`LoraError::Torch`] if the shapes do not fit.
///
/// ```
/// use posttrain_lora::{LoraPair, merged_weight};
/// use tch::Tensor;
/// let pair = LoraPair {
///     a: Tensor::from_slice(&[1.0f32, 2.0]).view([1, 2]),
///     b: Tensor::from_slice(&[3.0f32]).view([1, 1]),
///     scale: 0.5,
/// };
/// let merged = merged_weight(&Tensor::from_slice(&[10.0f32, 20.0]).view([1, 2]), &pair)?;
/// assert_eq!(Vec::<f32>::try_from(merged.view(-1)).unwrap(), [11.5, 23.0]);
/// # Ok::<(), posttrain_lora::LoraError>(())
/// ```
pub fn merged_weight(weight: &Tensor, pair: &LoraPair) -> Result<Tensor, LoraError> {
    let _guard = tch::no_grad_guard();
    let update = pair.b.f_matmul(&pair.a)?.f_mul_scalar(pair.scale)?;
    Ok(weight.f_to_kind(Kind::Float)?.f_add(&update)?.f_to_kind(weight.kind())?)
}
