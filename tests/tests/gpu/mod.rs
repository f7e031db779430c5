//! The GPU that a test runs on, and a batch to train on.

#[path = "../../../crates/posttrain-model/tests/device/mod.rs"]
mod device;

use posttrain::train::{TrainingBatch, TrainingCompletion, TrainingGroup};
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
pub fn batch(groups: usize, length: usize, vocab: i64) -> TrainingBatch {
    let text =
        |from: usize, count: usize| (0..count).map(|i| ((from + i * i + 7 * i) as i64) % vocab).collect::<Vec<_>>();
    let half = length / 2;
    let completion = |from, advantage| TrainingCompletion {
        tokens: text(from, half),
        sampling_logprobs: vec![-(vocab as f32).ln(); half],
        advantage,
        recording: None,
    };
    let group = |g: usize| TrainingGroup {
        prompt: text(g, length - 2 * half + 1),
        completions: vec![completion(g + 1, 1.0), completion(g + 2, -0.5)],
    };
    TrainingBatch::new((0..groups).map(group).collect()).unwrap()
}
