//! What a step of reinforcement learning costs with a model on this machine: seconds, tokens a
//! second, and the memory that was planned. Prompts and completions have exactly the lengths asked
//! for, so that figures compare.
//!
//! ```text
//! cargo run --release -p examples --example step_cost -- --model DIR-or-GGUF --rank 128 --prompts 16 --group-size 8 \
//!     --prompt-tokens 256 --completion-tokens 512
//! ```
//!
//! In: a model, of which neither tokenizer nor template is needed. Out: a line a step as JSON; the
//! medians on standard error.

use anyhow::{Context, Result};
use clap::Parser;
use examples::{ModelArgs, log_to_stderr};
use posttrain::lora::LoraConfig;
use posttrain::loss::PolicyObjective;
use posttrain::model::Decoder;
use posttrain::rollout::{Completion, Engine, EngineConfig, Request, SamplingParams};
use posttrain::train::{
    Datum, GradientCheckpointing, MemoryPlan, PlanRequest, Trainer, TrainerConfig,
};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// Times steps of a fresh adapter on made-up prompts.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Rank of the adapter, on every linear layer.
    #[arg(long, default_value_t = 128)]
    rank: i64,
    /// Prompts a step.
    #[arg(long, default_value_t = 16)]
    prompts: usize,
    /// Completions a prompt, at least 2.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(2..))]
    group_size: u64,
    /// Tokens of a prompt, at least 1.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..))]
    prompt_tokens: u64,
    /// Tokens of a completion, at least 1.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..))]
    completion_tokens: u64,
    /// Samples decoded side by side.
    #[arg(long, default_value_t = 128)]
    rows: usize,
    /// Tokens of one training pass.
    #[arg(long, default_value_t = 16_384)]
    micro_batch_tokens: usize,
    /// Compute activations a second time on the way back rather than keep them.
    #[arg(long)]
    checkpointing: bool,
    /// MiB of activations that sampling may record, for training to start from.
    #[arg(long, default_value_t = 0)]
    record_mib: usize,
    /// Steps.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
}

/// What a step took.
#[derive(Serialize)]
struct Step {
    step: u64,
    seconds_sampling: f64,
    seconds_training: f64,
    sampled_tokens: usize,
    sampled_tokens_a_second: f64,
    /// Tokens that went through the model in training; a group's prompt counts once a micro-batch.
    trained_tokens: usize,
    /// Those of them whose forward pass was the sampler's.
    recorded_tokens: usize,
    micro_batches: usize,
    /// The mean distance of the sampler's log-probabilities from the trainer's, nats.
    logprob_gap: f64,
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    log_to_stderr();
    let args = Args::parse();
    let started = Instant::now();
    let model = Arc::new(args.model.open_weights()?);
    eprintln!("loaded in {:.1} s", started.elapsed().as_secs_f64());
    let lora = LoraConfig { rank: args.rank, ..LoraConfig::default() };
    let checkpointing =
        if args.checkpointing { GradientCheckpointing::Blocks } else { GradientCheckpointing::Off };
    let trainer = TrainerConfig {
        micro_batch_tokens: args.micro_batch_tokens,
        checkpointing,
        ..TrainerConfig::default()
    };
    let plan = MemoryPlan::of(&PlanRequest {
        model: model.config(),
        quantize: args.model.quantize(),
        kind: model.kind(),
        device: model.device(),
        lora: &lora,
        trainer,
        workers: 1,
        rows: args.rows,
        prompt_tokens: args.prompt_tokens as usize,
        completion_tokens: args.completion_tokens as usize,
        group_size: args.group_size as usize,
        record_mib: args.record_mib,
    });
    eprint!("planned:\n{plan}");
    let mut trainer = Trainer::new(model.clone(), &lora, trainer, 1)?;
    let steps = (0..args.steps)
        .map(|number| step(&args, &model, &mut trainer, number))
        .collect::<Result<Vec<_>>>()?;
    let median = |of: fn(&Step) -> f64| {
        let mut values: Vec<f64> = steps.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (sampling, training) = (median(|s| s.seconds_sampling), median(|s| s.seconds_training));
    let rate = median(|s| s.sampled_tokens_a_second);
    eprintln!("medians: sampling {sampling:.2} s ({rate:.0} tokens/s), training {training:.2} s");
    Ok(())
}

fn step(args: &Args, model: &Arc<Decoder>, trainer: &mut Trainer, number: u64) -> Result<Step> {
    let sampling = Instant::now();
    let groups = sample(args, model, trainer, number)?;
    let seconds_sampling = sampling.elapsed().as_secs_f64();
    let sampled_tokens = groups.iter().flat_map(|(_, c)| c).map(|c| c.tokens.len()).sum();
    let training = Instant::now();
    let outcome = trainer.forward_backward(&datums(&groups), &PolicyObjective::default())?;
    let params = trainer.adam_params(1e-5);
    trainer.optim_step(&params)?;
    let seconds_training = training.elapsed().as_secs_f64();
    let step = Step {
        step: number,
        seconds_sampling,
        seconds_training,
        sampled_tokens,
        sampled_tokens_a_second: sampled_tokens as f64 / seconds_sampling,
        trained_tokens: outcome.computed_tokens,
        recorded_tokens: outcome.recorded_tokens,
        micro_batches: outcome.micro_batches,
        logprob_gap: outcome.metrics.policy.logprob_gap().unwrap_or(0.0),
    };
    println!("{}", serde_json::to_string(&step)?);
    Ok(step)
}

/// A prompt and its completions.
type Group = (Vec<i64>, Vec<Completion>);

/// Prompts with the completions that the policy as it is gives.
fn sample(args: &Args, model: &Arc<Decoder>, trainer: &Trainer, number: u64) -> Result<Vec<Group>> {
    let length = args.completion_tokens as usize;
    let params = SamplingParams {
        max_tokens: length,
        min_tokens: length,
        seed: number,
        ..SamplingParams::default()
    };
    let policy = trainer.snapshot()?;
    let config = EngineConfig {
        max_rows: args.rows,
        record_mib: args.record_mib,
        ..EngineConfig::default()
    };
    let mut engine = Engine::new(model.clone(), None, config)?;
    let mut groups: Vec<_> =
        (0..args.prompts).map(|i| (prompt(args, model, number, i as u64), Vec::new())).collect();
    for (prompt, _) in &groups {
        let request =
            Request::new(prompt.clone(), params.clone()).samples(args.group_size as usize);
        engine.submit(request.policy(policy.clone()));
    }
    let mut failed = None;
    engine.run(|outcome| match outcome.result {
        Ok(completion) => groups[outcome.request].1.push(completion),
        Err(error) => failed = Some(error),
    })?;
    failed.map_or(Ok(groups), |error| Err(error).context("a prompt was refused"))
}

/// Tokens that look like nothing; no two prompts begin alike.
fn prompt(args: &Args, model: &Decoder, step: u64, number: u64) -> Vec<i64> {
    let vocab = model.config().vocab_size as u64;
    let token =
        |place: u64| (step * 1_000_003 + number * 10_007 + place * place * 31 + place * 17) % vocab;
    (0..args.prompt_tokens).map(|place| token(place) as i64).collect()
}

/// Half of each group is told that it did well, the other half that it did not.
fn datums(groups: &[Group]) -> Vec<Datum> {
    let mut datums = Vec::new();
    for (prompt, completions) in groups {
        for (index, completion) in completions.iter().enumerate() {
            datums.push(Datum::sampled(
                prompt,
                completion,
                if index % 2 == 0 { 1.0 } else { -1.0 },
            ));
        }
    }
    datums
}
