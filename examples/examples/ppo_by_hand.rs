//! Proximal policy optimization from top to bottom: an engine samples, a verifier says right or
//! wrong, a trainer takes several optimizer steps on what was sampled, and the clip holds each
//! answer's probability near where it was.
//!
//! ```text
//! cargo run --release -p examples --example ppo_by_hand
//! ```
//!
//! Departures from the paper (PPO, <https://arxiv.org/abs/1707.06347>): no value network, and so no
//! generalized advantages: an answer is one action with one reward, and what was to be expected is
//! the mean reward of the other answers to the same question (leave-one-out,
//! <https://arxiv.org/abs/2402.14740>). Advantages are not normalized, and there is no entropy
//! bonus.
//!
//! Last line: the share of right answers at temperature 1, four to each of 250 questions that
//! training never asks, before and after.

use anyhow::{Context, Result};
use posttrain::data::sciences::{self, MATH};
use posttrain::data::{Example, Split, SplitConfig, split};
use posttrain::lora::LoraConfig;
use posttrain::loss::{PolicyLoss, PolicyMetrics, PolicyObjective};
use posttrain::model::{Checkpoint, ComputeKind, Quantize, TextModel, TextTokenizer, select_kind};
use posttrain::rollout::{
    Completion, Engine, EngineConfig, PolicySnapshot, Request, SamplingParams,
};
use posttrain::train::{Datum, Trainer, TrainerConfig, derive_seed};
use std::path::Path;
use std::sync::Arc;
use tch::Device;

const MODEL: &str = ".models/SmolLM2-135M-Instruct.Q4_1.gguf";
const SEED: u64 = 7;
const BATCHES: usize = 12;
const QUESTIONS: usize = 16; // a batch
const GROUP: usize = 8; // answers a question
const EPOCHS: usize = 2; // passes over a batch
const MINIBATCH: usize = 4 * GROUP; // answers an optimizer step: four questions' groups
const LEARNING_RATE: f64 = 1e-4;
const CLIP: f32 = 0.2;

/// Questions that are answered before the real one, so that a small model sees the form.
const SHOTS: &str = "Question: What is 3 + 4?\nAnswer: 7\n\n\
                     Question: What is 5 less than 14?\nAnswer: 9\n\n\
                     Question: Solve for x: x * 2 = 6\nAnswer: 3\n\n";

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    let checkpoint = Checkpoint::open(Path::new(MODEL)).context("run `cargo xtask setup` first")?;
    let kind = select_kind(ComputeKind::Auto, Device::Cpu);
    let model = TextModel::load(&checkpoint, Quantize::None, kind, Device::Cpu)?;

    // Arithmetic in many words. No sum or product is on both sides of the split.
    let splits =
        split(&sciences::generate(SEED)?, &SplitConfig { seed: SEED, ..SplitConfig::default() })?;
    let training: Vec<&Example> = splits.domain(Split::Train, MATH).collect();
    let held_out: Vec<&Example> = splits.domain(Split::Test, MATH).collect();

    let engine =
        Engine::new(model.decoder.clone(), Some(model.tokenizer.clone()), EngineConfig::default())?;
    let mut sampler = Sampler { engine, tokenizer: model.tokenizer };
    let lora = LoraConfig { rank: 32, alpha: 32.0, ..LoraConfig::default() };
    let mut trainer = Trainer::new(model.decoder, &lora, TrainerConfig::default(), SEED)?;
    let objective = PolicyObjective {
        loss: PolicyLoss::PpoClip { clip_low: CLIP, clip_high: CLIP },
        ..PolicyObjective::default()
    };

    let before = accuracy(&sampler.ask(&held_out, &trainer.snapshot()?, 4, 0)?);
    println!("held out  accuracy {before:.3}");

    for batch in 0..BATCHES {
        // 1. Answers of the policy as it is now, with the log-probabilities that ratios are taken
        // to, and marks.
        let questions = &training[batch * QUESTIONS..][..QUESTIONS];
        let groups = sampler.ask(questions, &trainer.snapshot()?, GROUP, batch as u64 + 1)?;

        // 2. What each answer is worth: how much better it is than the others to its question.
        let mut datums = Vec::with_capacity(QUESTIONS * GROUP);
        for group in &groups {
            let total: f32 = group.rewards.iter().sum();
            for (completion, reward) in group.completions.iter().zip(&group.rewards) {
                let expected = (total - reward) / (GROUP - 1) as f32;
                datums.push(Datum::sampled(&group.prompt, completion, reward - expected));
            }
        }

        // 3. Several steps on the same batch. At the first one every ratio is 1. Then the policy
        // moves away from the one that sampled, and a token has no gradient once its ratio has left
        // [1 - CLIP, 1 + CLIP] on the side to which its advantage pushes it: that bounds how far a
        // batch is followed.
        let mut metrics = PolicyMetrics::default();
        for _epoch in 0..EPOCHS {
            for minibatch in datums.chunks(MINIBATCH) {
                let passes = trainer.forward_backward(minibatch, &objective)?;
                trainer.optim_step(&trainer.adam_params(LEARNING_RATE))?;
                metrics.merge(&passes.metrics.policy);
            }
        }

        println!(
            "batch {:>2}  reward {:.2}  clipped {:.1}%  KL {:.4}",
            batch + 1,
            accuracy(&groups),
            100.0 * metrics.clipped_share().unwrap_or(0.0),
            metrics.kl_k3_mean().unwrap_or(0.0),
        );
    }

    let after = accuracy(&sampler.ask(&held_out, &trainer.snapshot()?, 4, 0)?);
    println!("{}", serde_json::json!({ "before": before, "after": after }));
    Ok(())
}

/// A question's prompt, the answers to it, and what each earned.
struct Group {
    prompt: Vec<i64>,
    completions: Vec<Completion>,
    rewards: Vec<f32>,
}

struct Sampler {
    engine: Engine,
    tokenizer: Arc<TextTokenizer>,
}

impl Sampler {
    /// Asks each question `count` times at temperature 1, and marks the answers.
    fn ask(
        &mut self,
        questions: &[&Example],
        policy: &PolicySnapshot,
        count: usize,
        step: u64,
    ) -> Result<Vec<Group>> {
        let mut requests = Vec::with_capacity(questions.len());
        for (question, row) in questions.iter().zip(0..) {
            let text = format!("{SHOTS}Question: {}\nAnswer:", question.question);
            let params = SamplingParams {
                max_tokens: 12,
                stop: vec!["\n".into()],
                seed: derive_seed(SEED, "sample", step, row),
                ..SamplingParams::default()
            };
            let request = Request::new(self.tokenizer.encode_prompt(&text)?, params);
            requests.push(request.samples(count).policy(policy.clone()));
        }

        let answers = self.engine.complete(requests.clone())?;
        let mark = |((request, completions), question): ((Request, Vec<Completion>), &&Example)| {
            let right = |answer: &Completion| answer.text.trim() == question.answer;
            let rewards =
                completions.iter().map(|answer| if right(answer) { 1.0 } else { 0.0 }).collect();
            Group { prompt: request.prompt, completions, rewards }
        };
        Ok(requests.into_iter().zip(answers).zip(questions).map(mark).collect())
    }
}

/// The share of right answers.
fn accuracy(groups: &[Group]) -> f64 {
    let rewards: Vec<f32> = groups.iter().flat_map(|group| group.rewards.clone()).collect();
    f64::from(rewards.iter().sum::<f32>()) / rewards.len() as f64
}
