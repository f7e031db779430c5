//! On-policy distillation from a configuration file: the policy answers, and a teacher says of each
//! token how likely it is.
//!
//! ```text
//! cargo run --release -p examples --example distill -- --config examples/configs/distill.toml --out runs/distill
//! ```
//!
//! The teacher is the base with another prompt (`kind = "prompted"`), a policy on the same base
//! (`kind = "adapter"`), another model with the same tokenizer (`kind = "model"`), one behind an
//! OpenAI-compatible server (`kind = "server"`), or another one for each domain (`kind =
//! "by_domain"`). Without `[lesson.teacher]` the data have a teacher's answers with what it held
//! likely: `tokens` and `top_logprobs` in their metadata.

use anyhow::{Result, bail};
use clap::Parser;
use examples::{RunArgs, fine_tune};
use posttrain::recipes::lesson::{
    Lesson, OffPolicyDistillation, OnPolicyDistillation, TeacherConfig,
};
use posttrain::rollout::SamplingParams;
use serde::{Deserialize, Serialize};

/// What is learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DistillationLesson {
    /// Who says how likely a token is; left out where the data do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    teacher: Option<TeacherConfig>,
    /// Answers that the policy gives to each question, where there is a teacher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    completions: Option<usize>,
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    fine_tune::<DistillationLesson, _>(&RunArgs::parse(), |config, model, _, _| {
        let lesson: Box<dyn Lesson> = match (&config.lesson.teacher, config.lesson.completions) {
            (Some(teacher), Some(completions)) => {
                let teacher = teacher.build(model, &config.prompt)?;
                let run = &config.fine_tune;
                let sampling = SamplingParams { seed: run.seed, ..run.sampling.clone() };
                let lesson = OnPolicyDistillation::new(
                    model.clone(),
                    config.prompt.clone(),
                    teacher,
                    (completions, sampling),
                )?;
                Box::new(lesson.with_engine(run.engine.clone()))
            }
            (None, None) => {
                Box::new(OffPolicyDistillation::new(model.clone(), config.prompt.clone()))
            }
            _ => bail!("`lesson.teacher` and `lesson.completions` come together, or neither"),
        };
        Ok(lesson)
    })
}
