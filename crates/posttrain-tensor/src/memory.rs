//! A CPU tensor's memory as a slice.
//!
//! libtorch owns the memory and `tch` hands out a raw pointer. Each function checks what makes the
//! pointer a slice (on the CPU, contiguous, of the kind asked for) and ties the slice to a borrow
//! of the tensor, which keeps the storage alive. What the borrow checker cannot see is another
//! tensor that shares the storage: a slice to be written is given out only where libtorch counts no
//! other handle on it, and none can be made while the borrow lasts. A caller that writes in place,
//! by libtorch, to a storage that it also has a slice of to read, races with itself, as it would
//! inside libtorch.
#![allow(unsafe_code, reason = "`tch` hands out a tensor's memory as a raw pointer alone")]

use crate::element::Bf16;
use crate::{TensorError, shim};
use tch::{Device, Kind, Tensor};

/// The values of a floating-point tensor.
pub enum Values<'a> {
    /// Kind `Float`.
    F32(&'a [f32]),
    /// Kind `BFloat16`.
    Bf16(&'a [Bf16]),
}

/// The values of a floating-point tensor, to be written.
pub enum ValuesMut<'a> {
    /// Kind `Float`.
    F32(&'a mut [f32]),
    /// Kind `BFloat16`.
    Bf16(&'a mut [Bf16]),
}

/// The values of a contiguous f32 or bf16 tensor on the CPU.
///
/// # Errors
/// [`TensorError::Device`], [`TensorError::Strided`] or [`TensorError::Kind`] for any other tensor.
///
/// ```
/// use posttrain_tensor::{Values, values};
///
/// let tensor = tch::Tensor::from_slice(&[1f32, 2.0]);
/// assert!(matches!(values("tensor", &tensor)?, Values::F32([1.0, 2.0])));
/// # Ok::<(), posttrain_tensor::TensorError>(())
/// ```
pub fn values<'a>(argument: &'static str, tensor: &'a Tensor) -> Result<Values<'a>, TensorError> {
    let len = checked_len(argument, tensor)?;
    match tensor.kind() {
        // SAFETY: `checked_len` proved `len` contiguous elements in CPU memory, the kind is the
        // element's, and the lifetime is that of the tensor's borrow.
        Kind::Float => Ok(Values::F32(unsafe { slice(tensor, len) })),
        // SAFETY: as above; `Bf16` is a transparent u16, every pattern of which is valid.
        Kind::BFloat16 => Ok(Values::Bf16(unsafe { slice(tensor, len) })),
        got => Err(TensorError::Kind { argument, expected: "Float or BFloat16", got }),
    }
}

/// The values of a contiguous f32 or bf16 tensor on the CPU, to be written. Nobody else may have a
/// handle on its memory: neither a shallow clone nor a view, nor what it is a view of.
///
/// # Errors
/// As for [`values`], and [`TensorError::Shared`].
///
/// ```
/// use posttrain_tensor::{ValuesMut, values_mut};
///
/// let mut tensor = tch::Tensor::from_slice(&[1f32, 2.0]);
/// if let ValuesMut::F32(slice) = values_mut("tensor", &mut tensor)? {
///     slice[0] = 3.0;
/// }
/// assert_eq!(tensor.double_value(&[0]), 3.0);
/// # Ok::<(), posttrain_tensor::TensorError>(())
/// ```
pub fn values_mut<'a>(
    argument: &'static str,
    tensor: &'a mut Tensor,
) -> Result<ValuesMut<'a>, TensorError> {
    let len = checked_len(argument, tensor)?;
    if !shim::is_unshared(tensor)? {
        return Err(TensorError::Shared { argument });
    }

    match tensor.kind() {
        // SAFETY: as in `values`; the borrow is exclusive, and the tensor the only handle on its
        // memory, so nothing else reads it.
        Kind::Float => Ok(ValuesMut::F32(unsafe { slice_mut(tensor, len) })),
        // SAFETY: as above.
        Kind::BFloat16 => Ok(ValuesMut::Bf16(unsafe { slice_mut(tensor, len) })),
        got => Err(TensorError::Kind { argument, expected: "Float or BFloat16", got }),
    }
}

/// The values of a contiguous f32 tensor on the CPU.
///
/// # Errors
/// As for [`values`]; [`TensorError::Kind`] also for bf16.
///
/// ```
/// let tensor = tch::Tensor::from_slice(&[4f32, 5.0]);
/// assert_eq!(posttrain_tensor::floats("tensor", &tensor)?, [4.0, 5.0]);
/// # Ok::<(), posttrain_tensor::TensorError>(())
/// ```
pub fn floats<'a>(argument: &'static str, tensor: &'a Tensor) -> Result<&'a [f32], TensorError> {
    match values(argument, tensor)? {
        Values::F32(values) => Ok(values),
        Values::Bf16(_) => {
            Err(TensorError::Kind { argument, expected: "Float", got: tensor.kind() })
        }
    }
}

/// The values of a contiguous f32 tensor on the CPU, to be written, under the conditions of
/// [`values_mut`].
///
/// # Errors
/// As for [`floats`].
pub fn floats_mut<'a>(
    argument: &'static str,
    tensor: &'a mut Tensor,
) -> Result<&'a mut [f32], TensorError> {
    let got = tensor.kind();
    match values_mut(argument, tensor)? {
        ValuesMut::F32(values) => Ok(values),
        ValuesMut::Bf16(_) => Err(TensorError::Kind { argument, expected: "Float", got }),
    }
}

/// The values of a contiguous i64 tensor on the CPU.
///
/// # Errors
/// As for [`values`].
///
/// ```
/// let tensor = tch::Tensor::from_slice(&[4i64, 5]);
/// assert_eq!(posttrain_tensor::integers("tensor", &tensor)?, [4, 5]);
/// # Ok::<(), posttrain_tensor::TensorError>(())
/// ```
pub fn integers<'a>(argument: &'static str, tensor: &'a Tensor) -> Result<&'a [i64], TensorError> {
    let len = checked_len(argument, tensor)?;
    match tensor.kind() {
        // SAFETY: as in `values`.
        Kind::Int64 => Ok(unsafe { slice(tensor, len) }),
        got => Err(TensorError::Kind { argument, expected: "Int64", got }),
    }
}

/// The values of a contiguous u8 tensor on the CPU.
///
/// # Errors
/// As for [`values`].
///
/// ```
/// let tensor = tch::Tensor::from_slice(&[4u8, 5]);
/// assert_eq!(posttrain_tensor::bytes("tensor", &tensor)?, [4, 5]);
/// # Ok::<(), posttrain_tensor::TensorError>(())
/// ```
pub fn bytes<'a>(argument: &'static str, tensor: &'a Tensor) -> Result<&'a [u8], TensorError> {
    let len = checked_len(argument, tensor)?;
    match tensor.kind() {
        // SAFETY: as in `values`.
        Kind::Uint8 => Ok(unsafe { slice(tensor, len) }),
        got => Err(TensorError::Kind { argument, expected: "Uint8", got }),
    }
}

fn checked_len(argument: &'static str, tensor: &Tensor) -> Result<usize, TensorError> {
    if tensor.device() != Device::Cpu {
        return Err(TensorError::Device { argument, expected: Device::Cpu, got: tensor.device() });
    }
    if !tensor.is_contiguous() {
        return Err(TensorError::Strided { argument, strides: tensor.stride() });
    }
    Ok(tensor.numel())
}

/// # Safety
/// The tensor lies in CPU memory, is contiguous, and holds at least `len` elements of the kind that
/// `T` stands for.
unsafe fn slice<T>(tensor: &Tensor, len: usize) -> &[T] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise; libtorch aligns storages to 64 bytes and offsets count whole
    // elements.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<T>(), len) }
}

/// # Safety
/// As for [`slice`], and no other tensor shares the storage.
unsafe fn slice_mut<T>(tensor: &mut Tensor, len: usize) -> &mut [T] {
    if len == 0 {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<T>(), len) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_show_the_tensor_and_write_to_it() {
        let mut tensor = Tensor::from_slice(&[1f32, 2.0, 3.0]);
        let ValuesMut::F32(slice) = values_mut("tensor", &mut tensor).unwrap() else {
            panic!("kind")
        };
        slice[1] = 5.0;
        assert_eq!(tensor.double_value(&[1]), 5.0);
        let narrow = tensor.to_kind(Kind::BFloat16);
        let Values::Bf16(bits) = values("tensor", &narrow).unwrap() else { panic!("kind") };
        assert_eq!(bits[0], Bf16(0x3f80));
    }

    #[test]
    fn what_others_have_is_not_written() {
        let mut tensor = Tensor::from_slice(&[1f32, 2.0, 3.0]);
        let shared = |tensor: &mut Tensor| {
            matches!(values_mut("t", tensor), Err(TensorError::Shared { argument: "t" }))
        };
        assert!(!shared(&mut tensor));

        let mut clone = tensor.shallow_clone();
        assert!(shared(&mut tensor) && shared(&mut clone));
        drop(clone);
        let mut view = tensor.narrow(0, 1, 2);
        assert!(shared(&mut tensor) && shared(&mut view));
        assert!(matches!(floats_mut("t", &mut view), Err(TensorError::Shared { .. })));
        drop(view);
        let frozen = crate::SharedTensor::new(tensor.shallow_clone());
        assert!(shared(&mut tensor));
        drop(frozen);
        assert!(!shared(&mut tensor));
    }

    #[test]
    fn what_is_no_slice_is_refused() {
        let square = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]).view([2, 2]);
        assert!(matches!(
            values("t", &square.tr()),
            Err(TensorError::Strided { argument: "t", .. })
        ));
        assert!(matches!(values("t", &square.to_kind(Kind::Int64)), Err(TensorError::Kind { .. })));
        assert!(matches!(integers("t", &square), Err(TensorError::Kind { expected: "Int64", .. })));
    }

    #[test]
    fn an_empty_tensor_is_an_empty_slice() {
        let empty = Tensor::zeros([0, 4], (Kind::Float, Device::Cpu));
        assert!(matches!(values("t", &empty), Ok(Values::F32([]))));
    }
}
