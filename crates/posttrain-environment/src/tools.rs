//! Tools that a policy may call, and what bounds a call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jsonschema::Validator;
use posttrain_chat::{Message, Role, Tool, ToolCall, ToolReply};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::debug;

use crate::{EnvironmentError, ToolError};

/// Some tools with one home: a function, a server's, an environment's own.
///
/// Tools of an environment's own may have a state; those that are shared among episodes must bear
/// calls beside each other.
pub trait Toolkit: Send + Sync {
    /// What the policy is told of them.
    fn tools(&self) -> &[Tool];

    /// Calls the tool `name`, which is one of [`Toolkit::tools`], with arguments that fit its
    /// schema.
    ///
    /// # Errors
    /// [`ToolError::Refused`] where the policy is to blame, and reads why; else what happened.
    fn call<'a>(
        &'a self,
        name: &'a str,
        arguments: &'a Value,
    ) -> BoxFuture<'a, Result<String, ToolError>>;
}

/// A tool that is a function; [`tool_fn`] makes it.
pub struct ToolFn<F> {
    tool: [Tool; 1],
    function: F,
}

/// An async function as a tool.
///
/// ```
/// use posttrain_chat::Tool;
/// use posttrain_environment::{ToolError, Toolkit, tool_fn};
/// use serde_json::{Value, json};
///
/// let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
/// let double = tool_fn(Tool::new("double", "Doubles a number.", schema), async |arguments: Value| {
///     let a = arguments["a"].as_i64().ok_or(ToolError::refused("`a` is too large"))?;
///     Ok((2 * a).to_string())
/// });
/// let arguments = json!({"a": 21});
/// let result = futures::executor::block_on(double.call("double", &arguments))?;
/// assert_eq!(result, "42");
/// # Ok::<(), ToolError>(())
/// ```
pub fn tool_fn<F, Answer>(tool: Tool, function: F) -> ToolFn<F>
where
    F: Fn(Value) -> Answer + Send + Sync,
    Answer: Future<Output = Result<String, ToolError>> + Send + 'static,
{
    ToolFn { tool: [tool], function }
}

impl<F, Answer> Toolkit for ToolFn<F>
where
    F: Fn(Value) -> Answer + Send + Sync,
    Answer: Future<Output = Result<String, ToolError>> + Send + 'static,
{
    fn tools(&self) -> &[Tool] {
        &self.tool
    }

    fn call<'a>(
        &'a self,
        _name: &'a str,
        arguments: &'a Value,
    ) -> BoxFuture<'a, Result<String, ToolError>> {
        (self.function)(arguments.clone()).boxed()
    }
}

/// What bounds a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ToolLimits {
    /// Seconds that a call may take, more than 0.
    pub seconds: f64,
    /// Bytes of a result that the policy reads, 1 and up: what is longer is cut, and says so.
    pub result_bytes: usize,
    /// Calls of one turn that are made, 1 and up; those behind are refused.
    pub calls_a_turn: usize,
    /// What becomes of an episode one of whose tools fails.
    pub failure: ToolFailure,
}

impl Default for ToolLimits {
    /// 30 seconds, 8 KiB, 8 calls a turn; a failure is an observation.
    fn default() -> Self {
        Self { seconds: 30.0, result_bytes: 8192, calls_a_turn: 8, failure: ToolFailure::Observe }
    }
}

impl ToolLimits {
    /// Checks every field's range.
    ///
    /// # Errors
    /// [`crate::EpisodeError::Config`] names the first field that is out of range.
    pub fn validate(&self) -> Result<(), crate::EpisodeError> {
        let counts =
            [("tools.result_bytes", self.result_bytes), ("tools.calls_a_turn", self.calls_a_turn)];
        if let Some((field, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            let got = "0".into();
            return Err(crate::EpisodeError::Config { field, expected: "at least 1", got });
        }
        if self.span().is_zero() {
            return Err(crate::EpisodeError::Config {
                field: "tools.seconds",
                expected: "a finite number above 0",
                got: self.seconds.to_string(),
            });
        }
        Ok(())
    }

    fn span(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or_default()
    }
}

/// What becomes of an episode one of whose tools is gone, or hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolFailure {
    /// The policy reads that the tool failed, and goes on.
    #[default]
    Observe,
    /// The episode ends without a reward, and is not trained on: where a policy could gain by
    /// breaking a tool.
    Fail,
}

/// Toolkits together, with checked arguments and bounded calls.
///
/// ```
/// use std::sync::Arc;
/// use posttrain_chat::{Tool, ToolCall};
/// use posttrain_environment::{Tools, tool_fn};
/// use serde_json::{Value, json};
///
/// let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
/// let double = tool_fn(Tool::new("double", "Doubles a number.", schema), async |arguments: Value| {
///     Ok((2 * arguments["a"].as_i64().unwrap_or(0)).to_string())
/// });
/// let tools = Tools::new(vec![Arc::new(double)], Default::default())?;
///
/// let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
/// let call = |arguments| ToolCall::new("c1", "double", arguments);
/// let answer = runtime.block_on(tools.answer(&call(json!({"a": 21}))))?;
/// assert_eq!((answer.text().as_ref(), answer.tool_call_id.as_deref()), ("42", Some("c1")));
/// // The policy reads what it did wrong.
/// let answer = runtime.block_on(tools.answer(&call(json!({"a": "x"}))))?;
/// assert!(answer.text().starts_with("Error: /a: "));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Tools {
    kits: Vec<Arc<dyn Toolkit>>,
    by_name: BTreeMap<String, Place>,
    limits: ToolLimits,
}

/// Where a tool is, and what its arguments must be.
struct Place {
    kit: usize,
    schema: Option<Validator>,
}

impl Tools {
    /// Puts toolkits together.
    ///
    /// # Errors
    /// [`EnvironmentError::Tools`] names a tool that stands twice, or whose schema is none;
    /// [`EnvironmentError::Failed`] a limit that is out of range.
    pub fn new(kits: Vec<Arc<dyn Toolkit>>, limits: ToolLimits) -> Result<Self, EnvironmentError> {
        limits
            .validate()
            .map_err(|error| EnvironmentError::Failed { reason: error.to_string() })?;
        let mut by_name = BTreeMap::new();
        for (kit, toolkit) in kits.iter().enumerate() {
            for tool in toolkit.tools() {
                let name = tool.function.name.clone();
                let wrong = |reason: String| EnvironmentError::Tools { tool: name.clone(), reason };
                let schema = match &tool.function.parameters {
                    Some(schema) => Some(jsonschema::validator_for(schema).map_err(|error| {
                        wrong(format!("its `parameters` are no JSON schema: {error}"))
                    })?),
                    None => None,
                };
                if by_name.insert(name.clone(), Place { kit, schema }).is_some() {
                    return Err(wrong("it is offered twice".into()));
                }
            }
        }
        Ok(Self { kits, by_name, limits })
    }

    /// What the policy is told of them.
    #[must_use]
    pub fn tools(&self) -> Vec<Tool> {
        self.kits.iter().flat_map(|kit| kit.tools()).cloned().collect()
    }

    /// Makes a turn's calls, beside each other, and gives the answers in their order; calls that
    /// could not be read, and those beyond `left`, are answered with the reason.
    ///
    /// # Errors
    /// [`EnvironmentError::Tool`] where one fails and [`ToolLimits::failure`] says so.
    pub async fn answers(
        &self,
        reply: &ToolReply,
        left: Option<usize>,
    ) -> Result<Vec<Message>, EnvironmentError> {
        let most = self.limits.calls_a_turn.min(left.unwrap_or(usize::MAX));
        let (made, refused) = reply.calls.split_at(reply.calls.len().min(most));
        let mut answers =
            futures::future::try_join_all(made.iter().map(|call| self.answer(call))).await?;

        for call in refused {
            let reason = match left {
                Some(left) if left == most => format!("not called: {left} calls were left"),
                _ => format!("not called: a turn may have {most} calls"),
            };
            answers.push(told(call, format!("Error: {reason}")));
        }
        for call in &reply.malformed {
            let reason = format!("Error: the call cannot be read: {}", call.reason);
            answers.push(Message::new(Role::Tool, reason));
        }
        Ok(answers)
    }

    /// Makes one call: its answer, as a tool's message.
    ///
    /// # Errors
    /// [`EnvironmentError::Tool`] where it fails and [`ToolLimits::failure`] says so.
    pub async fn answer(&self, call: &ToolCall) -> Result<Message, EnvironmentError> {
        let result = self.result(call).await;
        let failed = matches!(result, Err(ToolError::Failed { .. } | ToolError::TimedOut { .. }));
        if let (true, ToolFailure::Fail, Err(source)) = (failed, self.limits.failure, &result) {
            let tool = call.function.name.clone();
            return Err(EnvironmentError::Tool { tool, source: source.clone() });
        }

        if let Err(error) = &result {
            debug!(tool = call.function.name, %error, "a call has no result");
        }
        let text = result.unwrap_or_else(|error| format!("Error: {error}"));
        Ok(told(call, self.cut(text)))
    }

    async fn result(&self, call: &ToolCall) -> Result<String, ToolError> {
        let name = call.function.name.as_str();
        let Some(place) = self.by_name.get(name) else {
            let known: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
            let reason = format!("there is no tool `{name}`; there are: {}", known.join(", "));
            return Err(ToolError::Refused { reason });
        };
        let arguments = &call.function.arguments;
        if let Some(schema) = &place.schema {
            check(schema, arguments)?;
        }

        // A tool of somebody else's may panic: it takes its call with it, and no other.
        let answer = async { self.kits[place.kit].call(name, arguments).await };
        let answer = std::panic::AssertUnwindSafe(answer).catch_unwind();
        match tokio::time::timeout(self.limits.span(), answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ToolError::failed("it panicked")),
            Err(_) => Err(ToolError::TimedOut { seconds: self.limits.seconds }),
        }
    }

    /// A result that is no longer than allowed.
    fn cut(&self, text: String) -> String {
        cut(text, self.limits.result_bytes)
    }
}

/// A text of at most so many bytes, which says so where it was longer.
pub(crate) fn cut(mut text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let whole = text.len();
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
    text.push_str(&format!("\n[cut: {end} of {whole} bytes]"));
    text
}

/// Arguments that do not fit are told by the first place that is wrong.
fn check(schema: &Validator, arguments: &Value) -> Result<(), ToolError> {
    let Some(error) = schema.iter_errors(arguments).next() else { return Ok(()) };
    let place = error.instance_path().to_string();
    let place = if place.is_empty() { String::new() } else { format!("{place}: ") };
    // The value that is wrong may be long.
    let reason: String = format!("{place}{error}").chars().take(300).collect();
    Err(ToolError::Refused { reason })
}

/// A tool's answer, as the message of the call that it answers.
pub(crate) fn told(call: &ToolCall, text: String) -> Message {
    let answer = Message::new(Role::Tool, text);
    let name = Some(call.function.name.clone());
    Message { tool_call_id: call.id.clone(), name, ..answer }
}
