//! Direct preference optimization from top to bottom: pairs of answers, of which one is preferred,
//! and no reward model.
//!
//! ```text
//! cargo run --release -p examples --example dpo_by_hand
//! ```
//!
//! A pair is a right and a wrong answer to one question, both sampled from the base, so that
//! nothing but what they say tells one from the other: an answer from a table may be written in
//! tokens that no sample has. The reference, from which the policy is not to stray, is the base
//! without the adapter: no second model is in memory.
//!
//! Departures from the paper (DPO, <https://arxiv.org/abs/2305.18290>): preferences come from known
//! answers, not from people; an adapter is trained instead of the whole model, by AdamW instead of
//! RMSprop and without a warm-up.
//!
//! Last line: the share of held-out pairs whose right answer is the likelier one, before and after,
//! over what the base answered to 150 questions that training never asks.

use anyhow::{Context, Result};
use posttrain::data::sciences::{self, MATH};
use posttrain::data::{Example, Split, SplitConfig, split};
use posttrain::lora::LoraConfig;
use posttrain::loss::preference::{Dpo, Reference};
use posttrain::model::{Checkpoint, ComputeKind, Quantize, TextModel, select_kind};
use posttrain::rollout::{Completion, Engine, EngineConfig, FinishReason, Request, SamplingParams};
use posttrain::train::{Datum, Trainer, TrainerConfig, derive_seed};
use std::path::Path;
use tch::Device;

const MODEL: &str = ".models/SmolLM2-135M-Instruct.Q4_1.gguf";
const SEED: u64 = 7;
const STEPS: usize = 16;
const PAIRS: usize = 16; // a step
const BETA: f64 = 0.1;
const LEARNING_RATE: f64 = 1e-4;

/// Questions that are answered before the real one, so that a small model sees the form.
const SHOTS: &str = "Question: What is 3 + 4?\nAnswer: 7\n\n\
                     Question: What is 5 less than 14?\nAnswer: 9\n\n\
                     Question: Solve for x: x * 2 = 6\nAnswer: 3\n\n";

/// Two answers to one question.
struct Pair {
    prompt: Vec<i64>,
    chosen: Vec<i64>,
    rejected: Vec<i64>,
}

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
    let training: Vec<&Example> = splits.domain(Split::Train, MATH).take(200).collect();
    let held_out: Vec<&Example> = splits.domain(Split::Test, MATH).take(150).collect();

    // 1. The data: what the base itself says, right and wrong. The policy will not sample again.
    let mut training = pairs(&model, &training)?;
    training.truncate(STEPS * PAIRS);
    let held_out = datums(&pairs(&model, &held_out)?);
    println!("{} pairs to learn from, {} held out", training.len(), held_out.len() / 2);

    let lora = LoraConfig { rank: 32, alpha: 32.0, ..LoraConfig::default() };
    let mut trainer = Trainer::new(model.decoder, &lora, TrainerConfig::default(), SEED)?;
    let before = ordered_rightly(&trainer, &held_out)?;
    println!("held out  ordered rightly {before:.3}");

    // 2. The loss of a pair: -ln sigmoid(beta · (h(chosen) - h(rejected))), with h(answer) = ln
    // p(answer) - ln p0(answer) and p0 the base. Where a datum brings no log-probabilities of a
    // reference, the trainer takes the base's.
    let objective = Dpo { beta: BETA, label_smoothing: 0.0, reference: Reference::Policy };
    for (step, batch) in training.chunks(PAIRS).enumerate() {
        let passes = trainer.forward_backward(&datums(batch), &objective)?;
        trainer.optim_step(&trainer.adam_params(LEARNING_RATE))?;

        let metric = |name| passes.metrics.named.get(name).unwrap_or(f64::NAN);
        let (accuracy, margin) = (metric("preference/accuracy"), metric("preference/margin"));
        println!(
            "step {:>2}  loss {:.3}  accuracy {accuracy:.2}  margin {margin:.2}",
            step + 1,
            passes.loss()
        );
    }

    let after = ordered_rightly(&trainer, &held_out)?;
    println!("{}", serde_json::json!({ "before": before, "after": after }));
    Ok(())
}

/// Asks the base each question eight times, and pairs a right answer with each wrong one where it
/// gave both.
fn pairs(model: &TextModel, questions: &[&Example]) -> Result<Vec<Pair>> {
    let mut engine =
        Engine::new(model.decoder.clone(), Some(model.tokenizer.clone()), EngineConfig::default())?;
    let mut requests = Vec::with_capacity(questions.len());
    for (question, row) in questions.iter().zip(0..) {
        let text = format!("{SHOTS}Question: {}\nAnswer:", question.question);
        let params = SamplingParams {
            max_tokens: 12,
            stop: vec!["\n".into()],
            seed: derive_seed(SEED, "sample", 0, row),
            ..SamplingParams::default()
        };
        requests.push(Request::new(model.tokenizer.encode_prompt(&text)?, params).samples(8));
    }

    let mut pairs = Vec::new();
    let groups = engine.complete(requests.clone())?;
    for ((request, mut answers), question) in requests.into_iter().zip(groups).zip(questions) {
        // An answer that was cut is neither right nor wrong, and what was said twice counts once.
        answers.retain(|answer| answer.finish_reason == FinishReason::Stop);
        answers.sort_by(|one, other| one.tokens.cmp(&other.tokens));
        answers.dedup_by(|one, other| one.tokens == other.tokens);

        let is_right = |answer: &Completion| answer.text.trim() == question.answer;
        let (right, wrong): (Vec<_>, Vec<_>) = answers.into_iter().partition(is_right);
        let Some(right) = right.first() else { continue };
        pairs.extend(wrong.into_iter().map(|wrong| Pair {
            prompt: request.prompt.clone(),
            chosen: right.tokens.clone(),
            rejected: wrong.tokens,
        }));
    }
    Ok(pairs)
}

/// Pairs as an objective of pairs takes them: the chosen answer, then the rejected one, whose
/// prompt is computed once.
fn datums(pairs: &[Pair]) -> Vec<Datum> {
    let two = |pair: &Pair| {
        [&pair.chosen, &pair.rejected].map(|answer| Datum::completion(&pair.prompt, answer))
    };
    pairs.iter().flat_map(two).collect()
}

/// The share of pairs whose chosen answer is likelier than the rejected one.
fn ordered_rightly(trainer: &Trainer, datums: &[Datum]) -> Result<f64> {
    let scores = trainer.forward(datums)?;
    let likelihoods: Vec<f32> =
        scores.logprobs.iter().map(|logprobs| logprobs.iter().sum()).collect();
    let right = likelihoods.chunks_exact(2).filter(|pair| pair[0] > pair[1]).count();
    Ok(right as f64 / (likelihoods.len() / 2) as f64)
}
