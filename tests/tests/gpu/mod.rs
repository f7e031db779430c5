//! The GPU that a test runs on, and a batch to train on.

#[path = "../../../crates/posttrain-model/tests/device/mod.rs"]
mod device;

use posttrain::train::Datum;
use tch::Device;

/// The GPU that the tests were told to run on.
pub fn gpu() -> Option<Device> {
    let device = device::device();
    if device == Device::Cpu {
        println!("skipped: no GPU was named (`cargo xtask gpu-check` names one)");
        return None;
    }
    Some(device)
}

/// `groups` prompts with two completions each, of `length` tokens in all.
pub fn batch(groups: usize, length: usize, vocab: i64) -> Vec<Datum> {
    let text = |from: usize, count: usize| {
        (0..count).map(|i| ((from + i * i + 7 * i) as i64) % vocab).collect::<Vec<_>>()
    };
    let half = length / 2;
    let completion = |group: usize, from: usize, advantage: f32| {
        let prompt = text(group, length - 2 * half + 1);
        let sampling = vec![-(vocab as f32).ln(); half];
        Datum::completion(&prompt, &text(from, half))
            .with_sampling_logprobs(sampling)
            .with_advantage(advantage)
    };
    (0..groups).flat_map(|g| [completion(g, g + 1, 1.0), completion(g, g + 2, -0.5)]).collect()
}
