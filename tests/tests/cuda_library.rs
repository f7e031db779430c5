//! A built binary really loads libtorch's CUDA library where it is installed, and says in words why
//! not where it does not.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain::model::{DeviceChoice, cuda_status, select_device};

fn mapped(library: &str) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .find(|line| line.contains(library))
        .map(|line| line[line.find('/').unwrap()..].to_string())
}

#[test]
fn the_cuda_library_is_in_the_memory_map_or_the_reason_is_given() {
    let _ = tch::Tensor::from_slice(&[1f32]); // the process runs on libtorch
    let cpu = mapped("/libtorch_cpu.so").expect("libtorch_cpu.so is not mapped");
    let cuda = std::path::Path::new(&cpu).with_file_name("libtorch_cuda.so");
    let status = cuda_status();
    println!("CUDA: {status:?}");
    match (cuda.exists(), mapped("/libtorch_cuda.so")) {
        (true, Some(path)) => println!("loaded {path}"),
        // Installed without the libraries that it needs (the CPU set-up): the reason names the
        // first that is missing.
        (true, None) => {
            assert!(status.as_ref().unwrap_err().contains("does not load"), "{status:?}")
        }
        (false, _) => assert!(status.as_ref().unwrap_err().contains("without CUDA"), "{status:?}"),
    }
}

#[test]
fn without_a_gpu_auto_falls_back_and_cuda_is_refused_with_the_reason() {
    if cuda_status().is_ok() {
        return assert_eq!(select_device(DeviceChoice::Auto).unwrap(), tch::Device::Cuda(0));
    }
    assert_eq!(select_device(DeviceChoice::Auto).unwrap(), tch::Device::Cpu);
    let error = select_device(DeviceChoice::Cuda(0)).unwrap_err().to_string();
    assert!(
        error.contains("cuda:0") && error.contains(cuda_status().as_ref().unwrap_err().as_str()),
        "{error}"
    );
}
