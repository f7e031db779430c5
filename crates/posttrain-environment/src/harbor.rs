//! Harbor's task folders: a task, a folder that a policy's commands work in, tests that say what it is
//! worth.

mod container;
mod task;

pub use task::{HarborError, HarborTask};

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use posttrain_chat::{Message, Role, Tool};
use posttrain_reward::RewardError;
use posttrain_reward::code::{CodeExecution, CodeExecutionConfig, CommandRun, Workspace};
use posttrain_reward::outside::ProgramFailure;
use serde_json::{Value, json};

use crate::tools::{cut, told};
use crate::{Action, Environment, EnvironmentError, EpisodeEnd, Opening, Step};

/// Where tests leave the reward.
const VERIFIER: &str = "/logs/verifier";

/// The reward as it comes out of the sandbox.
const REWARD: &str = "logs/reward";

/// Calls of one turn that are run; those behind are refused.
const CALLS_A_TURN: usize = 8;

/// A shell for tasks in a folder: the sandbox of `config`, with `bash` and without a view of the tasks'
/// tests and solutions. A command, and a task's tests, may take `config.time_limit_seconds` by the clock
/// and `config.limits.cpu_seconds` of the processor.
///
/// # Errors
/// Those of [`CodeExecutionConfig::build`]; [`RewardError::InvalidConfig`] names the folder where it
/// cannot be read.
pub fn shell(
    tasks: &Path,
    mut config: CodeExecutionConfig,
) -> Result<Arc<CodeExecution>, RewardError> {
    let folder = tasks.canonicalize().map_err(|error| RewardError::InvalidConfig {
        field: "hidden",
        got: format!("{}: {error}", tasks.display()),
        expected: "a folder of tasks",
    })?;
    config.interpreter = vec!["bash".to_owned()];
    config.hidden.push(folder);
    Ok(Arc::new(config.build()?))
}

/// A Harbor task that a policy works on with one tool, `bash`, in the sandbox of a [`shell`]: no
/// container is built.
///
/// The policy reads `instruction.md`; each call runs in the task's working folder and is answered by
/// what it wrote. A turn that calls nothing ends the episode, and so does the budget or the task's
/// own time; then `tests/` comes to `/tests`, `test.sh` runs, and the reward is what it leaves in
/// `/logs/verifier/reward.txt` or `reward.json`. Tests that leave no number there are a 0, since what the
/// policy left may be why; they are an error where they leave none of the task's own files either.
pub struct HarborEnvironment {
    task: Arc<HarborTask>,
    shell: Arc<CodeExecution>,
    workspace: Workspace,
    output_bytes: usize,
    began: Instant,
    commands: usize,
    failed: usize,
    reward: Option<f64>,
}

impl HarborEnvironment {
    /// An episode of a task; a policy reads at most `output_bytes` of what a command writes.
    ///
    /// # Errors
    /// [`HarborError::NeedsContainer`] where the task's tests may take longer than the shell lets
    /// them; [`HarborError::Config`] where the sandbox runs something else than `bash`.
    pub fn new(
        task: Arc<HarborTask>,
        shell: Arc<CodeExecution>,
        output_bytes: usize,
    ) -> Result<Self, HarborError> {
        let interpreter = shell.config().interpreter.join(" ");
        if !interpreter.ends_with("bash") {
            let reason = format!("commands need a shell: expected `bash`, got `{interpreter}`");
            return Err(HarborError::Config { path: task.folder().to_owned(), reason });
        }
        let limit = shell.config().time_limit_seconds;
        if let Some(seconds) = task.verifier_seconds().filter(|seconds| *seconds > limit) {
            let reason = format!(
                "`verifier.timeout_sec`: {seconds} is more than the sandbox's `time_limit_seconds`, {limit}"
            );
            return Err(HarborError::NeedsContainer { path: task.folder().to_owned(), reason });
        }
        let workspace = task.workspace().clone();
        let began = Instant::now();
        Ok(Self {
            task,
            shell,
            workspace,
            output_bytes,
            began,
            commands: 0,
            failed: 0,
            reward: None,
        })
    }

    fn tool() -> Tool {
        let schema = json!({
            "type": "object",
            "properties": {"command": {"type": "string"}},
            "required": ["command"],
            "additionalProperties": false,
        });
        Tool::new("bash", "Runs a command in the task's folder.", schema)
    }

    async fn bash(&mut self, arguments: &Value) -> Result<String, EnvironmentError> {
        let Some(command) = arguments["command"].as_str() else {
            return Ok("Error: `command` must be a text.".to_owned());
        };
        let most = self.shell.config().max_code_bytes;
        if command.len() > most || command.contains('\0') {
            return Ok(format!("Error: `command` must be at most {most} bytes, none of them 0."));
        }
        self.commands += 1;
        let (directory, environment) = (self.task.directory(), self.task.environment());
        let run = self.shell.command(&mut self.workspace, directory, environment, command).await?;
        if run.exit != Some(0) {
            self.failed += 1;
        }
        Ok(said(run, self.output_bytes))
    }

    /// What the tests say of what the policy left. Where they say nothing, or cannot even begin, the
    /// policy has nothing from it: that is a 0, unless they say nothing of the task's own files either.
    async fn verify(&self) -> Result<f64, EnvironmentError> {
        let said = match self.tested(&self.workspace).await {
            Ok(Ok(reward)) => return Ok(reward),
            Ok(Err(said)) => said,
            // Files that are too many for the sandbox are the policy's; a busy machine is not.
            Err(RewardError::Program { failure: ProgramFailure::Sandbox { reason }, .. }) => reason,
            Err(error) => return Err(error.into()),
        };
        match self.tested(self.task.workspace()).await? {
            Ok(_) => Ok(0.0),
            Err(_) => Err(EnvironmentError::Failed {
                reason: format!("the tests of {}: {said}", self.task.name()),
            }),
        }
    }

    /// Runs the task's tests in a workspace, whose logs, and tests of its own, are gone: the reward,
    /// or what was said in its place.
    async fn tested(&self, workspace: &Workspace) -> Result<Result<f64, String>, RewardError> {
        let fresh = workspace.clone().with_fresh("logs").and_then(|w| w.with_fresh("tests"));
        let with_tests = fresh.and_then(|mut workspace| {
            workspace.add_folder("tests", self.task.tests())?;
            Ok(workspace)
        });
        let workspace = match with_tests {
            Ok(workspace) => workspace,
            Err(error) => return Ok(Err(error.to_string())),
        };

        let bash = match self.task.verifier_seconds() {
            Some(seconds) => format!("timeout -k 5 {seconds} bash"),
            None => "bash".to_owned(),
        };
        let command = format!(
            "mkdir -p {VERIFIER}; {bash} /tests/test.sh; status=$?; \
             for kind in json txt; do if [ -f {VERIFIER}/reward.$kind ]; then \
             cp {VERIFIER}/reward.$kind /{REWARD}; break; fi; done; exit $status"
        );
        let environment = self.task.verifier_environment();
        let directory = self.task.directory();
        let (run, left) =
            self.shell.inspect(&workspace, directory, environment, (&command, REWARD)).await?;

        let text = String::from_utf8_lossy(&left).trim().to_owned();
        Ok(reward(&text).ok_or_else(|| {
            let expected = format!("a number in {VERIFIER}/reward.txt or reward.json");
            format!("expected {expected}, got `{}`; {}", cut(text, 200), said(run, 1000))
        }))
    }

    async fn end(&mut self) -> Result<f64, EnvironmentError> {
        let reward = self.verify().await?;
        self.reward = Some(reward);
        Ok(reward)
    }
}

/// What a policy reads of a command.
fn said(run: CommandRun, most: usize) -> String {
    let mut text = cut(run.output, most);
    match (run.exit, run.ended_by) {
        (_, Some(reason)) => text += &format!("\n[{reason}: nothing was kept]"),
        (Some(0), None) => {}
        (exit, None) => text += &format!("\n[exit code {}]", exit.unwrap_or_default()),
    }
    text
}

/// A number, or the `reward` of a JSON object (the mean of its numbers, where it has none of that
/// name).
fn reward(text: &str) -> Option<f64> {
    let value: Value = serde_json::from_str(text).ok()?;
    let number = match &value {
        Value::Object(map) if map.contains_key("reward") => map["reward"].as_f64()?,
        Value::Object(map) => {
            let all: Option<Vec<f64>> = map.values().map(Value::as_f64).collect();
            let all = all.filter(|all| !all.is_empty())?;
            all.iter().sum::<f64>() / all.len() as f64
        }
        other => other.as_f64()?,
    };
    number.is_finite().then_some(number)
}

impl Environment for HarborEnvironment {
    fn start(&mut self) -> BoxFuture<'_, Result<Opening, EnvironmentError>> {
        self.began = Instant::now();
        let opening = Opening::new(Message::user(self.task.instruction()));
        std::future::ready(Ok(opening.with_tools(vec![Self::tool()]))).boxed()
    }

    fn act<'a>(&'a mut self, action: Action<'a>) -> BoxFuture<'a, Result<Step, EnvironmentError>> {
        async move {
            let reply = action.reply;
            let late = |seconds| self.began.elapsed().as_secs_f64() > seconds;
            let silent = reply.calls.is_empty() && reply.malformed.is_empty();
            if silent || self.task.agent_seconds().is_some_and(late) {
                return Ok(Step::done(self.end().await?));
            }
            let most = action.left.tool_calls.unwrap_or(usize::MAX).min(CALLS_A_TURN);
            let mut answers = Vec::new();
            for (index, call) in reply.calls.iter().enumerate() {
                let text = match call.function.name.as_str() {
                    _ if index >= most => format!("Error: not run: at most {most} calls."),
                    "bash" => self.bash(&call.function.arguments).await?,
                    _ => "Error: there is no such tool.".to_owned(),
                };
                answers.push(told(call, text));
            }
            answers.extend(reply.malformed.iter().map(|malformed| {
                let text = format!("Error: the call cannot be read: {}", malformed.reason);
                Message::new(Role::Tool, text)
            }));
            Ok(Step::Next { observation: answers.into(), reward: 0.0 })
        }
        .boxed()
    }

    /// What was done until then counts.
    fn cut(&mut self, _: &EpisodeEnd) -> BoxFuture<'_, Result<f64, EnvironmentError>> {
        self.end().boxed()
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        BTreeMap::from([
            ("commands".to_owned(), self.commands as f64),
            ("failed_commands".to_owned(), self.failed as f64),
            ("resolved".to_owned(), f64::from(u8::from(self.reward == Some(1.0)))),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reward_is_a_number_or_an_objects() {
        assert_eq!(reward("1"), Some(1.0));
        assert_eq!(reward("0.25"), Some(0.25));
        assert_eq!(reward(r#"{"reward": 0.5, "lint": 1}"#), Some(0.5));
        assert_eq!(reward(r#"{"build": 1, "lint": 0}"#), Some(0.5));
        for none in ["", "passed", "[1]", "{}", r#"{"reward": "much"}"#] {
            assert_eq!(reward(none), None, "{none}");
        }
    }
}
