//! Which form of libtorch: the small one for the CPU, or the full one for CUDA.
//!
//! PyPI's wheel is the CUDA build. On the CPU its libraries load with two small NVIDIA wheels
//! beside it (1.2 GB altogether), although Python itself could not import it so; for CUDA it needs
//! everything that it depends on.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::libtorch::VERSION;

/// What is installed, or is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Cpu,
    Cuda,
}

/// Why a form was taken. One that was asked for stays, whatever the machine turns out to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Asked,
    Detected,
}

/// What the user wants of this set-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Whatever,
    This(Form),
}

impl Wanted {
    /// From `--cpu` and `--cuda`, of which at most one is given.
    pub fn from_flags(cpu: bool, cuda: bool) -> Self {
        match (cpu, cuda) {
            (true, _) => Self::This(Form::Cpu),
            (_, true) => Self::This(Form::Cuda),
            _ => Self::Whatever,
        }
    }
}

impl Form {
    /// What `pip` is asked for. Apple's wheel stands alone.
    pub fn requirements(self) -> Vec<String> {
        let torch = format!("torch=={VERSION}");
        match self {
            Self::Cpu if cfg!(target_os = "linux") => {
                vec![
                    torch,
                    "nvidia-cuda-runtime==13.0.*".into(),
                    "nvidia-cuda-cupti==13.0.*".into(),
                ]
            }
            _ => vec![torch],
        }
    }

    /// Bytes on disk at the installation's peak, when a wheel lies beside its unpacked files, and
    /// room to build.
    pub fn disk(self) -> u64 {
        match self {
            Self::Cpu => 4_000_000_000,
            Self::Cuda => 10_000_000_000,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

/// The form to install; none where what is installed will do. The full form serves the CPU too, so
/// it is never reduced.
pub fn decide(
    wanted: Wanted,
    installed: Option<(Form, Choice)>,
    gpu: impl FnOnce() -> bool,
) -> Option<(Form, Choice)> {
    match (wanted, installed) {
        (_, Some((Form::Cuda, _))) | (Wanted::Whatever, Some((Form::Cpu, Choice::Asked))) => None,
        (Wanted::This(form), installed) => {
            Some((form, Choice::Asked)).filter(|plan| installed != Some(*plan))
        }
        (Wanted::Whatever, Some(_)) => gpu().then_some((Form::Cuda, Choice::Detected)),
        (Wanted::Whatever, None) => {
            Some((if gpu() { Form::Cuda } else { Form::Cpu }, Choice::Detected))
        }
    }
}

/// Whether NVIDIA's driver shows a GPU.
pub fn has_gpu() -> bool {
    let device = ["/dev/nvidiactl", "/proc/driver/nvidia/version", "/usr/lib/wsl/lib/nvidia-smi"];
    device.iter().any(|path| Path::new(path).exists()) || nvidia_smi_lists_one()
}

fn nvidia_smi_lists_one() -> bool {
    let list =
        Command::new("nvidia-smi").arg("-L").stdin(Stdio::null()).stderr(Stdio::null()).output();
    list.is_ok_and(|list| list.status.success() && list.stdout.starts_with(b"GPU"))
}

#[cfg(test)]
mod tests {
    use super::Choice::{Asked, Detected};
    use super::Form::{Cpu, Cuda};
    use super::*;

    #[test]
    fn a_fresh_machine_gets_what_it_has_or_what_is_asked() {
        assert_eq!(decide(Wanted::Whatever, None, || false), Some((Cpu, Detected)));
        assert_eq!(decide(Wanted::Whatever, None, || true), Some((Cuda, Detected)));
        assert_eq!(decide(Wanted::This(Cpu), None, || true), Some((Cpu, Asked)));
        assert_eq!(decide(Wanted::This(Cuda), None, || false), Some((Cuda, Asked)));
    }

    #[test]
    fn a_new_gpu_upgrades_unless_the_cpu_was_asked_for() {
        assert_eq!(
            decide(Wanted::Whatever, Some((Cpu, Detected)), || true),
            Some((Cuda, Detected))
        );
        assert_eq!(decide(Wanted::Whatever, Some((Cpu, Asked)), || true), None);
        assert_eq!(decide(Wanted::This(Cpu), Some((Cpu, Detected)), || true), Some((Cpu, Asked)));
        assert_eq!(decide(Wanted::This(Cuda), Some((Cpu, Asked)), || false), Some((Cuda, Asked)));
    }

    #[test]
    fn what_serves_is_left_alone() {
        assert_eq!(decide(Wanted::This(Cpu), Some((Cpu, Asked)), || false), None);
        assert_eq!(decide(Wanted::This(Cpu), Some((Cuda, Detected)), || false), None);
        assert_eq!(decide(Wanted::Whatever, Some((Cpu, Detected)), || false), None);
    }
}
