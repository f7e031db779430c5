//! Where tests that can run on either device run.
#![allow(dead_code, reason = "not every test has goldens")]

use posttrain_model::select_device;
use tch::Device;

/// The CPU, unless `cargo xtask gpu-check` says otherwise.
pub fn device() -> Device {
    let asked = std::env::var("POSTTRAIN_TEST_DEVICE").unwrap_or("cpu".into());
    select_device(asked.parse().unwrap()).unwrap()
}

/// Of the cases with a golden those that hold on this device. Two of the experts are tied on every
/// token, and libtorch breaks ties on a GPU in another way, as it does for transformers there.
pub fn cases(all: &[&'static str]) -> Vec<&'static str> {
    let (tied, others): (Vec<&str>, Vec<&str>) = all.iter().partition(|case| case.contains("moe"));
    if device() == Device::Cpu {
        return [others, tied].concat();
    }
    println!("skipped: the goldens of tied experts, {tied:?}");
    others
}
