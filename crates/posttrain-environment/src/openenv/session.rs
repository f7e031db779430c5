//! A session on a server: what is sent, what is said, and somebody who listens meanwhile.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use posttrain_chat::Tool;
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::{ADDRESS, OpenEnvConfig};
use crate::EnvironmentError;
use crate::tools::cut;

/// The most that a server may say at once; what a policy reads of it is less
/// ([`OpenEnvConfig::observation_bytes`]).
const MESSAGE_BYTES: usize = 16 << 20;

/// How long until a server that has no session free is asked again.
const FULL: Duration = Duration::from_millis(200);

/// A server's environment, as long as it is connected. Dropped, it hangs up.
pub(super) struct Session {
    to: mpsc::Sender<String>,
    from: mpsc::Receiver<Result<String, String>>,
}

/// Messages that wait on either side.
const WAITING: usize = 4;

/// Carries messages between a session and its socket, until either end is gone. It listens all the
/// time: a server whose pings are not answered while a turn is sampled would hang up.
async fn carry(
    mut socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    mut from_session: mpsc::Receiver<String>,
    to_session: mpsc::Sender<Result<String, String>>,
) {
    loop {
        let received = tokio::select! {
            text = from_session.recv() => {
                let Some(text) = text else {
                    drop(socket.close(None).await);
                    return;
                };
                // A server that is full says so and hangs up: what it said is read all the same.
                drop(socket.send(tungstenite::Message::text(text)).await);
                continue;
            },
            received = socket.next() => received,
        };
        let told = match received {
            Some(Ok(tungstenite::Message::Text(text))) => Ok(text.as_str().to_owned()),
            Some(Ok(tungstenite::Message::Close(_))) | None => Err("it has hung up".to_owned()),
            Some(Err(error)) => Err(told_of(&error)),
            // The socket answers pings itself, as long as somebody listens.
            Some(Ok(_)) => continue,
        };
        let over = told.is_err();
        if to_session.send(told).await.is_err() || over {
            return;
        }
    }
}

/// What a server says.
pub(super) enum Answer {
    Observation(Seen),
    Error { code: String, message: String },
}

/// What a server shows.
pub(super) struct Seen {
    pub observation: Map<String, Value>,
    pub reward: f64,
    pub done: bool,
}

impl Session {
    /// Ends it, so that the server has it free for another.
    pub async fn close(self) {
        // A server that is gone has ended it.
        drop(self.to.send(json!({ "type": "close" }).to_string()).await);
    }

    /// A session that has been reset, once the server has one free.
    pub async fn begin(
        config: &OpenEnvConfig,
        reset: &Value,
    ) -> Result<(Self, Seen), EnvironmentError> {
        loop {
            let mut session = Self::open(config).await?;
            match session.ask(config, reset).await? {
                Answer::Observation(seen) => return Ok((session, seen)),
                Answer::Error { code, .. } if code == "CAPACITY_REACHED" => {
                    tokio::time::sleep(FULL).await;
                }
                Answer::Error { code, message } => {
                    return Err(config.failed(format!("reset: {code}: {message}")));
                }
            }
        }
    }

    async fn open(config: &OpenEnvConfig) -> Result<Self, EnvironmentError> {
        let Some(url) = config.socket_url() else {
            return Err(config.failed(format!("expected {ADDRESS}")));
        };
        let limits = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES))
            .max_frame_size(Some(MESSAGE_BYTES));
        // An address's key may stand in the error's text: what is told is of which kind it is.
        let (socket, _) = connect_async_with_config(url, Some(limits), true)
            .await
            .map_err(|error| config.failed(told_of(&error)))?;
        let (to, from_session) = mpsc::channel(WAITING);
        let (to_session, from) = mpsc::channel(WAITING);
        tokio::spawn(carry(socket, from_session, to_session));
        Ok(Self { to, from })
    }

    /// Sends a message, and waits for its answer: as long as the player lets it.
    pub async fn ask(
        &mut self,
        config: &OpenEnvConfig,
        message: &Value,
    ) -> Result<Answer, EnvironmentError> {
        // Where nobody takes it any more, what was said last tells why.
        drop(self.to.send(message.to_string()).await);
        match self.from.recv().await {
            Some(Ok(text)) => answer(config, &text),
            Some(Err(reason)) => Err(config.failed(reason)),
            None => Err(config.failed("it has hung up")),
        }
    }

    pub async fn tools(&mut self, config: &OpenEnvConfig) -> Result<Vec<Tool>, EnvironmentError> {
        let list = json!({ "type": "step", "data": { "type": "list_tools" } });
        let seen = match self.ask(config, &list).await? {
            Answer::Observation(seen) => seen.observation,
            Answer::Error { code, message } => {
                return Err(config.failed(format!("list_tools: {code}: {message}")));
            }
        };
        let Some(tools) = seen.get("tools").and_then(Value::as_array) else {
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
    let message: Value = serde_json::from_str(text)
        .map_err(|error| config.failed(format!("expected JSON, got {error}")))?;
    let Value::Object(mut message) = message else {
        return Err(config.failed("expected an object"));
    };
    let Some(Value::Object(mut data)) = message.remove("data") else {
        return Err(config.failed("expected `data` to be an object"));
    };
    let field = |name: &str| data.get(name).unwrap_or(&Value::Null);
    match message.get("type").and_then(Value::as_str) {
        Some("observation") => {
            let reward = match field("reward") {
                Value::Null => 0.0,
                Value::Bool(reward) => f64::from(u8::from(*reward)),
                other => other.as_f64().ok_or_else(|| {
                    let got = cut(other.to_string(), 200);
                    config.failed(format!("expected a number as `reward`, got {got}"))
                })?,
            };
            let done = match field("done") {
                Value::Null => false,
                Value::Bool(done) => *done,
                other => {
                    let got = cut(other.to_string(), 200);
                    return Err(
                        config.failed(format!("expected `done` to be true or false, got {got}"))
                    );
                }
            };
            let Some(Value::Object(observation)) = data.remove("observation") else {
                return Err(config.failed("expected `observation` to be an object"));
            };
            Ok(Answer::Observation(Seen { observation, reward, done }))
        }
        Some("error") => {
            let code = cut(field("code").as_str().unwrap_or("ERROR").to_owned(), 100);
            let said = field("message").as_str().unwrap_or_default();
            // Pydantic tells which fields are wrong.
            let errors = field("errors").as_array().into_iter().flatten();
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
fn told_of(error: &tungstenite::Error) -> String {
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

#[cfg(test)]
mod tests {
    use super::super::OpenEnvAction;
    use super::*;

    #[test]
    fn an_answer_is_an_observation_or_an_error_in_words() {
        let config = OpenEnvConfig {
            url: "http://host".into(),
            action: OpenEnvAction::Json {},
            observation: None,
            instructions: None,
            reset: Map::new(),
            connect_seconds: 1.0,
            observation_bytes: 10,
        };
        let text = r#"{"type": "observation", "data": {"observation": {"x": 1}, "reward": true, "done": false}}"#;
        let Ok(Answer::Observation(seen)) = answer(&config, text) else { panic!() };
        assert_eq!((seen.reward, seen.done, seen.observation["x"].as_i64()), (1.0, false, Some(1)));
        let text = r#"{"type": "error", "data": {"message": "Invalid message", "code": "VALIDATION_ERROR",
                       "errors": [{"loc": ["value"], "msg": "Input should be a valid integer"}]}}"#;
        let Ok(Answer::Error { code, message }) = answer(&config, text) else { panic!() };
        assert_eq!(code, "VALIDATION_ERROR");
        assert_eq!(message, "Invalid message; \"value\": Input should be a valid integer");
        for wrong in
            ["", "[]", "7", r#"{"type": "state", "data": {}}"#, r#"{"type": "error", "data": []}"#]
        {
            assert!(answer(&config, wrong).is_err(), "{wrong}");
        }
        for data in [
            r#"{"observation": {}, "reward": "much"}"#,
            r#"{"observation": {}, "done": "yes"}"#,
            r#"{"observation": [], "reward": 1}"#,
            "{}",
        ] {
            let text = format!(r#"{{"type": "observation", "data": {data}}}"#);
            assert!(answer(&config, &text).is_err(), "{data}");
        }
    }
}
