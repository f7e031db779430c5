//! Native CPU kernels: what those of the workspace stand on, and the steps of a decoder between its
//! products.
//!
//! libtorch multiplies matrices as fast as the machine can; between the products it runs many small
//! operations, each of which allocates its result, walks the memory anew, and wakes and waits for
//! its threads. While tokens are sampled there are a dozen a layer, on matrices of a few kilobytes,
//! and together they take twice as long as the products. Here each step is one loop over memory
//! that is still in the cache:
//!
//! | step | item |
//! | --- | --- |
//! | `x / √(mean(x²) + ε) · w` | [`rms_norm`] |
//! | the same of every query and key head, and its backward pass | [`HeadNorms`] |
//! | `silu(gate) · up` | [`swiglu`] |
//! | rotary positions and attention of whole texts, a group's prompt standing once | [`attend_packed`], behind others [`attend_packed_behind`] |
//! | their backward passes | [`rms_norm_backward`], [`swiglu_backward`], [`attend_packed_backward`] |
//! | rotary positions, the new token's key and value kept, attention over prompt and completion | [`attend_step`] |
//!
//! Autograd does not see them: sampling needs no gradient, and the trainer walks back by hand. They
//! run on the calling thread alone; [`on_workers`] gives each processor its own rows.
//!
//! # Two layouts
//!
//! A matrix `[rows, features]` may lie row by row, or feature by feature (its transpose is
//! contiguous). A product of a weight with few rows is twice as fast when its result lies feature
//! by feature, for the weight then stands on the left, where it need not be packed: [`product`];
//! [`PackedColumns`] does it where the processor multiplies bf16, and in f32 on AVX2. [`rms_norm`], [`swiglu`] and
//! [`attend_step`] read either and keep what they were given.
//!
//! # Underneath
//!
//! [`dispatch`] runs a [`Kernel`] with the widest instructions of the processor; [`exp`] and
//! [`exp2`] are vectorized. Tensors' memory as slices is `posttrain-tensor`'s; the modules under
//! [`PackedColumns`] are the ones with unsafe code.
//!
//! ```
//! use tch::Tensor;
//!
//! let x = Tensor::from_slice(&[3f32, 4.0]).view([1, 2]);
//! let norm = posttrain_kernel::rms_norm(&x, &Tensor::from_slice(&[1f32, 2.0]), 0.0)?;
//! // √((9 + 16) / 2) = 3.5355
//! assert!((norm.double_value(&[0, 1]) - 2.0 * 4.0 / 3.5355).abs() < 1e-4);
//! # Ok::<(), posttrain_kernel::KernelError>(())
//! ```

mod attention;
mod error;
mod few_rows;
mod gate;
mod gather;
mod head_norm;
mod key_values;
mod layout;
mod norm;
mod packed;
mod packed_attention;
mod packed_attention_backward;
mod packed_rows;
mod product;
mod quantized;
mod shared_text;
mod simd;
mod tile;
mod workers;

pub use attention::{AttentionStep, Heads, StepRow, attend_step};
pub use error::KernelError;
pub use few_rows::PackedColumns;
pub use gate::{swiglu, swiglu_backward};
pub use gather::gather_rows;
pub use head_norm::HeadNorms;
pub use key_values::KeyValues;
pub use norm::{rms_norm, rms_norm_backward};
pub use packed::{
    PackedOutput, PackedStep, PackedText, attend_packed, attend_packed_backward,
    attend_packed_behind,
};
pub use product::{columns_pay, laid_out, product};
pub use quantized::{NF4_LEVELS, QUANTIZED_BLOCK, QuantizedForm, dequantize};
pub use shared_text::SharedText;
pub use simd::{Kernel, LANES, LOWEST_EXPONENT, dispatch, exp, exp2, larger, mul_add, smaller};
pub use workers::{Workers, on_workers, set_threads};
