//! On-policy distillation from top to bottom: the student writes, and the teacher says of every
//! token how likely it would have been.
//!
//! ```text
//! cargo run --release -p examples --example distillation_by_hand
//! ```
//!
//! Teacher and student are the same base. The teacher reads a longer prompt, with questions that
//! are already answered; the student learns to answer as if it had read it, too. What it pays for
//! is KL(student ‖ teacher), estimated from its own samples: for a token that it drew with
//! probability p and that the teacher gives q, ln p − ln q.
//!
//! Departures from on-policy distillation as it was described (<https://arxiv.org/abs/2306.13649>,
//! <https://thinkingmachines.ai/blog/on-policy-distillation/>): the teacher is no larger model; the
//! divergence is estimated from the sampled token alone, not from the whole vocabulary; a token
//! answers for its own divergence and not for that of the tokens after it (a discount of 0, as in
//! the second).
//!
//! Last line: −KL(student ‖ teacher) per token, nats, over the student's answers to 250 questions
//! that training never asks, before and after.

use anyhow::{Context, Result};
use posttrain::data::{BatchConfig, BatchStream, Example, SplitConfig, sciences, split};
use posttrain::lora::LoraConfig;
use posttrain::loss::distillation::{Distillation, Divergence};
use posttrain::model::{Checkpoint, ComputeKind, Quantize, TextModel, select_kind};
use posttrain::rollout::{Completion, Engine, EngineConfig, Request, SamplingParams};
use posttrain::train::{Datum, Trainer, TrainerConfig, derive_seed};
use std::path::Path;
use tch::Device;

const MODEL: &str = ".models/SmolLM2-135M-Instruct.Q4_1.gguf";
const SEED: u64 = 7;
const STEPS: u64 = 8;
const QUESTIONS: u64 = 20; // a step
const ANSWERS: usize = 2; // a question
const HELD_OUT: u64 = 64; // questions
const LEARNING_RATE: f64 = 2e-4;

/// What the teacher reads before a question, and the student does not.
const SHOTS: &str = "Question: What is 3 + 4?\nAnswer: 7\n\n\
                     Question: What is the chemical symbol of Iron?\nAnswer: Fe\n\n\
                     Question: What is the capital of Japan?\nAnswer: Tokyo\n\n";

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    let checkpoint = Checkpoint::open(Path::new(MODEL)).context("run `cargo xtask setup` first")?;
    let kind = select_kind(ComputeKind::Auto, Device::Cpu);
    let model = TextModel::load(&checkpoint, Quantize::None, kind, Device::Cpu)?;

    // Questions of mathematics, natural and social sciences. No fact is on both sides of the split.
    let splits =
        split(&sciences::generate(SEED)?, &SplitConfig { seed: SEED, ..SplitConfig::default() })?;
    let of = |prompts: u64| BatchConfig { prompts, seed: SEED, ..BatchConfig::default() };
    let mut training = BatchStream::new(splits.train, of(QUESTIONS))?;
    let held_out = BatchStream::new(splits.test, of(HELD_OUT))?.next_batch();

    let lora = LoraConfig { rank: 32, alpha: 32.0, ..LoraConfig::default() };
    let mut trainer = Trainer::new(model.decoder.clone(), &lora, TrainerConfig::default(), SEED)?;
    let objective =
        Distillation { divergence: Divergence::SampledReverseKl, ..Distillation::default() };

    let before = divergence(&lesson(&model, &trainer, &held_out, 0)?);
    println!("held out  KL {before:.3} nats per token");

    for step in 1..=STEPS {
        // 1. The student answers, and the teacher reads along.
        let datums = lesson(&model, &trainer, &training.next_batch(), step)?;

        // 2. Each token's loss is (p / p sampled) · (ln p − ln q), whose second factor is a
        // constant: REINFORCE with the divergence as its cost.
        trainer.forward_backward(&datums, &objective)?;
        trainer.optim_step(&trainer.adam_params(LEARNING_RATE))?;
        println!("step {step:>2}  KL {:.3}", divergence(&datums));
    }

    let after = divergence(&lesson(&model, &trainer, &held_out, 0)?);
    println!("{}", serde_json::json!({ "before": -before, "after": -after }));
    Ok(())
}

/// The student's answers to questions, each token with its log-probability under the student that
/// drew it and under the teacher.
fn lesson(
    model: &TextModel,
    trainer: &Trainer,
    questions: &[Example],
    step: u64,
) -> Result<Vec<Datum>> {
    let mut engine =
        Engine::new(model.decoder.clone(), Some(model.tokenizer.clone()), EngineConfig::default())?;
    let mut requests = Vec::with_capacity(questions.len());
    let mut longer_prompts = Vec::with_capacity(questions.len());
    for (question, row) in questions.iter().zip(0..) {
        let text = format!("Question: {}\nAnswer:", question.question);
        longer_prompts.push(model.tokenizer.encode_prompt(&format!("{SHOTS}{text}"))?);
        let params = SamplingParams {
            max_tokens: 12,
            stop: vec!["\n".into()],
            seed: derive_seed(SEED, "sample", step, row),
            ..SamplingParams::default()
        };
        let request = Request::new(model.tokenizer.encode_prompt(&text)?, params);
        requests.push(request.samples(ANSWERS).policy(trainer.snapshot()?));
    }
    let groups = engine.complete(requests.clone())?;
    println!("  {} -> {:?}", questions[0].question, groups[0][0].text);

    // The same tokens behind two prompts. The adapter is the student; the base without it is the
    // teacher.
    let mut read_by_student = Vec::new();
    let mut read_by_teacher = Vec::new();
    for ((request, longer), answers) in requests.iter().zip(&longer_prompts).zip(&groups) {
        for answer in answers {
            read_by_student.push(Datum::completion(&request.prompt, &answer.tokens));
            read_by_teacher.push(Datum::completion(longer, &answer.tokens));
        }
    }
    let teacher = trainer.forward_reference(&read_by_teacher)?;

    let sampled = groups.into_iter().flatten();
    let known = read_by_student.into_iter().zip(sampled).zip(teacher.logprobs);
    let datum = |((datum, answer), teacher): ((Datum, Completion), Vec<f32>)| {
        datum.with_sampling_logprobs(answer.logprobs).with_reference_logprobs(teacher)
    };
    Ok(known.map(datum).collect())
}

/// KL(student ‖ teacher) per token, nats, estimated from the tokens that the student drew.
fn divergence(datums: &[Datum]) -> f64 {
    let student = datums.iter().filter_map(|datum| datum.sampling_logprobs.as_ref()).flatten();
    let teacher = datums.iter().filter_map(|datum| datum.reference_logprobs.as_ref()).flatten();
    let differences: Vec<f64> = student.zip(teacher).map(|(p, q)| f64::from(p - q)).collect();
    differences.iter().sum::<f64>() / differences.len() as f64
}
