//! An environment of one's own, from nothing: arithmetic with a calculator.
//!
//! ```text
//! cargo run --release -p examples --example tool_use -- --config examples/configs/tool_use.toml --out runs/tool_use
//! ```
//!
//! A policy that multiplies numbers of three digits in its head is wrong. It is shown, by a script,
//! how the tool is called, and then learns by reinforcement: only the answer is rewarded.

use anyhow::Result;
use clap::Parser;
use examples::{
    AgentFile, AgentTasks, Arm, RunArgs, Shown, mean_of, over_seeds, task_seed, train_agents,
};
use posttrain::chat::{Message, Tool, ToolCall, ToolFormat};
use posttrain::data::Example;
use posttrain::environment::{
    Actor, Environment, EnvironmentError, ScriptedActor, ToolError, ToolLimits, ToolTask, Tools,
    tool_fn,
};
use posttrain::model::TextModel;
use posttrain::recipes::agent::{EnvironmentBuilder, EpisodeRequest};
use posttrain::reward::verifiers::AnswerConfig;
use posttrain::reward::{Reward, Sample, Verifier};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// The environment's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Arithmetic {
    /// Numbers have at most so many digits.
    digits: u32,
    /// What bounds a call of the calculator.
    #[serde(default)]
    limits: ToolLimits,
}

/// The tool: an operation on two numbers.
fn calculator() -> impl posttrain::environment::Toolkit {
    let schema = json!({
        "type": "object",
        "properties": {"op": {"enum": ["+", "-", "*"]}, "a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["op", "a", "b"],
        "additionalProperties": false,
    });
    let tool = Tool::new("calculate", "Computes a op b.", schema);
    tool_fn(tool, async |arguments: Value| {
        let number = |name: &str| {
            arguments[name].as_i64().map(i128::from).ok_or(ToolError::refused("too large a number"))
        };
        let (a, b) = (number("a")?, number("b")?);
        Ok(match arguments["op"].as_str() {
            Some("+") => a + b,
            Some("-") => a - b,
            _ => a * b,
        }
        .to_string())
    })
}

/// The environment of a task: its question, the tool, and a reward for the answer.
struct Builder {
    tools: Arc<Tools>,
    reward: Arc<dyn Reward>,
}

impl EnvironmentBuilder for Builder {
    fn environment(
        &self,
        episode: EpisodeRequest<'_>,
    ) -> Result<Box<dyn Environment>, EnvironmentError> {
        let task = episode.task;
        let messages = vec![Message::user(&task.question)];
        let sample = Sample::new(&task.question, &task.answer, "");
        Ok(Box::new(ToolTask::new(messages, self.tools.clone(), sample, self.reward.clone())))
    }
}

/// Questions of one seed.
fn tasks(config: &AgentFile<Arithmetic>, seed: u64) -> Result<AgentTasks> {
    let digits = config.environment.digits;
    anyhow::ensure!(
        (2..=9).contains(&digits),
        "`environment.digits`: expected from 2 to 9, got {digits}: with one there are too few questions \
         for a test of its own"
    );
    let below = 10_u64.pow(digits);
    let draw = |split: &str, count: usize| -> Vec<Example> {
        let task = |index: u64| {
            let number = |what: &str| task_seed(seed, &format!("{split} {what}"), index) % below;
            let (a, b) = (number("a") as i64, number("b") as i64);
            let (op, answer) = match number("op") % 3 {
                0 => ("+", a + b),
                1 => ("-", a - b),
                _ => ("*", a * b),
            };
            let question = format!("What is {a} {op} {b}?");
            let metadata = json!({"op": op, "a": a, "b": b}).as_object().cloned();
            Example {
                metadata,
                ..Example::new(
                    format!("{split}-{index}"),
                    "arithmetic",
                    question,
                    answer.to_string(),
                )
            }
        };
        (0..count as u64).map(task).collect()
    };
    let tools = Tools::new(vec![Arc::new(calculator())], config.environment.limits.clone())?;
    let reward = Arc::new(AnswerConfig::default().build()?.into_reward());
    Ok(AgentTasks {
        train: draw("train", config.tasks.train),
        validation: draw("validation", config.tasks.validation),
        test: draw("test", config.tasks.test),
        arms: Arm::only(Arc::new(Builder { tools: Arc::new(tools), reward })),
    })
}

/// Calls the calculator, and says what it says.
fn demonstrator(model: &TextModel, shown: Shown<'_>) -> Option<Arc<dyn Actor>> {
    let arguments = shown.task.metadata.clone().map_or(Value::Null, Value::Object);
    let call = ToolFormat::Hermes.write(&[ToolCall::new("", "calculate", arguments)]);
    Some(Arc::new(ScriptedActor::new(model.clone(), move |turn, read: &[Message]| match turn {
        0 => Some(call.clone()),
        _ => Some(read.last()?.text().into_owned()),
    })))
}

fn main() -> std::process::ExitCode {
    examples::exit_code(run())
}

fn run() -> Result<()> {
    let args = RunArgs::parse();
    let reports = train_agents(&args, tasks, &demonstrator, |seed, learned, console| {
        let right = |adapters| {
            let played = learned.run.evaluate(adapters, &learned.tasks.test, console)?;
            Ok::<_, anyhow::Error>(mean_of(&played, |trajectory| trajectory.reward()))
        };
        let mut right = right;
        Ok((seed, [right(&learned.before)?, right(&learned.after)?]))
    })?;
    let Some(reports) = reports else { return Ok(()) };

    let share = |which: usize| reports.iter().map(|(_, share)| share[which]).collect::<Vec<_>>();
    let (before, after) = (share(0), share(1));
    let gained: Vec<f64> =
        after.iter().zip(&before).map(|(after, before)| after - before).collect();
    let (_, low, high) = over_seeds(&gained);
    examples::write_summary(
        &args.out,
        &json!({
            "seeds": reports.iter().map(|(seed, _)| *seed).collect::<Vec<u64>>(),
            "warm_start": over_seeds(&before).0,
            "accuracy": over_seeds(&after).0,
            "gained": over_seeds(&gained).0,
            "low": low,
            "high": high,
        }),
    )
}
