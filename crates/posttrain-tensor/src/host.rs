//! Copies on the host.

use crate::TensorError;
use tch::{Device, Tensor};

/// A copy of a tensor's values in the host's memory, which shares nothing with it and carries no
/// gradient.
///
/// # Errors
/// [`TensorError::Torch`] when memory or the device fails.
///
/// ```
/// let mut weight = tch::Tensor::from_slice(&[1f32, 2.0]);
/// let copy = posttrain_tensor::host_copy(&weight)?;
/// weight.zero_();
/// assert_eq!(copy.double_value(&[1]), 2.0);
/// # Ok::<(), posttrain_tensor::TensorError>(())
/// ```
pub fn host_copy(tensor: &Tensor) -> Result<Tensor, TensorError> {
    let values = tensor.f_detach()?;
    if values.device() == Device::Cpu {
        return Ok(values.f_detach_copy()?);
    }
    Ok(values.f_to_device(Device::Cpu)?)
}
