//! A loss of one's own from top to bottom: a closure from log-probabilities to a loss and its
//! gradient.
//!
//! ```text
//! cargo run --release -p examples --example custom_loss
//! ```
//!
//! The loss ranks: of four answers to a question, the right one is to have the highest
//! log-probability per token. With s the mean log-probability of an answer's tokens, it is -ln
//! softmax(s / T) of the right one (ListNet's top-one loss, Cao et al., ICML 2007; lengths are
//! divided out as in RRHF, <https://arxiv.org/abs/2304.05302>, whose loss is a hinge over pairs).
//! No objective of the library is that, and none has to be.
//!
//! Departures from ListNet: one of four answers is right, instead of grades for a list of
//! documents; the scores are a language model's, of which an adapter of low rank is trained.
//!
//! On the way two closures fail, one by a panic and one by a NaN. Each is an error of its own call;
//! the step goes on as if it had not been made.
//!
//! Last line: the share of 250 held-out questions whose right answer ranks first of four, before
//! and after.

use anyhow::{Context, Result, bail};
use posttrain::data::sciences::{self, MATH};
use posttrain::data::{Example, Split, SplitConfig, split};
use posttrain::lora::LoraConfig;
use posttrain::loss::{CustomLoss, CustomObjective, LossBatch, Scope};
use posttrain::model::{Checkpoint, ComputeKind, Quantize, TextModel, select_kind};
use posttrain::train::{Datum, Trainer, TrainerConfig};
use std::path::Path;
use tch::Device;

const MODEL: &str = ".models/SmolLM2-135M-Instruct.Q4_1.gguf";
const SEED: u64 = 7;
const STEPS: usize = 25;
const QUESTIONS: usize = 16; // a step
const CHOICES: usize = 4; // answers a question, the right one first
const TEMPERATURE: f32 = 0.5;
const LEARNING_RATE: f64 = 1e-4;

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
    let held_out = choices(&model, &held_out)?;

    let lora = LoraConfig { rank: 32, alpha: 32.0, ..LoraConfig::default() };
    let mut trainer = Trainer::new(model.decoder.clone(), &lora, TrainerConfig::default(), SEED)?;
    let before = ranked_rightly(&trainer, &held_out)?;
    println!("held out  ranked first {before:.3}");

    // A closure needs the log-probabilities of four answers at once, so its scope is the whole
    // batch.
    let ranking = CustomObjective::new("ranking", Scope::Batch, ranking);
    let panicking = CustomObjective::new("panicking", Scope::Batch, |_, logprobs| CustomLoss {
        loss_sum: f64::from(logprobs[usize::MAX]),
        ..CustomLoss::default()
    });
    let not_a_number = CustomObjective::new("not a number", Scope::Batch, |_, logprobs| {
        CustomLoss { gradient: vec![f32::NAN; logprobs.len()], ..CustomLoss::default() }
    });

    for (step, batch) in training.chunks(QUESTIONS).take(STEPS).enumerate() {
        let datums = choices(&model, batch)?;
        let passes = trainer.forward_backward(&datums, &ranking)?;

        // A failure between a gradient and its step: nothing of it stays in the gradient.
        if step == 0 {
            for faulty in [&panicking, &not_a_number] {
                match trainer.forward_backward(&datums, faulty) {
                    Ok(_) => bail!("a faulty closure went unnoticed"),
                    Err(error) => println!("refused: {:#}", anyhow::Error::from(error)),
                }
            }
        }

        trainer.optim_step(&trainer.adam_params(LEARNING_RATE))?;
        let first = passes.metrics.named.get("ranked_first").unwrap_or(f64::NAN);
        println!("step {:>2}  loss {:.3}  ranked first {first:.2}", step + 1, passes.loss());
    }

    let after = ranked_rightly(&trainer, &held_out)?;
    println!("{}", serde_json::json!({ "before": before, "after": after }));
    Ok(())
}

/// The loss: -ln softmax(s / T) of the first of each question's answers, the mean over questions; s
/// is the mean log-probability of an answer's tokens.
fn ranking(batch: &LossBatch, logprobs: &[f32]) -> CustomLoss {
    let spans: Vec<_> = batch.spans().collect();
    let questions = (spans.len() / CHOICES) as f32;
    let mut loss = CustomLoss { gradient: vec![0.0; logprobs.len()], ..CustomLoss::default() };

    for answers in spans.chunks_exact(CHOICES) {
        let score = |span: &std::ops::Range<usize>| {
            logprobs[span.clone()].iter().sum::<f32>() / span.len() as f32
        };
        let scores: Vec<f32> = answers.iter().map(score).collect();
        let total: f32 = scores.iter().map(|score| (score / TEMPERATURE).exp()).sum();
        loss.loss_sum += f64::from((total.ln() - scores[0] / TEMPERATURE) / questions);
        let first = scores[1..].iter().all(|other| scores[0] > *other);
        loss.named.add("ranked_first", if first { 1.0 } else { 0.0 }, 1.0);

        // d loss / d s_k = (softmax_k - [k is the right one]) / T, and d s_k / d logprob = 1 /
        // length.
        for (choice, span) in answers.iter().enumerate() {
            let share = (scores[choice] / TEMPERATURE).exp() / total;
            let by_score = (share - if choice == 0 { 1.0 } else { 0.0 }) / TEMPERATURE;
            loss.gradient[span.clone()].fill(by_score / span.len() as f32 / questions);
        }
    }
    loss
}

/// Each question's right answer and three wrong ones: the question's own numbers, then the right
/// one's neighbors.
fn choices(model: &TextModel, questions: &[&Example]) -> Result<Vec<Datum>> {
    let mut datums = Vec::with_capacity(questions.len() * CHOICES);
    for question in questions {
        let right: i64 =
            question.answer.parse().context("the answers of this domain are whole numbers")?;
        let asked =
            question.question.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
        let mut answers = vec![right];
        for wrong in asked.chain([right + 1, right - 1, right + 10]) {
            if answers.len() < CHOICES && !answers.contains(&wrong) {
                answers.push(wrong);
            }
        }

        let prompt =
            model.tokenizer.encode_prompt(&format!("Question: {}\nAnswer:", question.question))?;
        for answer in answers {
            let tokens = model.tokenizer.encode_text(&format!(" {answer}\n"))?;
            datums.push(Datum::completion(&prompt, &tokens));
        }
    }
    Ok(datums)
}

/// The share of questions whose right answer has the highest log-probability per token.
fn ranked_rightly(trainer: &Trainer, datums: &[Datum]) -> Result<f64> {
    let logprobs = trainer.forward(datums)?.logprobs;
    let mean = |logprobs: &Vec<f32>| logprobs.iter().sum::<f32>() / logprobs.len() as f32;
    let scores: Vec<f32> = logprobs.iter().map(mean).collect();
    let first = |answers: &&[f32]| answers[1..].iter().all(|other| answers[0] > *other);
    let right = scores.chunks_exact(CHOICES).filter(first).count();
    Ok(right as f64 / (scores.len() / CHOICES) as f64)
}
