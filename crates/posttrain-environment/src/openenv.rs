//! Environments of OpenEnv servers: one session a WebSocket, as its own client opens them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::{FutureExt, SinkExt, StreamExt};
use posttrain_chat::{Message, Role, Tool, ToolCall};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::tools::cut;
use crate::{Action, Environment, EnvironmentError, EpisodeError, Observation, Opening, Step};

/// The most that a server may say at once; what a policy reads of it is less
/// ([`OpenEnvConfig::observation_bytes`]).
const MESSAGE_BYTES: usize = 16 << 20;

/// How long until a server that has no session free is asked again.
const FULL: Duration = Duration::from_millis(200);

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
    /// Seconds until a session must have begun, more than 0: a server that has none free is asked
    /// again until then.
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
        let expected = "an address that begins with http:// or https://";
        check("openenv.url", self.socket_url().is_some(), expected, self.place().to_owned())?;
        let seconds = self.connect_seconds;
        let span = Duration::try_from_secs_f64(seconds).is_ok_and(|span| !span.is_zero());
        let expected = "a finite number above 0";
        check("openenv.connect_seconds", span, expected, seconds.to_string())?;
        let bytes = self.observation_bytes;
        check("openenv.observation_bytes", bytes > 0, "at least 1", bytes.to_string())
    }

    /// Where sessions are opened.
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
        (!path.is_empty()).then(|| format!("{socket}://{path}/ws{query}"))
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
    steps: usize,
    refused: usize,
}

impl OpenEnv {
    /// An episode of a task: `seed` and what `task` says go with `reset`, which takes of them what
    /// the server's environment has parameters for.
    #[must_use]
    pub fn new(config: OpenEnvConfig, seed: u64, task: Map<String, Value>) -> Self {
        Self { config, seed, task, session: None, steps: 0, refused: 0 }
    }

    async fn open(&mut self) -> Result<Opening, EnvironmentError> {
        let mut data = self.config.reset.clone();
        data.extend(self.task.clone());
        // Servers are written in languages whose generators take 32 bits.
        data.entry("seed").or_insert_with(|| (self.seed >> 33).into());
        let reset = json!({ "type": "reset", "data": data });

        let began = Instant::now();
        let (session, seen) = loop {
            let mut session = Session::open(&self.config).await?;
            match session.ask(&self.config, &reset).await? {
                Answer::Observation(seen) => break (session, seen),
                Answer::Error { code, .. }
                    if code == "CAPACITY_REACHED"
                        && began.elapsed().as_secs_f64() < self.config.connect_seconds =>
                {
                    tokio::time::sleep(FULL).await;
                }
                Answer::Error { code, message } => {
                    return Err(self.config.failed(format!("reset: {code}: {message}")));
                }
            }
        };
        let session = self.session.insert(session);
        let tools = match self.config.action {
            OpenEnvAction::Tools {} => session.tools(&self.config).await?,
            _ => Vec::new(),
        };

        let mut messages: Vec<Message> =
            self.config.instructions.iter().map(Message::system).collect();
        messages.push(Message::user(self.text(&seen.observation)));
        Ok(Opening::new(messages).with_tools(tools))
    }

    async fn step(&mut self, turn: Action<'_>) -> Result<Step, EnvironmentError> {
        let actions = match &self.config.action {
            OpenEnvAction::Text { field } => vec![json!({ field.as_str(): turn.text })],
            OpenEnvAction::Json {} => match object(turn.text) {
                Some(action) => vec![action],
                None => return Ok(self.refuse("Error: write a JSON object.")),
            },
            OpenEnvAction::Tools {} => {
                if let Some(malformed) = turn.reply.malformed.first() {
                    let reason = format!("Error: the call cannot be read: {}", malformed.reason);
                    return Ok(self.refuse(&reason));
                }
                turn.reply.calls.iter().map(call_action).collect()
            }
        };
        if actions.is_empty() {
            self.close().await;
            return Ok(Step::done(0.0));
        }

        let role = match self.config.action {
            OpenEnvAction::Tools {} => Role::Tool,
            _ => Role::User,
        };
        let mut reward = 0.0;
        let mut answers = Vec::with_capacity(actions.len());
        for action in actions {
            let Some(session) = self.session.as_mut() else {
                return Err(self.config.failed("no session is open"));
            };
            self.steps += 1;
            match session.ask(&self.config, &json!({ "type": "step", "data": action })).await? {
                Answer::Observation(seen) => {
                    reward += seen.reward;
                    if seen.done {
                        self.close().await;
                        return Ok(Step::done(reward));
                    }
                    answers.push(Message::new(role, self.text(&seen.observation)));
                }
                // What the server's schema does not take is the policy's to read.
                Answer::Error { code, message } if code == "VALIDATION_ERROR" => {
                    self.refused += 1;
                    answers.push(Message::new(role, format!("Error: {message}")));
                }
                Answer::Error { code, message } => {
                    return Err(self.config.failed(format!("step: {code}: {message}")));
                }
            }
        }
        Ok(Step::Next { observation: Observation::Messages(answers), reward })
    }

    fn refuse(&mut self, reason: &str) -> Step {
        self.refused += 1;
        Step::next(Message::user(reason))
    }

    /// What the policy reads of an observation.
    fn text(&self, observation: &Value) -> String {
        let shown = match &self.config.observation {
            Some(field) => &observation[field.as_str()],
            None => observation,
        };
        let text = match shown {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        cut(text, self.config.observation_bytes)
    }

    /// Ends the session, so that the server has it free for another.
    async fn close(&mut self) {
        if let Some(mut session) = self.session.take() {
            let text = json!({ "type": "close" }).to_string();
            // A server that is gone has ended it.
            drop(session.socket.send(tungstenite::Message::text(text)).await);
            drop(session.socket.close(None).await);
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

/// A server's environment, as long as it is connected.
struct Session {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// What a server says.
enum Answer {
    Observation(Seen),
    Error { code: String, message: String },
}

/// What a server shows.
struct Seen {
    observation: Value,
    reward: f64,
    done: bool,
}

impl Session {
    async fn open(config: &OpenEnvConfig) -> Result<Self, EnvironmentError> {
        let Some(url) = config.socket_url() else {
            return Err(config.failed("expected an address that begins with http:// or https://"));
        };
        let limits = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES))
            .max_frame_size(Some(MESSAGE_BYTES));
        let span = Duration::try_from_secs_f64(config.connect_seconds).unwrap_or(Duration::MAX);
        let connecting = connect_async_with_config(url, Some(limits), true);
        let connected = tokio::time::timeout(span, connecting).await;
        let late = |_| config.failed(format!("no connection within {} s", config.connect_seconds));
        // An address's key may stand in the error's text: what is told is of which kind it is.
        let (socket, _) = connected.map_err(late)?.map_err(|error| config.failed(told(&error)))?;
        Ok(Self { socket })
    }

    /// Sends a message, and waits for its answer: as long as the player lets it.
    async fn ask(
        &mut self,
        config: &OpenEnvConfig,
        message: &Value,
    ) -> Result<Answer, EnvironmentError> {
        let text = tungstenite::Message::text(message.to_string());
        // A server that is full says so and hangs up: what it said is read all the same.
        let sent = self.socket.send(text).await;
        loop {
            let received = match self.socket.next().await {
                Some(Ok(received)) => received,
                Some(Err(error)) => return Err(config.failed(told(&error))),
                None => return Err(config.failed("it has hung up")),
            };
            return match received {
                tungstenite::Message::Text(text) => answer(config, &text),
                tungstenite::Message::Close(_) => Err(match sent {
                    Ok(()) => config.failed("it has hung up"),
                    Err(error) => config.failed(told(&error)),
                }),
                // Pings are answered by the socket itself.
                _ => continue,
            };
        }
    }

    async fn tools(&mut self, config: &OpenEnvConfig) -> Result<Vec<Tool>, EnvironmentError> {
        let list = json!({ "type": "step", "data": { "type": "list_tools" } });
        let seen = match self.ask(config, &list).await? {
            Answer::Observation(seen) => seen.observation,
            Answer::Error { code, message } => {
                return Err(config.failed(format!("list_tools: {code}: {message}")));
            }
        };
        let Some(tools) = seen["tools"].as_array() else {
            return Err(config.failed("list_tools: expected `tools` in the observation"));
        };
        let tool = |tool: &Value| {
            let name = tool["name"].as_str()?;
            let description = tool["description"].as_str().unwrap_or_default();
            let schema = tool.get("input_schema").or_else(|| tool.get("inputSchema")).cloned();
            Some(Tool::new(name, description, schema.unwrap_or_else(|| json!({"type": "object"}))))
        };
        let named: Option<Vec<Tool>> = tools.iter().map(tool).collect();
        named.ok_or_else(|| config.failed("list_tools: expected each of `tools` to have a name"))
    }
}

fn answer(config: &OpenEnvConfig, text: &str) -> Result<Answer, EnvironmentError> {
    let mut value: Value = serde_json::from_str(text)
        .map_err(|error| config.failed(format!("expected JSON, got {error}")))?;
    let mut data = value["data"].take();
    match value["type"].as_str() {
        Some("observation") => {
            let reward = match &data["reward"] {
                Value::Null => 0.0,
                Value::Bool(reward) => f64::from(u8::from(*reward)),
                other => other.as_f64().ok_or_else(|| {
                    config.failed(format!("expected a number as `reward`, got {other}"))
                })?,
            };
            let done = data["done"].as_bool().unwrap_or(false);
            Ok(Answer::Observation(Seen { observation: data["observation"].take(), reward, done }))
        }
        Some("error") => {
            let code = data["code"].as_str().unwrap_or("ERROR").to_owned();
            let said = data["message"].as_str().unwrap_or_default();
            // Pydantic tells which fields are wrong.
            let errors = data["errors"].as_array().into_iter().flatten();
            let fields = errors.filter_map(|error| {
                let place = error["loc"].as_array()?.iter();
                let place: Vec<String> = place.map(|part| part.to_string()).collect();
                Some(format!("; {}: {}", place.join("."), error["msg"].as_str()?))
            });
            let message = cut(said.to_owned() + &fields.collect::<String>(), 2048);
            Ok(Answer::Error { code, message })
        }
        _ => Err(config.failed("expected `type` to be \"observation\" or \"error\"")),
    }
}

/// Errors of the connection, without its address.
fn told(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Io(error) => error.to_string(),
        tungstenite::Error::Http(response) => format!("it answers {}", response.status()),
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            "it has hung up".to_owned()
        }
        tungstenite::Error::Capacity(error) => error.to_string(),
        tungstenite::Error::Protocol(error) => error.to_string(),
        tungstenite::Error::Tls(error) => error.to_string(),
        _ => "no WebSocket can be opened there".to_owned(),
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
        assert!(config("ftp://host").validate().is_err());
    }

    #[test]
    fn an_address_keeps_its_key_to_itself() {
        let config = config("https://user:secret@host/env?key=secret");
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

    #[test]
    fn an_answer_is_an_observation_or_an_error_in_words() {
        let config = config("http://host");
        let text = r#"{"type": "observation", "data": {"observation": {"x": 1}, "reward": true, "done": false}}"#;
        let Ok(Answer::Observation(seen)) = answer(&config, text) else { panic!() };
        assert_eq!((seen.reward, seen.done, seen.observation["x"].as_i64()), (1.0, false, Some(1)));
        let text = r#"{"type": "error", "data": {"message": "Invalid message", "code": "VALIDATION_ERROR",
                       "errors": [{"loc": ["value"], "msg": "Input should be a valid integer"}]}}"#;
        let Ok(Answer::Error { code, message }) = answer(&config, text) else { panic!() };
        assert_eq!(code, "VALIDATION_ERROR");
        assert_eq!(message, "Invalid message; \"value\": Input should be a valid integer");
        for wrong in ["", "[]", r#"{"type": "state"}"#] {
            assert!(answer(&config, wrong).is_err(), "{wrong}");
        }
        let text = r#"{"type": "observation", "data": {"reward": "much"}}"#;
        assert!(answer(&config, text).is_err());
    }
}
