//! Crossings between the host and a device, which are counted, since each makes the caller wait for
//! the device.

use crate::TensorError;
use std::cell::Cell;
use tch::kind::Element;
use tch::{Device, Tensor};

thread_local! {
    static CROSSINGS: Cell<u64> = const { Cell::new(0) };
}

/// Numbers as a tensor `[N]` on `device`.
///
/// # Errors
/// [`TensorError::Torch`] when memory fails.
pub fn to_device<T: Element>(values: &[T], device: Device) -> Result<Tensor, TensorError> {
    count();
    Ok(Tensor::f_from_slice(values)?.f_to_device(device)?)
}

/// A tensor's numbers, in the order of its elements, from whatever device it is on.
///
/// # Errors
/// [`TensorError::Torch`] when the device fails.
///
/// ```
/// use posttrain_tensor::{crossings, to_device, to_host};
/// use tch::Device;
///
/// let before = crossings();
/// let there = to_device(&[1i64, 2, 3], Device::Cpu)?;
/// assert_eq!(to_host::<i64>(&(there * 2))?, [2, 4, 6]);
/// assert_eq!(crossings() - before, 2);
/// # Ok::<(), posttrain_tensor::TensorError>(())
/// ```
pub fn to_host<T: Element + Copy + Default>(tensor: &Tensor) -> Result<Vec<T>, TensorError> {
    count();
    let flat = tensor.f_to_device(Device::Cpu)?.f_to_kind(T::KIND)?.f_contiguous()?;
    let mut values = vec![T::default(); flat.numel()];
    flat.f_copy_data(&mut values, flat.numel())?;
    Ok(values)
}

/// How often this thread has crossed so far, whichever device was on the other side: a loop that
/// must not wait for a device is held to a number of crossings by a test that needs no device.
#[must_use]
pub fn crossings() -> u64 {
    CROSSINGS.get()
}

fn count() {
    CROSSINGS.set(CROSSINGS.get() + 1);
}
