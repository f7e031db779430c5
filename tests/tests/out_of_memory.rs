//! A step that a GPU's memory does not suffice for is done in smaller passes. Alone in its process,
//! since it takes all memory.
//!
//! `cargo xtask gpu-check` runs it; elsewhere it says that it was skipped.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod gpu;

use gpu::{batch, gpu};
use posttrain::lora::LoraConfig;
use posttrain::loss::PolicyObjective;
use posttrain::model::{Decoder, ModelConfig};
use posttrain::train::{MemoryPlan, PlanRequest, Trainer, TrainerConfig};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Everything that a device has left, but for so many MiB.
fn all_but(device: Device, mebibytes: usize) -> Vec<Tensor> {
    const BLOCK: usize = 64;
    let block = || Tensor::f_empty([(BLOCK << 20) as i64], (Kind::Uint8, device)).ok();
    let mut held: Vec<Tensor> = std::iter::from_fn(block).collect();
    held.truncate(held.len().saturating_sub(mebibytes / BLOCK));
    held
}

#[test]
fn a_step_that_memory_does_not_suffice_for_is_done_in_two_passes() {
    let Some(gpu) = gpu() else { return };
    let model = ModelConfig {
        vocab_size: 1024,
        hidden_size: 1024,
        intermediate_size: 4096,
        num_hidden_layers: 8,
        num_attention_heads: 8,
        num_key_value_heads: 8,
        head_dim: 128,
        max_position_embeddings: 2048,
        ..ModelConfig::tiny()
    };
    let lora = LoraConfig { rank: 8, ..LoraConfig::default() };
    let trainer = TrainerConfig { micro_batch_tokens: 16_384, ..TrainerConfig::default() };
    let plan = MemoryPlan::of(&PlanRequest {
        model: &model,
        quantize: posttrain::model::Quantize::None,
        kind: Kind::Float,
        device: gpu,
        lora: &lora,
        trainer,
        workers: 1,
        rows: 1,
        prompt_tokens: 1,
        completion_tokens: 1,
        group_size: 1,
        record_mib: 0,
    });
    let decoder = Arc::new(Decoder::random(&model, 3, Kind::Float, gpu).unwrap());
    let step = || {
        let mut trainer = Trainer::new(decoder.clone(), &lora, trainer, 5).unwrap();
        trainer.forward_backward(&batch(32, 511, 1000), &PolicyObjective::default())
    };
    let whole = step().unwrap();
    assert_eq!(whole.micro_batches, 1);
    let ballast = all_but(gpu, (plan.activations >> 20) as usize);
    let halved = step().unwrap();
    println!(
        "{:.1} GB planned for activations, as much left: {} passes",
        plan.activations as f64 / 1e9,
        halved.micro_batches
    );
    assert_eq!(halved.micro_batches, 2);
    assert!(
        (halved.loss() - whole.loss()).abs() < 1e-5 + 1e-4 * whole.loss().abs(),
        "{} {}",
        halved.loss(),
        whole.loss()
    );
    drop(ballast);
    let ballast = all_but(gpu, 128);
    let error = step().unwrap_err().to_string();
    println!("{error}");
    assert!(error.contains("micro_batch_tokens"), "{error}");
    drop(ballast);
    assert_eq!(step().unwrap().micro_batches, 1, "nothing is left behind");
}
