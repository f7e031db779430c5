//! What every crate on libtorch stands on.
//!
//! [`SharedTensor`] is a frozen tensor that threads share: weights, snapshots of adapters and
//! recorded activations are never written after they are made, and one type says so. Beside it:
//!
//! - [`values`], [`floats`], [`integers`], [`bytes`] show a CPU tensor's memory as a slice;
//!   [`Element`] is what the slice of a floating-point tensor is made of.
//! - [`check_shape`] names the argument, what was expected of it and what came.
//! - [`to_device`] and [`to_host`] cross between the host and a device, and are counted.
//! - [`load_cuda_library`] and [`set_cudnn_attention`] are what libtorch has and `tch` does not
//!   bind: C++ behind a C interface, in the crate's folder `shim/`, compiled against libtorch's own
//!   headers. So are `TcpStore` and `ProcessGroup`, c10d's, on Linux.
//! - [`TensorFile`], [`read_tensors`] and [`write_tensors`] are safetensors files.
//!
//! ```
//! use posttrain_tensor::SharedTensor;
//! use tch::Tensor;
//!
//! let weight = SharedTensor::new(Tensor::from_slice(&[1f32, 2.0, 3.0]));
//! let sums: Vec<f64> = std::thread::scope(|scope| {
//!     let sum = || weight.sum(tch::Kind::Float).double_value(&[]);
//!     let threads: Vec<_> = (0..2).map(|_| scope.spawn(sum)).collect();
//!     threads.into_iter().map(|thread| thread.join().unwrap()).collect()
//! });
//! assert_eq!(sums, [6.0, 6.0]);
//! ```

mod backend;
mod crossing;
mod element;
mod error;
mod host;
mod memory;
mod shape;
mod shared;
mod shim;
mod tensor_file;

pub use backend::{cudnn_attention, load_cuda_library, set_cudnn_attention};
pub use crossing::{crossings, to_device, to_host};
pub use element::{Bf16, Element};
pub use error::TensorError;
pub use host::host_copy;
pub use memory::{Values, ValuesMut, bytes, floats, floats_mut, integers, values, values_mut};
pub use shape::check_shape;
pub use shared::SharedTensor;
#[cfg(target_os = "linux")]
pub use shim::{ProcessGroup, TcpStore};
pub use tensor_file::{TensorFile, read_tensors, write_tensors};
