//! On-policy distillation from a configuration file: the policy answers, and a teacher says of each
//! token how likely it is.
//!
//! ```text
//! cargo run --release -p examples --example distill -- --config examples/configs/distill.toml --out runs/distill
//! ```
//!
//! The teacher is the base with another prompt (`kind = "prompted"`), a policy on the same base
//! (`kind = "adapter"`), or another model with the same tokenizer (`kind = "model"`).

use anyhow::Result;
use clap::Parser;
use examples::{RunArgs, fine_tune};
use posttrain::recipes::lesson::{OnPolicyDistillation, TeacherConfig};
use posttrain::rollout::SamplingParams;
use serde::{Deserialize, Serialize};

/// What is learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DistillationLesson {
    /// Who says how likely a token is.
    teacher: TeacherConfig,
    /// Answers that the policy gives to each question.
    completions: usize,
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    fine_tune::<DistillationLesson, _>(&RunArgs::parse(), |config, model, _, _| {
        let teacher = config.lesson.teacher.build(model, &config.prompt)?;
        let sampling =
            SamplingParams { seed: config.fine_tune.seed, ..config.fine_tune.sampling.clone() };
        let lesson = OnPolicyDistillation::new(
            model.clone(),
            config.prompt.clone(),
            teacher,
            (config.lesson.completions, sampling),
        )?;
        Ok(lesson.with_engine(config.fine_tune.engine.clone()))
    })
}
