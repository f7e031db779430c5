//! Environments of OpenEnv servers: one session a WebSocket, as its own client opens them.

mod session;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use posttrain_chat::{Message, Role, ToolCall};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::tools::{cut, told};
use crate::{Action, Environment, EnvironmentError, EpisodeError, Observation, Opening, Step};
use session::{Answer, Session};

/// What an address is.
const ADDRESS: &str =
    "an address that begins with http:// or https://, without a user or a fragment";

/// Calls of one turn that are made; those behind are refused.
const CALLS_A_TURN: usize = 8;

/// An OpenEnv server, and what its actions and observations are to a policy. What its address says
/// beyond where it is (keys, for one) is not shown by `Debug`, nor in any error.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenEnvConfig {
    /// Its address, such as `http://127.0.0.1:8000`.
    pub url: String,
    /// What becomes of a turn.
    pub action: OpenEnvAction,
    /// The observation's field that the policy reads; all of them, as JSON, where it is left out.
    #[serde(default)]
    pub observation: Option<String>,
    /// A system message before the first observation.
    #[serde(default)]
    pub instructions: Option<String>,
    /// What is sent with `reset`, beside the episode's seed and its task's metadata.
    #[serde(default)]
    pub reset: Map<String, Value>,
    /// Seconds until a session must have begun and been reset, more than 0: a server that has none
    /// free is asked again until then.
    #[serde(default = "connect_seconds")]
    pub connect_seconds: f64,
    /// Bytes of an observation that the policy reads, 1 and up: what is longer is cut, and says so.
    #[serde(default = "observation_bytes")]
    pub observation_bytes: usize,
}

fn connect_seconds() -> f64 {
    60.0
}

fn observation_bytes() -> usize {
    8192
}

/// How a turn becomes an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum OpenEnvAction {
    /// The turn's text is a field of the action: `{"message": "…"}`.
    Text {
        /// The field.
        field: String,
    },
    /// The turn is a JSON object, in a fence or not: the action itself.
    Json {},
    /// The server's tools are offered to the policy, and each call of one is an action
    /// (`call_tool`): for servers that are built on MCP. A turn that calls none ends the episode.
    Tools {},
}

impl OpenEnvConfig {
    /// Checks every field's range.
    ///
    /// # Errors
    /// [`EpisodeError::Config`] names the first field that is out of range.
    pub fn validate(&self) -> Result<(), EpisodeError> {
        let check = |field, ok: bool, expected, got: String| match ok {
            true => Ok(()),
            false => Err(EpisodeError::Config { field, expected, got }),
        };
        let expected = ADDRESS;
        check("openenv.url", self.socket_url().is_some(), expected, self.place().to_owned())?;
        let seconds = self.connect_seconds;
        let span = Duration::try_from_secs_f64(seconds).is_ok_and(|span| !span.is_zero());
        let expected = "a finite number above 0";
        check("openenv.connect_seconds", span, expected, seconds.to_string())?;
        let bytes = self.observation_bytes;
        check("openenv.observation_bytes", bytes > 0, "at least 1", bytes.to_string())
    }

    /// Where sessions are opened; nothing where the address is none that can be spoken to.
    fn socket_url(&self) -> Option<String> {
        let (scheme, rest) = self.url.split_once("://")?;
        let socket = match scheme {
            "http" | "ws" => "ws",
            "https" | "wss" => "wss",
            _ => return None,
        };
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, format!("?{query}")),
            None => (rest, String::new()),
        };
        let path = path.trim_end_matches('/');
        // Names and passwords would not be sent.
        let plain = !path.is_empty() && !path.contains('@') && !rest.contains('#');
        plain.then(|| format!("{socket}://{path}/ws{query}"))
    }

    /// Where it is, for people: behind a question mark, or before an at sign, there may be a key.
    fn place(&self) -> &str {
        let url = self.url.split(['?', '#']).next().unwrap_or_default();
        url.rsplit_once('@').map_or(url, |(_, host)| host)
    }

    fn failed(&self, reason: impl fmt::Display) -> EnvironmentError {
        EnvironmentError::Failed { reason: format!("OpenEnv server {}: {reason}", self.place()) }
    }
}

impl fmt::Debug for OpenEnvConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenEnvConfig")
            .field("url", &self.place())
            .field("action", &self.action)
            .field("observation", &self.observation)
            .field("reset", &self.reset.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// One episode on an OpenEnv server. Its reward is what the server says, turn by turn; none is 0.
///
/// What the server does not take for an action (its schema says what it takes) the policy reads as
/// an error. A server that is gone, says what nobody understands, or fails within a step is no zero:
/// the episode has no reward.
///
/// ```no_run
/// use posttrain_environment::openenv::{OpenEnv, OpenEnvAction, OpenEnvConfig};
///
/// let config: OpenEnvConfig = serde_json::from_str(
///     r#"{"url": "http://127.0.0.1:8000", "action": {"kind": "text", "field": "message"}, "observation": "echoed"}"#,
/// )?;
/// config.validate()?;
/// let environment = OpenEnv::new(config, 7, Default::default());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct OpenEnv {
    config: OpenEnvConfig,
    seed: u64,
    task: Map<String, Value>,
    session: Option<Session>,
    /// What the server gave for the reset alone: the first turn's.
    owed: f64,
    steps: usize,
    refused: usize,
}

impl OpenEnv {
    /// An episode of a task: `seed` and what `task` says go with `reset`, which takes of them what
    /// the server's environment has parameters for.
    #[must_use]
    pub fn new(config: OpenEnvConfig, seed: u64, task: Map<String, Value>) -> Self {
        Self { config, seed, task, session: None, owed: 0.0, steps: 0, refused: 0 }
    }

    async fn open(&mut self) -> Result<Opening, EnvironmentError> {
        let mut data = self.config.reset.clone();
        data.extend(self.task.clone());
        // Servers are written in languages whose generators take 32 bits.
        data.entry("seed").or_insert_with(|| (self.seed >> 33).into());
        let reset = json!({ "type": "reset", "data": data });

        let seconds = self.config.connect_seconds;
        let span = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let begun = tokio::time::timeout(span, Session::begin(&self.config, &reset)).await;
        let late = |_| Err(self.config.failed(format!("no session within {seconds} s")));
        let (mut session, seen) = begun.unwrap_or_else(late)?;
        if seen.done {
            return Err(self.config.failed("its episode is over with the reset"));
        }
        self.owed = seen.reward;
        let tools = match self.config.action {
            OpenEnvAction::Tools {} => session.tools(&self.config).await?,
            _ => Vec::new(),
        };
        self.session = Some(session);

        let mut messages: Vec<Message> =
            self.config.instructions.iter().map(Message::system).collect();
        messages.push(Message::user(self.text(&seen.observation)?));
        Ok(Opening::new(messages).with_tools(tools))
    }

    async fn step(&mut self, turn: Action<'_>) -> Result<Step, EnvironmentError> {
        let mut reward = std::mem::take(&mut self.owed);
        let mut answers = Vec::new();
        match self.config.action.clone() {
            OpenEnvAction::Text { field } => {
                let action = json!({ field: turn.text });
                match self.act_once(&action, &mut reward).await? {
                    Some(text) => answers.push(Message::user(text)),
                    None => return Ok(Step::done(reward)),
                }
            }
            OpenEnvAction::Json {} => {
                let Some(action) = object(turn.text) else {
                    let observation = self.refuse("Error: write a JSON object.").into();
                    return Ok(Step::Next { observation, reward });
                };
                match self.act_once(&action, &mut reward).await? {
                    Some(text) => answers.push(Message::user(text)),
                    None => return Ok(Step::done(reward)),
                }
            }
            OpenEnvAction::Tools {} => {
                let reply = turn.reply;
                if reply.calls.is_empty() && reply.malformed.is_empty() {
                    self.close().await;
                    return Ok(Step::done(reward));
                }
                let most = turn.left.tool_calls.unwrap_or(usize::MAX).min(CALLS_A_TURN);
                for (index, call) in reply.calls.iter().enumerate() {
                    if index >= most {
                        self.refused += 1;
                        let text = format!("Error: not called: at most {most} calls.");
                        answers.push(told(call, text));
                        continue;
                    }
                    match self.act_once(&call_action(call), &mut reward).await? {
                        Some(text) => answers.push(told(call, text)),
                        None => return Ok(Step::done(reward)),
                    }
                }
                for malformed in &reply.malformed {
                    let reason = format!("Error: the call cannot be read: {}", malformed.reason);
                    let said = self.refuse(&reason);
                    answers.push(Message { role: Role::Tool, ..said });
                }
            }
        }
        Ok(Step::Next { observation: Observation::Messages(answers), reward })
    }

    /// One action: what the policy reads of it, or nothing where the episode is over with it.
    async fn act_once(
        &mut self,
        action: &Value,
        reward: &mut f64,
    ) -> Result<Option<String>, EnvironmentError> {
        let Some(session) = self.session.as_mut() else {
            return Err(self.config.failed("no session is open"));
        };
        self.steps += 1;
        match session.ask(&self.config, &json!({ "type": "step", "data": action })).await? {
            Answer::Observation(seen) => {
                *reward += seen.reward;
                if seen.done {
                    self.close().await;
                    return Ok(None);
                }
                self.text(&seen.observation).map(Some)
            }
            // What the server's schema does not take is the policy's to read.
            Answer::Error { code, message } if code == "VALIDATION_ERROR" => {
                self.refused += 1;
                Ok(Some(format!("Error: {message}")))
            }
            Answer::Error { code, message } => {
                Err(self.config.failed(format!("step: {code}: {message}")))
            }
        }
    }

    fn refuse(&mut self, reason: &str) -> Message {
        self.refused += 1;
        Message::user(reason)
    }

    /// What the policy reads of an observation.
    fn text(&self, observation: &Map<String, Value>) -> Result<String, EnvironmentError> {
        let text = match &self.config.observation {
            None => Value::Object(observation.clone()).to_string(),
            Some(field) => match observation.get(field) {
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => {
                    let known: Vec<&str> = observation.keys().map(String::as_str).collect();
                    let known = known.join(", ");
                    let reason = format!("`observation`: expected one of {known}, got `{field}`");
                    return Err(self.config.failed(reason));
                }
            },
        };
        Ok(cut(text, self.config.observation_bytes))
    }

    /// Ends the session, so that the server has it free for another.
    async fn close(&mut self) {
        if let Some(session) = self.session.take() {
            session.close().await;
        }
    }
}

impl Environment for OpenEnv {
    fn start(&mut self) -> BoxFuture<'_, Result<Opening, EnvironmentError>> {
        self.open().boxed()
    }

    fn act<'a>(&'a mut self, action: Action<'a>) -> BoxFuture<'a, Result<Step, EnvironmentError>> {
        self.step(action).boxed()
    }

    fn cut(&mut self, _: &crate::EpisodeEnd) -> BoxFuture<'_, Result<f64, EnvironmentError>> {
        async {
            self.close().await;
            Ok(0.0)
        }
        .boxed()
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        BTreeMap::from([
            ("steps".to_owned(), self.steps as f64),
            ("refused".to_owned(), self.refused as f64),
        ])
    }
}

/// The JSON object that a text is, in a fence or not.
fn object(text: &str) -> Option<Value> {
    let text = text.trim();
    let inner = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    let inner = inner.map_or(text, |inner| inner.trim_start_matches("json"));
    serde_json::from_str(inner.trim()).ok().filter(Value::is_object)
}

fn call_action(call: &ToolCall) -> Value {
    json!({
        "type": "call_tool",
        "tool_name": call.function.name,
        "arguments": call.function.arguments,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> OpenEnvConfig {
        OpenEnvConfig {
            url: url.into(),
            action: OpenEnvAction::Json {},
            observation: None,
            instructions: None,
            reset: Map::new(),
            connect_seconds: 1.0,
            observation_bytes: 10,
        }
    }

    #[test]
    fn a_sessions_address_is_the_servers() {
        let socket = |url: &str| config(url).socket_url();
        assert_eq!(socket("http://host:8000/").as_deref(), Some("ws://host:8000/ws"));
        assert_eq!(socket("https://host/env?key=1").as_deref(), Some("wss://host/env/ws?key=1"));
        assert_eq!(socket("host:8000"), None);
        for url in ["ftp://host", "http://", "http://user:key@host", "http://host/#x"] {
            assert!(config(url).validate().is_err(), "{url}");
        }
    }

    #[test]
    fn an_address_keeps_its_key_to_itself() {
        let config = config("https://host/env?key=secret");
        let error = config.failed("it has hung up").to_string();
        assert!(error.contains("host/env") && !error.contains("secret"), "{error}");
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn a_turn_is_an_object_in_a_fence_or_not() {
        assert_eq!(object("```json\n{\"a\": 1}\n```"), Some(json!({"a": 1})));
        assert_eq!(object(" {\"a\": 1} "), Some(json!({"a": 1})));
        assert_eq!((object("[1]"), object("a")), (None, None));
    }
}
