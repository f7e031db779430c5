//! Two adapters on one base from top to bottom: trained by turns in one service, sampled side by
//! side in another.
//!
//! ```text
//! cargo run --release -p examples --example two_adapters
//! ```
//!
//! One adapter learns mathematics, the other social sciences, by policy gradients; they differ in
//! rank, in the layers that they adapt and in their learning rate. The base is in memory once. Each
//! step submits the questions of both to the sampling service, whose batches hold rows of either,
//! and queues the work of both trainers before it waits for any.
//!
//! Departures from GRPO (<https://arxiv.org/abs/2402.03300>): one optimizer step a batch, so that
//! no ratio is clipped; advantages without division by the deviation (Dr. GRPO,
//! <https://arxiv.org/abs/2503.20783>); no KL penalty.
//!
//! Last line: the share of right answers at temperature 1, four to each of 150 held-out questions
//! of either domain, the mean of both, before and after.

use anyhow::{Context, Result};
use posttrain::data::{Example, Split, SplitConfig, sciences, split};
use posttrain::lora::{LoraConfig, TargetModules};
use posttrain::loss::PolicyObjective;
use posttrain::model::{Checkpoint, ComputeKind, Quantize, TextModel, TextTokenizer, select_kind};
use posttrain::rollout::service::{
    SampleRequest, SampleStream, SamplingClient, SamplingService, SamplingServiceConfig, Transition,
};
use posttrain::rollout::{Completion, Request, SamplingParams};
use posttrain::train::{Datum, TrainerConfig, TrainingClient, TrainingService, derive_seed};
use std::{path::Path, sync::Arc};
use tch::Device;

const MODEL: &str = ".models/SmolLM2-135M-Instruct.Q4_1.gguf";
const SEED: u64 = 7;
const STEPS: usize = 12;
const QUESTIONS: usize = 10; // of each domain, a step
const GROUP: usize = 8; // answers a question
const HELD_OUT: usize = 150; // questions of each domain

/// Questions that are answered before the real one, so that a small model sees the form.
const SHOTS: &str = "Question: What is 3 + 4?\nAnswer: 7\n\n\
                     Question: What is the chemical symbol of Iron?\nAnswer: Fe\n\n\
                     Question: What is the capital of Japan?\nAnswer: Tokyo\n\n";

/// A domain, its questions, and the adapter that learns it.
struct Specialist {
    domain: &'static str,
    learning_rate: f64,
    training: Vec<Example>,
    held_out: Vec<Example>,
    trainer: TrainingClient,
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    let checkpoint = Checkpoint::open(Path::new(MODEL)).context("run `cargo xtask setup` first")?;
    let kind = select_kind(ComputeKind::Auto, Device::Cpu);
    let model = TextModel::load(&checkpoint, Quantize::None, kind, Device::Cpu)?;
    let splits =
        split(&sciences::generate(SEED)?, &SplitConfig { seed: SEED, ..SplitConfig::default() })?;

    // Two services over the same base, and a trainer for each domain in one of them.
    let config = SamplingServiceConfig::default();
    let sampling =
        SamplingService::start(model.decoder.clone(), Some(model.tokenizer.clone()), config)?;
    let training = TrainingService::start(model.decoder)?;
    let attention = ["q_proj", "k_proj", "v_proj", "o_proj"].map(String::from).to_vec();
    let adapters = [
        (sciences::MATH, 32, TargetModules::AllLinear, 2e-4),
        (sciences::SOCIAL, 8, TargetModules::Names(attention), 1e-3),
    ];
    let mut specialists = Vec::with_capacity(adapters.len());
    for (domain, rank, target_modules, learning_rate) in adapters {
        let lora = LoraConfig { rank, alpha: rank as f64, target_modules, ..LoraConfig::default() };
        specialists.push(Specialist {
            domain,
            learning_rate,
            training: splits.domain(Split::Train, domain).cloned().collect(),
            held_out: splits.domain(Split::Test, domain).take(HELD_OUT).cloned().collect(),
            trainer: training.create(&lora, TrainerConfig::default(), SEED)?,
        });
    }

    // Requests name a policy; the service knows which version the name stands for.
    let client = sampling.client();
    for specialist in &specialists {
        let policy = specialist.trainer.snapshot().wait()?;
        client.publish(specialist.domain, policy, Transition::Finish);
    }
    let asker = Asker { client: client.clone(), tokenizer: model.tokenizer };
    let before = asker.accuracy(&specialists)?;

    for step in 0..STEPS {
        // 1. Both domains' questions go in before any answer comes out: their rows share each step.
        let mut asked = Vec::with_capacity(specialists.len());
        for specialist in &specialists {
            let questions = &specialist.training[step * QUESTIONS..][..QUESTIONS];
            asked.push(asker.submit(specialist.domain, questions, GROUP, step as u64 + 1)?);
        }

        // 2. Each domain's trainer has three calls queued as soon as its answers are there.
        let mut calls = Vec::with_capacity(specialists.len());
        for (specialist, asked) in specialists.iter().zip(asked) {
            let (datums, right) = marked(asked)?;
            print!("step {:>2}  {} {right:.2}  ", step + 1, specialist.domain);

            let params = TrainerConfig::default().adam_params(specialist.learning_rate);
            let trainer = &specialist.trainer;
            let passes = trainer.forward_backward(datums, Arc::new(PolicyObjective::default()));
            calls.push((passes, trainer.optim_step(params), trainer.snapshot()));
        }
        println!();

        // 3. The new versions take the names.
        for (specialist, (passes, optimized, snapshot)) in specialists.iter().zip(calls) {
            passes.wait()?;
            optimized.wait()?;
            client.publish(specialist.domain, snapshot.wait()?, Transition::Finish);
        }
    }

    let after = asker.accuracy(&specialists)?;
    println!("{}", serde_json::json!({ "before": before, "after": after }));
    Ok(())
}

/// A question that has been asked, and where its answers come from.
struct Asked {
    prompt: Vec<i64>,
    answer: String,
    stream: SampleStream,
}

/// Puts questions to the sampling service.
struct Asker {
    client: SamplingClient,
    tokenizer: Arc<TextTokenizer>,
}

impl Asker {
    /// Asks each question `count` times at temperature 1, and waits for nothing.
    fn submit(
        &self,
        policy: &str,
        questions: &[Example],
        count: usize,
        step: u64,
    ) -> Result<Vec<Asked>> {
        let mut asked = Vec::with_capacity(questions.len());
        for (question, row) in questions.iter().zip(0..) {
            let text = format!("{SHOTS}Question: {}\nAnswer:", question.question);
            let prompt = self.tokenizer.encode_prompt(&text)?;
            let params = SamplingParams {
                max_tokens: 12,
                stop: vec!["\n".into()],
                seed: derive_seed(SEED, policy, step, row),
                ..SamplingParams::default()
            };
            let request = SampleRequest::new(Request::new(prompt.clone(), params).samples(count));
            let stream = self.client.submit_blocking(request.policy_name(policy))?;
            asked.push(Asked { prompt, answer: question.answer.clone(), stream });
        }
        Ok(asked)
    }

    /// The share of right answers to the held-out questions, the mean over the domains.
    fn accuracy(&self, specialists: &[Specialist]) -> Result<f64> {
        let ask = |own: &Specialist| self.submit(own.domain, &own.held_out, 4, 0);
        let asked = specialists.iter().map(ask).collect::<Result<Vec<_>>>()?;
        let mut total = 0.0;
        for (specialist, asked) in specialists.iter().zip(asked) {
            let (_, right) = marked(asked)?;
            println!("held out  {} {right:.3}", specialist.domain);
            total += right;
        }
        Ok(total / specialists.len() as f64)
    }
}

/// Waits for answers and marks them: what a trainer learns from, and the share that is right. An
/// answer is worth how much better it is than the mean of its group.
fn marked(asked: Vec<Asked>) -> Result<(Vec<Datum>, f64)> {
    let questions = asked.len() as f64;
    let mut datums = Vec::new();
    let mut right = 0.0;
    for Asked { prompt, answer, stream } in asked {
        let outcomes = stream.wait().into_iter();
        let group =
            outcomes.map(|outcome| outcome.result).collect::<Result<Vec<Completion>, _>>()?;
        let reward = |one: &Completion| if one.text.trim() == answer { 1.0 } else { 0.0 };
        let mean = group.iter().map(reward).sum::<f32>() / group.len() as f32;
        datums.extend(group.iter().map(|one| Datum::sampled(&prompt, one, reward(one) - mean)));
        right += f64::from(mean);
    }
    Ok((datums, right / questions))
}
