//! A small random model with a vocabulary of digits, a reward, examples, and a run of them.
#![allow(dead_code, reason = "not every test uses all of it")]

use crate::digits;
use posttrain_data::Example;
use posttrain_lora::LoraConfig;
use posttrain_model::{Decoder, ModelConfig, TextModel};
use posttrain_recipes::{
    EvaluationConfig, Event, MetricsLog, Observer, RlConfig, RlRun, StepRecord,
};
use posttrain_reward::{Reward, Sample, Score, from_fn};
use posttrain_rollout::SamplingParams;
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Kind};

pub struct World {
    pub model: TextModel,
}

impl World {
    pub fn new() -> Self {
        Self::of_seed(1)
    }

    pub fn of_seed(seed: u64) -> Self {
        let config = ModelConfig {
            vocab_size: digits::WORDS,
            hidden_size: 256,
            num_hidden_layers: 2,
            ..ModelConfig::tiny()
        };
        let decoder = Decoder::random(&config, seed, Kind::Float, Device::Cpu).unwrap();
        Self { model: TextModel::new(decoder, digits::tokenizer(), digits::template()) }
    }

    pub fn run(&self, config: RlConfig, folder: &Path, reward: Arc<dyn Reward>) -> RlRun {
        RlRun::new(self.model.clone(), reward, config, folder).unwrap()
    }
}

/// Right where the answer's digit is among the response's first two.
pub fn reward() -> Arc<dyn Reward> {
    let score =
        |s: &Sample| Ok(Score::binary(s.response.split(' ').take(2).any(|w| w == s.reference)));
    Arc::new(from_fn("digit", score))
}

pub fn examples(range: std::ops::Range<u32>) -> Vec<Example> {
    range
        .map(|n| Example::new(n.to_string(), "digits", format!("{} {}", n % 10, n / 10 % 10), "7"))
        .collect()
}

pub fn config(steps: u64) -> RlConfig {
    RlConfig {
        seed: 11,
        steps,
        prompts: 4,
        group_size: 4,
        learning_rate: 5e-3,
        checkpoint_every: 2,
        lora: LoraConfig { rank: 4, alpha: 8.0, dropout: 0.1, ..LoraConfig::default() },
        sampling: SamplingParams { max_tokens: 4, ..SamplingParams::default() },
        evaluation: EvaluationConfig {
            every: 3,
            examples: Some(10),
            ..EvaluationConfig::default()
        },
        ..RlConfig::default()
    }
}

pub fn records(folder: &Path) -> Vec<StepRecord> {
    let (_, records) = MetricsLog::open(folder, u64::MAX).unwrap();
    records.iter().map(StepRecord::reproducible).collect()
}

/// Dies at a step, before anything of it is saved, as a killed process does.
pub struct DieAt(pub u64);

impl Observer for DieAt {
    fn see(&mut self, event: &Event) {
        if let Event::Step { record, .. } = event {
            assert!(record.step < self.0, "killed");
        }
    }
}
