//! Switches of libtorch's backends, and its CUDA library.

use crate::{TensorError, shim};
use std::sync::OnceLock;

/// Whether scaled dot-product attention may go through cuDNN, as
/// `torch.backends.cuda.cudnn_sdp_enabled()`.
///
/// # Errors
/// [`TensorError::Shim`] with libtorch's words.
pub fn cudnn_attention() -> Result<bool, TensorError> {
    shim::cudnn_attention()
}

/// Lets scaled dot-product attention go through cuDNN or not, for the whole process, as
/// `torch.backends.cuda.enable_cudnn_sdp(enabled)`.
///
/// libtorch prefers cuDNN on Hopper, where cuDNN builds an execution plan, half a second long, for
/// every new shape. (`TORCH_CUDNN_SDPA_DEPRIORITIZED=1` avoids it from outside.)
///
/// # Errors
/// [`TensorError::Shim`] with libtorch's words.
///
/// ```
/// use posttrain_tensor::{cudnn_attention, set_cudnn_attention};
///
/// set_cudnn_attention(false)?;
/// assert!(!cudnn_attention()?);
/// # Ok::<(), posttrain_tensor::TensorError>(())
/// ```
pub fn set_cudnn_attention(enabled: bool) -> Result<(), TensorError> {
    shim::set_cudnn_attention(enabled)
}

/// Loads the CUDA library of the libtorch that this process runs on; does nothing where it is
/// loaded.
///
/// A linker drops `libtorch_cuda.so`, since no symbol of it is named, and libtorch then says "no
/// CUDA" on a machine that has it.
///
/// # Errors
/// [`TensorError::NoCuda`] where this libtorch has none, [`TensorError::CudaLibrary`] where it does
/// not load: the libraries that it needs are not installed, usually.
///
/// ```
/// match posttrain_tensor::load_cuda_library() {
///     Ok(()) => println!("{} CUDA devices", tch::Cuda::device_count()),
///     Err(error) => println!("on the CPU: {error}"),
/// }
/// ```
pub fn load_cuda_library() -> Result<(), TensorError> {
    static LOADED: OnceLock<()> = OnceLock::new();
    if LOADED.get().is_none() {
        load()?;
        let _ = LOADED.set(());
    }
    Ok(())
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "a library that is loaded runs its initializers")]
fn load() -> Result<(), TensorError> {
    // Links are followed: what the library needs lies in folders beside the real one.
    let c10 = shim::c10_path()?;
    let c10 = c10.canonicalize().unwrap_or(c10);

    let path = c10.with_file_name("libtorch_cuda.so");
    if !path.exists() {
        return Err(TensorError::NoCuda { reason: "this libtorch is built without CUDA" });
    }

    // SAFETY: the library belongs to the libtorch that this process is linked to; its initializers
    // register kernels and are made to run at load time.
    let loaded = unsafe { shim::load_library(&path) };
    loaded.map_err(|error| match error {
        TensorError::Shim { reason, .. } => TensorError::CudaLibrary { path, reason },
        other => other,
    })
}

#[cfg(not(target_os = "linux"))]
fn load() -> Result<(), TensorError> {
    Err(TensorError::NoCuda { reason: "CUDA is used on Linux only" })
}
