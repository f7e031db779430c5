//! Which device and kind to compute on, chosen at run time.

use crate::ModelError;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::OnceLock;
use tch::{Device, Kind};

/// The device asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The first CUDA device where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by its number; an error where there is none.
    Cuda(usize),
}

impl std::str::FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("device `{text}`: expected auto, cpu, cuda or cuda:N");
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(|n| n.parse().ok()).map(Self::Cuda).ok_or_else(bad),
        }
    }
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl Serialize for DeviceChoice {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceChoice {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The kind asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComputeKind {
    /// bf16 where the processor multiplies it fast (CUDA; AMX or AVX-512 BF16 on a CPU), else f32.
    #[default]
    Auto,
    /// 32 bits.
    F32,
    /// 16 bits with an 8-bit exponent.
    Bf16,
}

/// The device to compute on. `Auto` never fails; a CUDA device that was asked for and is not there does, in words.
///
/// # Errors
/// [`ModelError::Device`] with the reason.
pub fn select_device(choice: DeviceChoice) -> Result<Device, ModelError> {
    match (choice, cuda_status()) {
        (DeviceChoice::Cpu, _) => Ok(Device::Cpu),
        (DeviceChoice::Auto, Ok(_)) => Ok(Device::Cuda(0)),
        (DeviceChoice::Auto, Err(reason)) => {
            tracing::info!("computing on the CPU: {reason}");
            Ok(Device::Cpu)
        }
        (DeviceChoice::Cuda(index), Ok(count)) if index < *count => Ok(Device::Cuda(index)),
        (DeviceChoice::Cuda(_), Ok(count)) => {
            let reason = format!("there are {count} CUDA devices, numbered from 0");
            Err(ModelError::Device { asked: choice.to_string(), reason })
        }
        (DeviceChoice::Cuda(_), Err(reason)) => {
            Err(ModelError::Device { asked: choice.to_string(), reason: reason.clone() })
        }
    }
}

/// The kind to compute in on `device`.
pub fn select_kind(choice: ComputeKind, device: Device) -> Kind {
    match choice {
        ComputeKind::F32 => Kind::Float,
        ComputeKind::Bf16 => Kind::BFloat16,
        ComputeKind::Auto if matches!(device, Device::Cuda(_)) || cpu_multiplies_bf16() => Kind::BFloat16,
        ComputeKind::Auto => Kind::Float,
    }
}

/// The number of CUDA devices, or in words why there is none. Loads libtorch's CUDA library at the first call.
///
/// A linker drops `libtorch_cuda.so`, since no symbol of it is named; libtorch then says "no CUDA" on a machine that has
/// it. So the library is opened here, beside the libtorch that the process already runs on.
pub fn cuda_status() -> &'static Result<usize, String> {
    static STATUS: OnceLock<Result<usize, String>> = OnceLock::new();
    STATUS.get_or_init(|| {
        load_cuda_library()?;
        match tch::Cuda::device_count() {
            0.. if !tch::Cuda::is_available() => {
                Err("libtorch's CUDA library is loaded, but finds no GPU or driver".into())
            }
            count => {
                disable_cudnn_attention();
                usize::try_from(count).map_err(|_| "libtorch could not count the CUDA devices".to_string())
            }
        }
    })
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "a library that is loaded runs its initialisers")]
fn load_cuda_library() -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    let library = libtorch_folder()?.join("libtorch_cuda.so");
    if !library.exists() {
        return Err("this libtorch is built without CUDA".into());
    }
    // SAFETY: the library belongs to the libtorch that this process is linked to; its initialisers register kernels and
    // are made to run at load time. It is never unloaded.
    let opened = unsafe { Library::open(Some(&library), RTLD_NOW | RTLD_GLOBAL) };
    match opened {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        Err(e) => {
            Err(format!("libtorch_cuda.so does not load ({e}); `cargo xtask setup --cuda` installs what it needs"))
        }
    }
}

/// Tells libtorch not to attend through cuDNN, which it prefers on Hopper and builds an execution plan for, of half a second,
/// for every new shape: every step of decoding and every group in training has one. Its own fused kernels take any shape.
/// (`TORCH_CUDNN_SDPA_DEPRIORITIZED=1` does the same from outside.)
///
/// What Python calls `torch.backends.cuda.enable_cudnn_sdp(False)` has no function in C, hence the C++ names.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "functions of libtorch that its C interface lacks")]
fn disable_cudnn_attention() {
    use libloading::os::unix::Library;
    use std::ffi::c_void;
    type Context = unsafe extern "C" fn() -> *mut c_void;
    type Set = unsafe extern "C" fn(*mut c_void, bool);
    let process = Library::this();
    // SAFETY: `at::Context& at::globalContext()` and `void at::Context::setSDPUseCuDNN(bool)`, with the signatures that they
    // have had since libtorch 2.5: a reference is a pointer, and a method's object its first argument. The context lives as
    // long as the process.
    unsafe {
        let context = process.get::<Context>(b"_ZN2at13globalContextEv\0");
        let set = process.get::<Set>(b"_ZN2at7Context14setSDPUseCuDNNEb\0");
        match (context, set) {
            (Ok(context), Ok(set)) => set(context(), false),
            _ => tracing::warn!("attention may go through cuDNN, which is slow: set TORCH_CUDNN_SDPA_DEPRIORITIZED=1"),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn disable_cudnn_attention() {}

#[cfg(not(target_os = "linux"))]
fn load_cuda_library() -> Result<(), String> {
    Err("CUDA is used on Linux only".into())
}

/// The folder of the libtorch that this process has mapped.
#[cfg(target_os = "linux")]
fn libtorch_folder() -> Result<PathBuf, String> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|e| format!("/proc/self/maps: {e}"))?;
    let path =
        maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..])).find(|p| p.contains("/libtorch_cpu.so"));
    let folder = path.and_then(|p| PathBuf::from(p).parent().map(PathBuf::from));
    folder.ok_or_else(|| "this process has no libtorch_cpu.so mapped".into())
}

/// Whether the processor has matrix or vector units for bf16.
fn cpu_multiplies_bf16() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = flags.lines().find(|l| l.starts_with("flags") || l.starts_with("Features"));
    line.is_some_and(|l| l.split_whitespace().any(|f| matches!(f, "amx_bf16" | "avx512_bf16" | "bf16")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_read_as_they_are_written() {
        for text in ["auto", "cpu", "cuda:3"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert!("gpu".parse::<DeviceChoice>().unwrap_err().contains("cuda:N"));
    }

    #[test]
    fn auto_always_finds_a_device_and_a_missing_gpu_is_told_in_words() {
        select_device(DeviceChoice::Auto).unwrap();
        if let Err(error) = select_device(DeviceChoice::Cuda(99)) {
            assert!(error.to_string().contains("cuda:99"), "{error}");
        }
    }
}
