//! A frozen tensor that threads share.
#![allow(
    unsafe_code,
    reason = "`tch::Tensor` is `Send` and not `Sync`; a tensor that nobody writes can be both"
)]

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use tch::Tensor;

/// A frozen tensor that threads share: `Send`, `Sync`, and cheap to clone, since clones share the
/// memory.
///
/// It reads like the [`Tensor`] that it was made from. The one rule is in its name: from the moment
/// that it is made, nobody writes to its memory, neither through it nor through another handle on
/// the same storage. The workspace holds to that by making one only of weights that have been read,
/// of copies, and of results that are kept.
///
/// Where the tensor is part of autograd's graph it stays so: gradients flow through it to its
/// leaves.
pub struct SharedTensor(Tensor);

// SAFETY: `tch::Tensor` holds a pointer to a `torch::Tensor`, which is a counted reference to a
// `TensorImpl`.
//
// - A `&SharedTensor` gives out `&Tensor` alone. Of a `TensorImpl` libtorch promises what C++
//   promises of its containers: `const` methods may run at the same time on several threads. Sizes,
//   strides, kind and device are plain fields that are written when the tensor is made; reference
//   counts are atomic; what autograd keeps beside it (the gradient's accumulator, the gradient
//   function of a view) is made under a mutex of its own.
// - Operators read the storage of their arguments. Nobody writes it: that is the type's contract.
//   Safe code could break it (`shallow_clone` gives a `Tensor` that writes in place), but could do
//   so before: `Tensor` is `Send`, so two shallow clones on two threads already race in safe code.
//   This type adds no way to race; it names the tensors that must not.
// - The last handle may be dropped on any thread: the storage's deleter is the allocator's, which
//   is thread-safe.
unsafe impl Sync for SharedTensor {}

impl SharedTensor {
    /// Freezes a tensor. Whoever holds another handle on its storage must not write to it any more.
    #[must_use]
    pub fn new(tensor: Tensor) -> Self {
        Self(tensor)
    }

    /// A handle of `tch`'s own on the same memory, for an operation that takes a tensor by value.
    /// It is not to be written to.
    pub fn handle(&self) -> Tensor {
        self.0.shallow_clone()
    }
}

impl Clone for SharedTensor {
    fn clone(&self) -> Self {
        Self(self.0.shallow_clone())
    }
}

impl Deref for SharedTensor {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.0
    }
}

impl Borrow<Tensor> for SharedTensor {
    fn borrow(&self) -> &Tensor {
        &self.0
    }
}

impl AsRef<Tensor> for SharedTensor {
    fn as_ref(&self) -> &Tensor {
        &self.0
    }
}

impl From<Tensor> for SharedTensor {
    fn from(tensor: Tensor) -> Self {
        Self::new(tensor)
    }
}

impl fmt::Debug for SharedTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn shared_between_threads<T: Send + Sync + Clone>(_: &T) {}

    #[test]
    fn clones_share_the_memory_and_threads_read_it_at_once() {
        let weight =
            SharedTensor::new(Tensor::arange(4096, (Kind::Float, Device::Cpu)).view([64, 64]));
        shared_between_threads(&weight);
        assert_eq!(weight.clone().data_ptr(), weight.data_ptr());

        let expected = SharedTensor::new(weight.matmul(&weight.tr()));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..50).for_each(|_| assert_eq!(weight.matmul(&weight.tr()), *expected))
                });
            }
        });
    }

    #[test]
    fn gradients_flow_through_it() {
        let leaf = Tensor::from_slice(&[2f32]).set_requires_grad(true);
        let doubled = SharedTensor::new(&leaf * 2.0);
        (&*doubled * 3.0).sum(Kind::Float).backward();
        assert_eq!(leaf.grad().double_value(&[0]), 6.0);
    }
}
