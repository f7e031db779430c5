//! Reinforcement learning on small random models of the families' shapes: the reward rises, and
//! sampler and trainer agree.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../posttrain-model/tests/device/mod.rs"]
mod device;
mod digits;

use device::device;
use posttrain_data::Example;
use posttrain_lora::LoraConfig;
use posttrain_model::{AttentionBias, Decoder, ExpertsConfig, ModelConfig, TextModel};
use posttrain_recipes::{EvaluationConfig, MetricsLog, RlConfig, RlRun, Silent, StepRecord};
use posttrain_reward::{Reward, Sample, Score, from_fn};
use posttrain_rollout::SamplingParams;
use std::sync::Arc;
use tch::Kind;

fn shapes() -> [(&'static str, ModelConfig); 3] {
    let small = || ModelConfig {
        vocab_size: digits::WORDS,
        hidden_size: 128,
        num_hidden_layers: 2,
        ..ModelConfig::tiny()
    };
    let experts = ExpertsConfig {
        count: 6,
        a_token: 2,
        intermediate_size: 32,
        normalized: true,
        layers: vec![0, 1],
    };
    [
        ("qwen2.5", ModelConfig { attention_bias: AttentionBias::QueryKeyValue, ..small() }),
        ("qwen3", ModelConfig { head_norms: true, ..small() }),
        ("qwen3-moe", ModelConfig { head_norms: true, experts: Some(experts), ..small() }),
    ]
}

/// The share of a response that is the answer's digit.
fn reward() -> Arc<dyn Reward> {
    let score = |s: &Sample| {
        let words: Vec<_> = s.response.split(' ').filter(|w| !w.is_empty()).collect();
        let right = words.iter().filter(|w| **w == s.reference).count();
        Score::new(right as f64 / words.len().max(1) as f64)
    };
    Arc::new(from_fn("digits", score))
}

fn config() -> RlConfig {
    RlConfig {
        seed: 11,
        steps: 15,
        prompts: 4,
        group_size: 8,
        learning_rate: 5e-3,
        lora: LoraConfig { rank: 4, alpha: 8.0, ..LoraConfig::default() },
        sampling: SamplingParams { max_tokens: 4, min_tokens: 4, ..SamplingParams::default() },
        evaluation: EvaluationConfig { every: 15, examples: Some(4), samples: 1 },
        ..RlConfig::default()
    }
}

#[test]
fn the_reward_rises_and_sampler_and_trainer_agree() {
    let dir = tempfile::tempdir().unwrap();
    let example =
        |n: u32| Example::new(n.to_string(), "digits", format!("{} {}", n % 10, n / 10), "7");
    let (train, held_out): (Vec<_>, Vec<_>) =
        ((0..40).map(example).collect(), (40..44).map(example).collect());
    for (name, shape) in shapes() {
        let model = Decoder::random(&shape, 1, Kind::Float, device()).unwrap();
        let model = TextModel::new(model, digits::tokenizer(), digits::template());
        let run = RlRun::new(model, reward(), config(), &dir.path().join(name)).unwrap();
        assert!(run.train(&train, &held_out, &mut Silent).unwrap().complete);
        let (_, records) = MetricsLog::open(&dir.path().join(name), u64::MAX).unwrap();
        let mean =
            |part: &[StepRecord]| part.iter().map(|r| r.reward).sum::<f64>() / part.len() as f64;
        let (first, last) = (mean(&records[..3]), mean(&records[records.len() - 3..]));
        let gap = records.iter().map(|r| r.logprob_gap).fold(0.0, f64::max);
        println!(
            "{name}: reward {first:.3} to {last:.3} in {} steps, greatest logprob gap {gap:.1e}",
            records.len()
        );
        assert!(last > first + 0.3, "{name}: {first} {last}");
        assert!(gap < 1e-4, "{name}: {gap}");
    }
}
