//! Supervised fine-tuning on conversations from top to bottom: which tokens are learned, and which
//! are only read.
//!
//! ```text
//! cargo run --release -p examples --example sft_by_hand
//! ```
//!
//! In every conversation the assistant answers a question, says the same again when it is asked
//! another one, is told that this is wrong, and answers. What the system and the user say is read
//! and not learned, and so is the mistake: its weight is 0, so that the model sees a mistake put
//! right without being taught to make it.
//!
//! Departures from common practice: an adapter of low rank beside the frozen base, conversations
//! made up of questions and answers that a table has, one pass over few of them, and no schedule of
//! the learning rate.
//!
//! Last line: the log-likelihood per learned token, nats, of 64 conversations about other facts,
//! before and after.

use anyhow::{Context, Result};
use posttrain::data::{BatchConfig, BatchStream, Example, SplitConfig, sciences, split};
use posttrain::lora::LoraConfig;
use posttrain::loss::CrossEntropy;
use posttrain::model::{Checkpoint, ComputeKind, Message, Quantize, TextModel, select_kind};
use posttrain::rollout::{Engine, EngineConfig, Request, SamplingParams};
use posttrain::train::{Datum, Trainer, TrainerConfig};
use std::path::Path;
use tch::Device;

const MODEL: &str = ".models/SmolLM2-135M-Instruct.Q4_1.gguf";
const SEED: u64 = 7;
const STEPS: usize = 24;
const CONVERSATIONS: usize = 12; // a step
const HELD_OUT: usize = 64; // conversations
const LEARNING_RATE: f64 = 2e-4;

/// A message, and whether the model learns to say it.
struct Turn {
    message: Message,
    learned: bool,
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    let checkpoint = Checkpoint::open(Path::new(MODEL)).context("run `cargo xtask setup` first")?;
    let kind = select_kind(ComputeKind::Auto, Device::Cpu);
    let model = TextModel::load(&checkpoint, Quantize::None, kind, Device::Cpu)?;

    // No fact is on both sides of the split. A conversation is about two neighbors of a shuffled
    // set.
    let splits =
        split(&sciences::generate(SEED)?, &SplitConfig { seed: SEED, ..SplitConfig::default() })?;
    let pairs = |conversations: usize| BatchConfig {
        prompts: 2 * conversations as u64,
        ..BatchConfig::default()
    };
    let mut training = BatchStream::new(splits.train, pairs(CONVERSATIONS))?;
    let held_out = BatchStream::new(splits.test, pairs(HELD_OUT))?.next_batch();
    let held_out: Vec<Vec<Turn>> =
        held_out.chunks(2).map(|two| conversation(&two[0], &two[1])).collect();
    let held_out_datums = datums(&model, &held_out)?;

    let lora = LoraConfig { rank: 32, alpha: 32.0, ..LoraConfig::default() };
    let mut trainer = Trainer::new(model.decoder.clone(), &lora, TrainerConfig::default(), SEED)?;
    let before = log_likelihood(&trainer, &held_out_datums)?;
    println!("held out  log-likelihood {before:.3}");
    show(&model, &trainer, &held_out)?;

    for step in 0..STEPS {
        let batch: Vec<Vec<Turn>> =
            training.next_batch().chunks(2).map(|two| conversation(&two[0], &two[1])).collect();

        // The mean over the step's learned tokens of -log p(token | all before it), and a step down
        // its gradient.
        let passes =
            trainer.forward_backward(&datums(&model, &batch)?, &CrossEntropy::default())?;
        trainer.optim_step(&trainer.adam_params(LEARNING_RATE))?;
        println!("step {:>2}  loss {:.3}", step + 1, passes.loss());
    }

    show(&model, &trainer, &held_out)?;
    let after = log_likelihood(&trainer, &held_out_datums)?;
    println!("{}", serde_json::json!({ "before": before, "after": after }));
    Ok(())
}

/// An answer that is learned, a mistake that is read, and its correction, which is learned.
fn conversation(one: &Example, other: &Example) -> Vec<Turn> {
    let read = |message| Turn { message, learned: false };
    let learned = |text: &String| Turn { message: Message::assistant(text), learned: true };
    vec![
        read(Message::system("Answer with a word or a number.")),
        read(Message::user(&one.question)),
        learned(&one.answer),
        read(Message::user(&other.question)),
        read(Message::assistant(&one.answer)),
        read(Message::user("That is wrong. Think again.")),
        learned(&other.answer),
    ]
}

/// Conversations as datums: tokens, and a weight for each, 1 where it is learned and 0 where it is
/// read.
fn datums(model: &TextModel, conversations: &[Vec<Turn>]) -> Result<Vec<Datum>> {
    let mut datums = Vec::with_capacity(conversations.len());
    for turns in conversations {
        let messages: Vec<Message> = turns.iter().map(|turn| turn.message.clone()).collect();
        let encode = |turns: usize, answering| {
            model.template.encode(&model.tokenizer, &messages[..turns], answering)
        };

        let tokens = encode(turns.len(), false)?;
        let mut weights = vec![0.0; tokens.len()];
        for (place, _) in turns.iter().enumerate().filter(|(_, turn)| turn.learned) {
            // The template alone knows where an answer begins and ends: where the conversation
            // before it ends, once with the call to answer and once with the answer. Its last
            // token, a line break, follows the end of the turn.
            let begin = encode(place, true)?.len();
            let end = encode(place + 1, false)?.len() - 1;
            weights[begin..end].fill(1.0);
        }
        datums.push(Datum::text(&tokens, &weights));
    }
    Ok(datums)
}

/// The mean log-probability of the learned tokens.
fn log_likelihood(trainer: &Trainer, datums: &[Datum]) -> Result<f64> {
    let logprobs = trainer.forward(datums)?.logprobs.concat();
    Ok(logprobs.iter().map(|logprob| f64::from(*logprob)).sum::<f64>() / logprobs.len() as f64)
}

/// Prints what the model says in the last turn of three conversations.
fn show(model: &TextModel, trainer: &Trainer, conversations: &[Vec<Turn>]) -> Result<()> {
    let mut engine =
        Engine::new(model.decoder.clone(), Some(model.tokenizer.clone()), EngineConfig::default())?;
    let mut requests = Vec::new();
    for turns in &conversations[..3] {
        let before: Vec<Message> =
            turns[..turns.len() - 1].iter().map(|turn| turn.message.clone()).collect();
        let params = SamplingParams { max_tokens: 24, ..SamplingParams::default() }.greedy();
        let prompt = model.template.encode(&model.tokenizer, &before, true)?;
        requests.push(Request::new(prompt, params).policy(trainer.snapshot()?));
    }
    for (turns, answers) in conversations.iter().zip(engine.complete(requests)?) {
        println!("  {} -> {:?}", turns[3].message.text(), answers[0].text);
    }
    Ok(())
}
