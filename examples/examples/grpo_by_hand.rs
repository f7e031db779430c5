//! Group-relative policy optimization from top to bottom in plain tensor operations: the minimal
//! twin of `rlvr`.
//!
//! ```text
//! cargo run --release -p examples --example grpo_by_hand
//! ```
//!
//! Departures from the paper (DeepSeekMath, <https://arxiv.org/abs/2402.03300>): one optimizer step
//! a batch, so that the clipped ratio is 1 and its loss is plain importance sampling; no KL
//! penalty; the loss is the mean over all tokens of the step (DAPO), not of each completion.
//! Departures from `rlvr`, for the reader's sake: every token is sampled with a full forward pass
//! (no cache), every completion computes its prompt again (no sharing), and the logits of the whole
//! vocabulary exist at once (no fused head). It learns the same; it only takes longer.
//!
//! Last line: the probability of the right answer, the mean over all sums that no step asks, before
//! and after. It is computed, not sampled, so luck has no part in it.

use anyhow::{Context, Result};
use posttrain::lora::{Adapter, AdapterView, LoraConfig, RowAdapters};
use posttrain::model::{
    Checkpoint, ComputeKind, Decoder, PackedAttention, Packing, Sequence, TextModel,
};
use posttrain::model::{Quantize, select_kind};
use posttrain::optim::{AdamParams, AdamW};
use posttrain::train::derive_seed;
use std::path::Path;
use tch::{Device, Kind, Tensor};

const MODEL: &str = ".models/SmolLM2-135M-Instruct.Q4_1.gguf";
const STEPS: u64 = 6;
const PROMPTS: u64 = 4; // a step
const GROUP: usize = 6; // completions a prompt
const MAX_TOKENS: usize = 5;
const LEARNING_RATE: f64 = 3e-4;

/// A sampled completion: its tokens, and their log-probabilities when they were sampled.
struct Completion {
    tokens: Vec<i64>,
    logprobs: Vec<f32>,
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    let checkpoint = Checkpoint::open(Path::new(MODEL)).context("run `cargo xtask setup` first")?;
    let kind = select_kind(ComputeKind::Auto, Device::Cpu);
    let text_model = TextModel::load(&checkpoint, Quantize::None, kind, Device::Cpu)?;
    let model = &text_model.decoder;

    // A low-rank adapter beside the frozen base is all that is trained.
    let lora = LoraConfig { rank: 32, alpha: 32.0, ..LoraConfig::default() };
    let adapter = Adapter::init(&lora, model.modules(), 1, Device::Cpu)?;
    let mut optimizer = AdamW::new(adapter.parameters())?;
    let params =
        AdamParams { learning_rate: LEARNING_RATE, max_grad_norm: 1.0, ..AdamParams::default() };

    let before = held_out_probability(&text_model, &adapter.snapshot(kind)?)?;
    for step in 0..STEPS {
        let mut total_loss = Vec::new();
        let mut total_tokens = 0;
        let mut total_reward = 0.0;
        let sampling = adapter.snapshot(kind)?;
        let mut groups = Vec::new();
        for row in 0..PROMPTS {
            // 1. A question whose answer can be checked.
            let (a, b) = sum(step, row);
            let prompt = prompt(&text_model, a, b)?;

            // 2. A group of completions.
            tch::manual_seed(derive_seed(7, "question", step, row) as i64);
            let group = sample_group(&text_model, &sampling, &prompt)?;

            // 3. A binary reward each.
            let mut rewards = Vec::new();
            for completion in &group {
                let text = text_model.tokenizer.decode(&completion.tokens)?;
                rewards.push(if text.trim() == (a + b).to_string() { 1.0 } else { 0.0 });
            }

            // 4. What each is worth beside the others: A = (r − mean) / (deviation + ε).
            let mean = rewards.iter().sum::<f64>() / GROUP as f64;
            let variance =
                rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (GROUP - 1) as f64;
            let advantages: Vec<f64> =
                rewards.iter().map(|r| (r - mean) / (variance.sqrt() + 1e-4)).collect();
            total_reward += mean;
            total_tokens += group.iter().map(|c| c.tokens.len()).sum::<usize>();
            groups.push((prompt, group, advantages));
        }

        // 5. The loss: −(π_now(token) / π_sampled(token)) · A, for every token.
        let view = adapter.view(kind)?;
        for (prompt, group, advantages) in &groups {
            for (completion, &advantage) in group.iter().zip(advantages).filter(|(_, a)| **a != 0.0)
            {
                let now = logprobs(model, &view, prompt, &completion.tokens)?;
                let ratio = (now - Tensor::from_slice(&completion.logprobs)).exp();
                total_loss.push((ratio * -advantage).sum(Kind::Float));
            }
        }

        // 6. A step of AdamW on the mean over the step's tokens, the gradient clipped to norm 1.
        if !total_loss.is_empty() {
            (Tensor::stack(&total_loss, 0).sum(Kind::Float) / total_tokens as f64).backward();
            optimizer.step(&params)?;
        }
        println!("step {:>2}  reward {:.2}", step + 1, total_reward / PROMPTS as f64);
    }

    let after = held_out_probability(&text_model, &adapter.snapshot(kind)?)?;
    println!("{}", serde_json::json!({ "before": before, "after": after }));
    Ok(())
}

/// The sum that a row of a step asks for.
fn sum(step: u64, row: u64) -> (u64, u64) {
    let seed = derive_seed(7, "question", step, row);
    (seed % 10 + 1, seed / 10 % 9 + 1)
}

/// The tokens that ask for a sum.
fn prompt(model: &TextModel, a: u64, b: u64) -> Result<Vec<i64>> {
    Ok(model.tokenizer.encode_prompt(&format!("3 + 4 = 7\n6 + 8 = 14\n{a} + {b} ="))?)
}

/// The final hidden states of `prompt` and what follows it, the adapter beside the base.
fn hidden(
    model: &Decoder,
    adapter: &AdapterView,
    prompt: &[i64],
    completion: &[i64],
) -> Result<Tensor> {
    let text = Sequence { prompt: [prompt, completion].concat(), completions: vec![] };
    let packing = Packing::new(&[text])?;
    let mut attention = PackedAttention::new(&packing, model)?;
    Ok(model.forward(
        &packing.input(Device::Cpu)?,
        &mut attention,
        &RowAdapters::all(Some(adapter)),
    )?)
}

/// log π(token | all before it) of every completion token, with gradients.
fn logprobs(
    model: &Decoder,
    adapter: &AdapterView,
    prompt: &[i64],
    completion: &[i64],
) -> Result<Tensor> {
    let states = hidden(model, adapter, prompt, completion)?;
    // The state before each token predicts it.
    let before = states.narrow(0, prompt.len() as i64 - 1, completion.len() as i64);
    let all = model.logits(&before, &RowAdapters::all(Some(adapter)))?.log_softmax(-1, Kind::Float);
    Ok(all.gather(1, &Tensor::from_slice(completion).unsqueeze(1), false).squeeze_dim(1))
}

/// Completions sampled at temperature 1, token by token.
fn sample_group(model: &TextModel, view: &AdapterView, prompt: &[i64]) -> Result<Vec<Completion>> {
    let _guard = tch::no_grad_guard();
    let end = model.tokenizer.encode_text("\n")?.pop();
    let model = &model.decoder;
    let mut group = Vec::with_capacity(GROUP);
    for _ in 0..GROUP {
        let mut completion = Completion { tokens: Vec::new(), logprobs: Vec::new() };
        while completion.tokens.len() < MAX_TOKENS && completion.tokens.last() != end.as_ref() {
            let state = hidden(model, view, prompt, &completion.tokens)?.narrow(0, -1, 1);
            let distribution = model
                .logits(&state, &RowAdapters::all(Some(view)))?
                .log_softmax(-1, Kind::Float)
                .squeeze_dim(0);
            let token = distribution.exp().multinomial(1, false).int64_value(&[0]);
            completion.logprobs.push(distribution.double_value(&[token]) as f32);
            completion.tokens.push(token);
        }
        group.push(completion);
    }
    Ok(group)
}

/// The probability of the right answer and nothing after it, the mean over the sums that no step
/// asks in either order.
fn held_out_probability(model: &TextModel, adapter: &AdapterView) -> Result<f64> {
    let _guard = tch::no_grad_guard();
    let asked: Vec<(u64, u64)> =
        (0..STEPS).flat_map(|step| (0..PROMPTS).map(move |row| sum(step, row))).collect();

    let mut probabilities = Vec::new();
    for (a, b) in (1..=10).flat_map(|a| (1..=9).map(move |b| (a, b))) {
        if asked.contains(&(a, b)) || asked.contains(&(b, a)) {
            continue;
        }
        let answer = model.tokenizer.encode_text(&format!(" {}\n", a + b))?;
        let logprobs = logprobs(&model.decoder, adapter, &prompt(model, a, b)?, &answer)?;
        probabilities.push(logprobs.sum(Kind::Double).exp().double_value(&[]));
    }
    Ok(probabilities.iter().sum::<f64>() / probabilities.len() as f64)
}
