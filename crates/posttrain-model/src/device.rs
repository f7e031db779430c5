//! Which device and kind to compute on, chosen at run time.

use crate::ModelError;
use posttrain_tensor::{load_cuda_library, set_cudnn_attention};
use serde::{Deserialize, Serialize};
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
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("device `{text}`: expected auto, cpu, cuda or cuda:N")),
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

impl std::str::FromStr for ComputeKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(format!("kind `{text}`: expected auto, f32 or bf16")),
        }
    }
}

/// The device to compute on. `Auto` never fails; a CUDA device that was asked for and is not there
/// does, in words.
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
#[must_use]
pub fn select_kind(choice: ComputeKind, device: Device) -> Kind {
    match choice {
        ComputeKind::Bf16 => Kind::BFloat16,
        ComputeKind::Auto if matches!(device, Device::Cuda(_)) || cpu_multiplies_bf16() => {
            Kind::BFloat16
        }
        ComputeKind::F32 | ComputeKind::Auto => Kind::Float,
    }
}

/// The number of CUDA devices, or in words why there is none. Loads libtorch's CUDA library at the
/// first call ([`load_cuda_library`]).
pub fn cuda_status() -> &'static Result<usize, String> {
    static STATUS: OnceLock<Result<usize, String>> = OnceLock::new();
    STATUS.get_or_init(|| {
        load_cuda_library().map_err(|error| error.to_string())?;
        match tch::Cuda::device_count() {
            0.. if !tch::Cuda::is_available() => {
                Err("libtorch's CUDA library is loaded, but finds no GPU or driver".into())
            }
            count => {
                disable_cudnn_attention();
                usize::try_from(count)
                    .map_err(|_| "libtorch could not count the CUDA devices".to_owned())
            }
        }
    })
}

/// Keeps attention from cuDNN, which libtorch prefers on Hopper and which builds an execution plan,
/// half a second long, for every new shape: every step of decoding and every group in training has
/// one. libtorch's own fused kernels take any shape.
fn disable_cudnn_attention() {
    if let Err(error) = set_cudnn_attention(false) {
        tracing::warn!(
            "attention may go through cuDNN, which is slow: {error}; set TORCH_CUDNN_SDPA_DEPRIORITIZED=1"
        );
    }
}

/// Whether the processor has matrix or vector units for bf16.
fn cpu_multiplies_bf16() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = flags.lines().find(|l| l.starts_with("flags") || l.starts_with("Features"));
    line.is_some_and(|l| {
        l.split_whitespace().any(|f| matches!(f, "amx_bf16" | "avx512_bf16" | "bf16"))
    })
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
