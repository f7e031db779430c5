//! The shim: C++ of libtorch that `tch` does not bind, as safe functions. The crate's `shim/` has
//! the C++.
#![allow(unsafe_code, reason = "functions of another language, declared as `shim/shim.h` does")]

#[cfg(target_os = "linux")]
mod group;

#[cfg(target_os = "linux")]
pub use group::{ProcessGroup, TcpStore};

use crate::TensorError;
use std::ffi::{CStr, c_char, c_void};
#[cfg(target_os = "linux")]
use std::{
    ffi::{CString, OsStr},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};
use tch::Tensor;

unsafe extern "C" {
    fn posttrain_cudnn_attention(enabled: *mut bool) -> *const c_char;
    fn posttrain_set_cudnn_attention(enabled: bool) -> *const c_char;
    fn posttrain_is_unshared(tensor: *const c_void, unshared: *mut bool) -> *const c_char;
    #[cfg(target_os = "linux")]
    fn posttrain_c10_path(path: *mut *const c_char) -> *const c_char;
    #[cfg(target_os = "linux")]
    fn posttrain_load_library(path: *const c_char) -> *const c_char;
}

/// Whether attention may go through cuDNN.
pub(crate) fn cudnn_attention() -> Result<bool, TensorError> {
    let mut enabled = false;
    // SAFETY: `enabled` outlives the call.
    outcome("read whether attention may go through cuDNN", unsafe {
        posttrain_cudnn_attention(&mut enabled)
    })?;
    Ok(enabled)
}

/// Lets attention go through cuDNN, or keeps it from there.
pub(crate) fn set_cudnn_attention(enabled: bool) -> Result<(), TensorError> {
    // SAFETY: the function sets a flag of libtorch's context, which lives as long as the process.
    outcome("set whether attention may go through cuDNN", unsafe {
        posttrain_set_cudnn_attention(enabled)
    })
}

/// Whether a tensor is the only handle on its memory.
pub(crate) fn is_unshared(tensor: &Tensor) -> Result<bool, TensorError> {
    let mut unshared = false;
    // SAFETY: the pointer is that of the `at::Tensor` behind `tensor`, which outlives the call, as
    // `unshared` does.
    outcome("count the handles on a tensor's memory", unsafe {
        posttrain_is_unshared(tensor.as_ptr().cast(), &mut unshared)
    })?;
    Ok(unshared)
}

/// The path of the `libc10` that this process runs on, beside which libtorch's other libraries lie.
#[cfg(target_os = "linux")]
pub(crate) fn c10_path() -> Result<PathBuf, TensorError> {
    let mut path = std::ptr::null();
    // SAFETY: `path` outlives the call.
    outcome("find libtorch's own file", unsafe { posttrain_c10_path(&mut path) })?;
    // SAFETY: without an error the path is a text of the loader's, which lives as long as the
    // library is loaded: this code is linked to it.
    let path = unsafe { CStr::from_ptr(path) };
    Ok(PathBuf::from(OsStr::from_bytes(path.to_bytes())))
}

/// Loads a shared library for as long as the process lives, its symbols visible to all others.
///
/// # Safety
/// A library runs its initializers as it is loaded: they must be sound in this process.
#[cfg(target_os = "linux")]
pub(crate) unsafe fn load_library(path: &Path) -> Result<(), TensorError> {
    let operation = "load a library";
    let name = CString::new(path.as_os_str().as_bytes());
    let name = name.map_err(|_| TensorError::Shim {
        operation,
        reason: "its path holds a zero byte".into(),
    })?;
    // SAFETY: `name` ends in a zero byte and outlives the call; the initializers are the caller's
    // promise.
    outcome(operation, unsafe { posttrain_load_library(name.as_ptr()) })
}

/// What the shim's functions return: nothing, or an error's text.
fn outcome(operation: &'static str, text: *const c_char) -> Result<(), TensorError> {
    if text.is_null() {
        return Ok(());
    }
    // SAFETY: the text ends in a zero byte and lives until this thread's next call, which is after
    // the copy.
    let reason = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    Err(TensorError::Shim { operation, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_thrown_in_cpp_comes_back_as_an_error() {
        // SAFETY: there is no such library, so that nothing is run.
        let error = unsafe { load_library(Path::new("/absent/libabsent.so")) }.unwrap_err();
        assert!(
            matches!(&error, TensorError::Shim { reason, .. } if reason.contains("libabsent.so")),
            "{error}"
        );
        assert!(
            !error.to_string().contains("Exception raised from"),
            "a trace of addresses in {error}"
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn libtorch_is_found_in_the_process() {
        let path = c10_path().unwrap();
        assert!(path.exists() && path.to_string_lossy().contains("libc10"), "{path:?}");
    }
}
