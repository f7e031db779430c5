//! On the demonstration model: what the sampler records is what the trainer computes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain::lora::LoraConfig;
use posttrain::loss::PolicyObjective;
use posttrain::model::{Checkpoint, Decoder, Message};
use posttrain::rollout::{Completion, Engine, EngineConfig, Request, SamplingParams};
use posttrain::train::{Datum, DeadGroups, Trainer, TrainerConfig};
use std::sync::Arc;
use tch::{Device, Kind};
use tests::demo_model;

fn datums(prompt: &[i64], completions: &[Completion], temperature: f64) -> Vec<Datum> {
    let datum = |(i, c): (usize, &Completion)| {
        Datum::sampled(prompt, c, if i.is_multiple_of(2) { 1.0 } else { -1.0 })
    };
    completions
        .iter()
        .enumerate()
        .map(datum)
        .map(|datum| datum.with_temperature(temperature))
        .collect()
}

fn sampled(
    model: &Arc<Decoder>,
    trainer: &Trainer,
    prompt: &[i64],
    temperature: f64,
    record_mib: usize,
) -> Vec<Completion> {
    let snapshot = trainer.snapshot().unwrap();
    let params =
        SamplingParams { max_tokens: 16, temperature, seed: 5, ..SamplingParams::default() };
    let mut engine =
        Engine::new(model.clone(), None, EngineConfig { record_mib, ..EngineConfig::default() })
            .unwrap();
    engine.submit(Request::new(prompt.to_vec(), params).samples(6).policy(snapshot));
    let mut completions = Vec::new();
    engine.run(|o| completions.push(o.result.unwrap())).unwrap();
    completions
}

/// At T ≠ 1, with a trained adapter, in f32: within 1e-3 nats. In bf16, whose logits have eight
/// bits: 0.1 on average (transformers' own bf16 is 0.07 from f64 on this model).
#[test]
fn sampled_logprobs_are_the_trainers() {
    let Some(path) = demo_model() else { return };
    let checkpoint = Checkpoint::open(&path).unwrap();
    let (tokenizer, template) =
        (checkpoint.tokenizer().unwrap(), checkpoint.chat_template().unwrap());
    let prompt = template.encode(&tokenizer, &[Message::user("What is 7 + 5?")], true).unwrap();
    let temperature = 0.8;
    for (kind, record_mib, mean_bound, worst_bound) in [
        (Kind::Float, 0, 1e-4, 1e-3),
        (Kind::Float, 1024, 1e-4, 1e-3),
        (Kind::BFloat16, 0, 0.1, 0.6),
        // From the same activations, what is left is the logits' rounding in products of other
        // shapes: a step of bf16 is 0.125 from 16 to 32, and either product may round by one.
        (Kind::BFloat16, 1024, 0.003, 0.25),
    ] {
        let model = Arc::new(checkpoint.decoder(kind, Device::Cpu).unwrap());
        let config = TrainerConfig { dead_groups: DeadGroups::Compute, ..TrainerConfig::default() };
        let lora = LoraConfig { rank: 8, ..LoraConfig::default() };
        let mut trainer = Trainer::new(model.clone(), &lora, config, 3).unwrap();
        for _ in 0..2 {
            let completions = sampled(&model, &trainer, &prompt, temperature, record_mib);
            let outcome = trainer
                .forward_backward(
                    &datums(&prompt, &completions, temperature),
                    &PolicyObjective::default(),
                )
                .unwrap();
            let metrics = &outcome.metrics.policy;
            let (mean, worst) = (metrics.logprob_gap().unwrap(), f64::from(metrics.gap_max));
            assert_eq!(
                outcome.recorded_tokens,
                if record_mib > 0 { outcome.computed_tokens } else { 0 }
            );
            println!(
                "{kind:?}, {record_mib} MiB recorded, policy {}: gap {mean:.6} on average, {worst:.6} at most",
                trainer.policy_version()
            );
            assert!(mean < mean_bound && worst < worst_bound, "{kind:?}: {mean} {worst}");
            let params = trainer.adam_params(1e-3);
            trainer.optim_step(&params).unwrap();
        }
    }
}

/// The demonstration model, which lies in one file, written as a folder: the same tokens, and the
/// same next ones.
#[test]
fn the_model_of_one_file_is_exported_as_a_folder() {
    let Some(path) = demo_model() else { return };
    let checkpoint = Checkpoint::open(&path).unwrap();
    let model = Arc::new(checkpoint.decoder(Kind::Float, Device::Cpu).unwrap());
    let lora = LoraConfig { rank: 8, ..LoraConfig::default() };
    let trainer = Trainer::new(model.clone(), &lora, TrainerConfig::default(), 3).unwrap();
    let dir = tempfile::tempdir().unwrap();
    trainer.export_merged(&dir.path().join("merged"), &checkpoint).unwrap();

    let merged = Checkpoint::open(&dir.path().join("merged")).unwrap();
    let messages = [Message::user("What is 12 + 30? Be brief.")];
    let prompt = |checkpoint: &Checkpoint| {
        let template = checkpoint.chat_template().unwrap();
        template.encode(&checkpoint.tokenizer().unwrap(), &messages, true).unwrap()
    };
    assert_eq!(prompt(&merged), prompt(&checkpoint));

    let decoder = Arc::new(merged.decoder(Kind::Float, Device::Cpu).unwrap());
    let completions = [&model, &decoder].map(|model| {
        let mut engine = Engine::new(model.clone(), None, EngineConfig::default()).unwrap();
        let params = SamplingParams { max_tokens: 12, ..SamplingParams::default() };
        engine.submit(Request::new(prompt(&checkpoint), params.greedy()));
        let mut tokens = Vec::new();
        engine.run(|outcome| tokens = outcome.result.unwrap().tokens).unwrap();
        tokens
    });
    assert_eq!(completions[0], completions[1]);
}
