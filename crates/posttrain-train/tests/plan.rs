//! The plan against what the process holds.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_lora::{Adapter, LoraConfig, RowAdapters};
use posttrain_model::{
    Decoder, ExpertsConfig, Keep, ModelConfig, Packing, Quantize, Sequence, Tape,
};
use posttrain_optim::AdamW;
use posttrain_train::{GradientCheckpointing, MemoryPlan, PlanRequest, TrainerConfig};
use std::process::Command;
use tch::{Device, Kind};

const TOKENS: usize = 2048;

fn dense() -> ModelConfig {
    ModelConfig {
        vocab_size: 2048,
        hidden_size: 512,
        intermediate_size: 1280,
        num_hidden_layers: 4,
        num_attention_heads: 8,
        num_key_value_heads: 4,
        head_dim: 64,
        head_norms: true,
        max_position_embeddings: 2048,
        ..ModelConfig::tiny()
    }
}

fn with_experts() -> ModelConfig {
    let experts = ExpertsConfig {
        count: 8,
        a_token: 2,
        intermediate_size: 640,
        normalized: true,
        layers: (0..4).collect(),
    };
    ModelConfig { experts: Some(experts), ..dense() }
}

fn plan(
    model: &ModelConfig,
    lora: &LoraConfig,
    kind: Kind,
    checkpointing: GradientCheckpointing,
) -> MemoryPlan {
    let trainer =
        TrainerConfig { micro_batch_tokens: TOKENS, checkpointing, ..TrainerConfig::default() };
    let shape = PlanRequest {
        model,
        quantize: Quantize::None,
        kind,
        device: Device::Cpu,
        lora,
        trainer,
        workers: 1,
        rows: 8,
        prompt_tokens: 64,
        completion_tokens: 64,
        group_size: 4,
        record_mib: 0,
    };
    MemoryPlan::of(&shape)
}

/// What the process holds, in bytes, pages of files left out.
fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

/// How much more is held after `make` than before, and what it made.
fn growth<T>(make: impl FnOnce() -> T) -> Option<(f64, T)> {
    let before = resident()?;
    let made = make();
    Some((resident()? - before, made))
}

fn assert_near(what: &str, planned: u64, measured: f64) {
    let off = planned as f64 / measured - 1.0;
    println!(
        "{what}: planned {:.1} MB, measured {:.1} MB ({:+.1}%)",
        planned as f64 / 1e6,
        measured / 1e6,
        100.0 * off
    );
    assert!(off.abs() < 0.1, "{what}: planned {planned}, measured {measured}");
}

fn packing() -> Packing {
    let text = |n: usize| Sequence {
        prompt: (0..256).map(|i| ((i * 7 + n) % 64) as i64).collect(),
        completions: vec![],
    };
    Packing::new(&(0..TOKENS / 256).map(text).collect::<Vec<_>>()).unwrap()
}

/// Set where the test runs in a process of its own.
const CHILD: &str = "POSTTRAIN_PLAN_CHILD";

/// In a process whose allocator gives back what is freed at once: else what was freed and is kept
/// counts as held.
#[test]
fn what_is_planned_is_within_a_tenth_of_what_is_held() {
    if resident().is_none() {
        return println!("skipped: the system does not tell what a process holds");
    }
    if std::env::var_os(CHILD).is_some() {
        return compare();
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--nocapture", "--exact", "what_is_planned_is_within_a_tenth_of_what_is_held"]);
    child.env(CHILD, "1").env("MALLOC_MMAP_THRESHOLD_", "32768").env("OMP_NUM_THREADS", "1");
    assert!(child.status().unwrap().success());
}

fn compare() {
    let lora = LoraConfig { rank: 64, ..LoraConfig::default() };
    for (name, config) in [("dense", dense()), ("experts", with_experts())] {
        let off = plan(&config, &lora, Kind::Float, GradientCheckpointing::Off);
        let blocks = plan(&config, &lora, Kind::Float, GradientCheckpointing::Blocks);
        let load = || Decoder::random(&config, 1, Kind::Float, Device::Cpu).unwrap();
        let _warm = load(); // what the first use of a library takes is no model's
        let (bytes, model) = growth(load).unwrap();
        assert_near(&format!("{name}: weights"), off.weights, bytes);
        let init = || Adapter::init(&lora, model.modules(), 1, Device::Cpu).unwrap();
        let (bytes, adapter) = growth(init).unwrap();
        assert_near(&format!("{name}: adapter"), off.adapter / 2, bytes);
        let moments = || AdamW::new(adapter.parameters()).unwrap();
        let (bytes, mut optimizer) = growth(|| {
            let mut made = moments();
            for (_, mut leaf) in adapter.parameters() {
                leaf.zero_grad();
                (&leaf * 1e-3).sum(Kind::Float).backward();
            }
            made.step(&posttrain_optim::AdamParams { learning_rate: 1e-9, ..Default::default() })
                .unwrap();
            made
        })
        .unwrap();
        // The gradients stay, as zeros.
        assert_near(
            &format!("{name}: optimizer and gradients"),
            off.optimizer + off.adapter / 2,
            bytes,
        );
        optimizer.clear_gradients();
        let view = adapter.snapshot(Kind::Float).unwrap();
        let texts = packing();
        let adapters = || RowAdapters::all(Some(&view));
        drop(Tape::forward(&model, adapters(), &texts, Keep::Everything).unwrap());
        for (keep, planned) in
            [(Keep::Everything, off.activations), (Keep::Inputs, blocks.activations)]
        {
            let (bytes, tape) =
                growth(|| Tape::forward(&model, adapters(), &texts, keep).unwrap()).unwrap();
            // While the passes run, the last block is held in full; here only what stays is.
            let planned = match keep {
                Keep::Everything => planned,
                Keep::Inputs => {
                    (config.num_hidden_layers * config.hidden_size) as u64 * 4 * TOKENS as u64
                }
            };
            let ends = (2 * config.hidden_size * 4) as u64 * TOKENS as u64; // the last block's output, and the final norm's
            assert_near(&format!("{name}: activations, {keep:?}"), planned + ends, bytes);
            drop(tape);
        }
    }
}
