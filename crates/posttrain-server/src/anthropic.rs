//! Anthropic's Messages API, `/v1/messages`: its requests as those of a chat, and a chat's answers as
//! its own.
//!
//! What both protocols have is translated word for word; what only Anthropic's has (images, documents,
//! thinking, tools of its servers) is refused by its field. `cache_control` changes nothing here: what
//! conversations begin with is kept for all of them.

mod events;

use crate::app::App;
use crate::gateway::Episode;
use crate::keys::Owner;
use crate::openai::{ChatRequest, Dialect, answer};
use crate::refusal::Refusal;
use crate::request::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::de::{self, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use std::fmt;
use std::sync::Arc;

pub(crate) use events::Events;

/// A request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessagesRequest {
    model: String,
    max_tokens: usize,
    messages: Vec<Turn>,
    #[serde(default)]
    system: Option<Content>,
    #[serde(default)]
    tools: Option<Vec<Map<String, Value>>>,
    #[serde(default)]
    tool_choice: Option<ToolChoice>,
    #[serde(default)]
    temperature: Option<f64>,
    #[serde(default)]
    top_p: Option<f64>,
    #[serde(default)]
    top_k: Option<i64>,
    #[serde(default)]
    stop_sequences: Option<Vec<String>>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    metadata: Option<Metadata>,
    #[serde(default)]
    thinking: Option<Thinking>,
    #[serde(default)]
    thread: Option<IgnoredAny>,
    #[serde(default, rename = "cache_control")]
    _cache_control: IgnoredAny,
    /// There is one tier.
    #[serde(default, rename = "service_tier")]
    _service_tier: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    role: Speaker,
    content: Content,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Speaker {
    System,
    User,
    Assistant,
}

/// A text, or blocks.
#[derive(Default)]
struct Content(Vec<Block>);

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Block {
    Text {
        text: String,
        #[serde(default, rename = "cache_control")]
        _cache_control: IgnoredAny,
        /// Of documents, which nobody can give here.
        #[serde(default)]
        citations: Option<IgnoredAny>,
    },
    ToolUse {
        id: String,
        name: String,
        input: Map<String, Value>,
        #[serde(default)]
        caller: Option<IgnoredAny>,
        #[serde(default)]
        toolset_name: Option<IgnoredAny>,
        #[serde(default, rename = "cache_control")]
        _cache_control: IgnoredAny,
    },
    ToolResult {
        tool_use_id: String,
        #[serde(default)]
        content: Content,
        #[serde(default)]
        is_error: Option<bool>,
        #[serde(default)]
        caller: Option<IgnoredAny>,
        #[serde(default)]
        toolset_name: Option<IgnoredAny>,
        #[serde(default, rename = "cache_control")]
        _cache_control: IgnoredAny,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolSpec {
    #[serde(default, rename = "type")]
    _kind: IgnoredAny,
    name: String,
    #[serde(default)]
    description: Option<String>,
    input_schema: Value,
    #[serde(default, rename = "cache_control")]
    _cache_control: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolChoice {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    disable_parallel_tool_use: Option<bool>,
    /// The tool's, of a kind that is refused.
    #[serde(default, rename = "name")]
    _name: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    #[serde(default)]
    user_id: Option<String>,
}

#[derive(Deserialize)]
struct Thinking {
    #[serde(rename = "type")]
    kind: String,
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfContent;

        impl<'de> Visitor<'de> for OfContent {
            type Value = Content;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a text or a list of blocks")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content::of(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Content, A::Error> {
                let mut blocks = Vec::new();
                while let Some(block) = list.next_element()? {
                    blocks.push(block);
                }
                Ok(Content(blocks))
            }
        }
        deserializer.deserialize_any(OfContent)
    }
}

impl Content {
    fn of(text: &str) -> Self {
        Self(vec![Block::Text { text: text.into(), _cache_control: IgnoredAny, citations: None }])
    }

    /// The text of blocks that may be nothing else.
    fn text(&self, field: &str) -> Result<String, Refusal> {
        let texts = self.0.iter().map(|block| match block {
            Block::Text { text, .. } => Ok(text.as_str()),
            _ => Err(Refusal::field(field, "blocks of text", "another block")),
        });
        Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
    }
}

impl Block {
    /// The field that a block has and this server does not: a tool was called by something else than
    /// the model, or a document was cited.
    fn foreign(&self) -> Option<&'static str> {
        match self {
            Self::Text { citations, .. } => citations.as_ref().map(|_| "citations"),
            Self::ToolUse { caller, toolset_name, .. }
            | Self::ToolResult { caller, toolset_name, .. } => {
                let caller = caller.as_ref().map(|_| "caller");
                caller.or(toolset_name.as_ref().map(|_| "toolset_name"))
            }
        }
    }
}

impl Turn {
    /// The messages of a chat that say the same.
    fn messages(&self, index: usize) -> Result<Vec<Value>, Refusal> {
        let field = format!("messages[{index}].content");
        if self.role == Speaker::System {
            return Ok(vec![json!({ "role": "system", "content": self.content.text(&field)? })]);
        }
        let (mut said, mut calls, mut results) = (Vec::new(), Vec::new(), Vec::new());
        for block in &self.content.0 {
            if let Some(name) = block.foreign() {
                let expected = format!("no `{name}`: this server does not have it");
                return Err(Refusal::field(&field, &expected, "one"));
            }
            match (self.role, block) {
                (_, Block::Text { text, .. }) => said.push(text.as_str()),
                (Speaker::Assistant, Block::ToolUse { id, name, input, .. }) => {
                    let function = json!({ "name": name, "arguments": input });
                    calls.push(json!({ "id": id, "type": "function", "function": function }));
                }
                (Speaker::User, Block::ToolResult { tool_use_id, content, is_error, .. }) => {
                    let text = content.text(&field)?;
                    let text =
                        if *is_error == Some(true) { format!("Error: {text}") } else { text };
                    results.push(
                        json!({ "role": "tool", "tool_call_id": tool_use_id, "content": text }),
                    );
                }
                (Speaker::User | Speaker::System, _) => {
                    return Err(Refusal::field(&field, "text and results of tools", "tool_use"));
                }
                (Speaker::Assistant, _) => {
                    return Err(Refusal::field(&field, "text and uses of tools", "tool_result"));
                }
            }
        }

        if self.role == Speaker::Assistant {
            let mut message = json!({ "role": "assistant", "content": said.concat() });
            if !calls.is_empty() {
                message["tool_calls"] = Value::Array(calls);
            }
            return Ok(vec![message]);
        }
        if !said.is_empty() || results.is_empty() {
            results.push(json!({ "role": "user", "content": said.join("\n") }));
        }
        Ok(results)
    }
}

impl MessagesRequest {
    /// The same as a chat's request.
    fn chat(self) -> Result<ChatRequest, Refusal> {
        if let Some(thinking) = self.thinking.filter(|thinking| thinking.kind != "disabled") {
            let expected = "disabled: this server's models think aloud or not at all";
            return Err(Refusal::field("thinking.type", expected, thinking.kind));
        }
        if self.messages.last().is_some_and(|last| last.role == Speaker::Assistant) {
            let field = format!("messages[{}].role", self.messages.len() - 1);
            let expected = "user at the end: the beginning of an answer is not taken from a client";
            return Err(Refusal::field(&field, expected, "assistant"));
        }
        let mut messages = Vec::new();
        let system = self.system.as_ref().map(|system| system.text("system")).transpose()?;
        if let Some(system) = system.filter(|system| !system.is_empty()) {
            messages.push(json!({ "role": "system", "content": system }));
        }
        for (index, turn) in self.messages.iter().enumerate() {
            messages.extend(turn.messages(index)?);
        }

        let mut tools = Vec::new();
        for (index, tool) in self.tools.into_iter().flatten().enumerate() {
            let kind = tool.get("type").and_then(Value::as_str).unwrap_or("custom");
            if kind != "custom" {
                let expected = "custom: this server runs no tools of its own";
                return Err(Refusal::field(&format!("tools[{index}].type"), expected, kind));
            }
            let tool: ToolSpec = serde_json::from_value(tool.into())
                .map_err(|error| Refusal::invalid(format!("`tools[{index}]`: {error}")))?;
            let (name, description) = (tool.name, tool.description.unwrap_or_default());
            let function = json!({ "name": name, "description": description, "parameters": tool.input_schema });
            tools.push(json!({ "type": "function", "function": function }));
        }

        let mut chat = json!({
            "model": self.model,
            "messages": messages,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "stop": self.stop_sequences.filter(|stops| !stops.is_empty()),
            "stream": self.stream,
            "stream_options": { "include_usage": true },
            "user": self.metadata.and_then(|metadata| metadata.user_id),
        });
        if !tools.is_empty() {
            chat["tools"] = Value::Array(tools);
        }
        if let Some(choice) = self.tool_choice {
            chat["tool_choice"] = json!(choice.kind);
            if choice.disable_parallel_tool_use == Some(true) {
                chat["parallel_tool_calls"] = json!(false);
            }
        }
        serde_json::from_value(chat).map_err(|error| Refusal::invalid(error.to_string()))
    }
}

pub(crate) async fn messages(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<MessagesRequest>,
) -> Result<Response, Refusal> {
    say(&app, &owner, request, None).await
}

/// Answers a request; one of an episode as a chat's is.
pub(crate) async fn say(
    app: &Arc<App>,
    owner: &Owner,
    request: MessagesRequest,
    episode: Option<Arc<Episode>>,
) -> Result<Response, Refusal> {
    if request.thread.is_some() {
        return Ok(no_threads());
    }
    answer(app, owner, request.chat()?, episode, Dialect::Anthropic).await
}

/// That conversations are not kept here: in the words on which the client's runner of tools sends
/// whole ones instead.
fn no_threads() -> Response {
    let message = "`thread`: expected none: this server keeps no conversations, got one";
    let details = json!({ "error_code": "thread_unsupported_request", "unsupported": ["thread"] });
    let error = json!({ "type": "invalid_request_error", "message": message, "details": details });
    let body = json!({ "type": "error", "error": error });
    (StatusCode::BAD_REQUEST, axum::Json(body)).into_response()
}

/// A chat's whole answer of one choice, told as a message.
pub(crate) fn message(answer: &Value) -> Value {
    let choice = &answer["choices"][0];
    let mut content = Vec::new();
    match choice["message"]["content"].as_str() {
        Some(text) if !text.is_empty() => content.push(json!({ "type": "text", "text": text })),
        _ => {}
    }
    let calls = choice["message"]["tool_calls"].as_array();
    content.extend(calls.into_iter().flatten().map(|call| tool_use(call, &input(call))));
    json!({
        "id": answer["id"],
        "type": "message",
        "role": "assistant",
        "model": answer["model"],
        "content": content,
        "stop_reason": stop_reason(choice),
        "stop_sequence": choice["stop_reason"],
        "usage": {
            "input_tokens": answer["usage"]["prompt_tokens"],
            "output_tokens": answer["usage"]["completion_tokens"],
        },
    })
}

/// Why a choice ended, in Anthropic's words.
fn stop_reason(choice: &Value) -> &'static str {
    match choice["finish_reason"].as_str() {
        Some("tool_calls") => "tool_use",
        Some("length") => "max_tokens",
        _ if choice["stop_reason"].is_string() => "stop_sequence",
        _ => "end_turn",
    }
}

fn tool_use(call: &Value, input: &Value) -> Value {
    json!({ "type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": input })
}

/// A call's arguments, which a chat has as a text.
fn input(call: &Value) -> Value {
    let text = call["function"]["arguments"].as_str().unwrap_or_default();
    serde_json::from_str(text).unwrap_or_else(|_| json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(request: Value) -> Result<Value, String> {
        let request: MessagesRequest =
            serde_json::from_value(request).map_err(|error| error.to_string())?;
        let chat = request.chat().map_err(|refusal| refusal.detail)?;
        Ok(Value::Array(chat.messages))
    }

    fn said(content: &Value) -> Result<Value, String> {
        chat(
            json!({ "model": "m", "max_tokens": 5, "messages": [{ "role": "user", "content": content }] }),
        )
    }

    #[test]
    fn a_conversation_with_tools_is_a_chats() {
        let read = chat(json!({
            "model": "m",
            "max_tokens": 5,
            "system": [{ "type": "text", "text": "be brief", "cache_control": { "type": "ephemeral" } }],
            "messages": [
                { "role": "user", "content": "2 + 2?" },
                { "role": "assistant", "content": [
                    { "type": "text", "text": "So:" },
                    { "type": "tool_use", "id": "c1", "name": "add", "input": { "a": 2 } },
                ] },
                { "role": "user", "content": [
                    { "type": "tool_result", "tool_use_id": "c1", "content": [{ "type": "text", "text": "4" }] },
                    { "type": "tool_result", "tool_use_id": "c2", "content": "broken", "is_error": true },
                    { "type": "text", "text": "well?" },
                ] },
            ],
        }));
        let call = json!({ "id": "c1", "type": "function", "function": { "name": "add", "arguments": { "a": 2 } } });
        let expected = json!([
            { "role": "system", "content": "be brief" },
            { "role": "user", "content": "2 + 2?" },
            { "role": "assistant", "content": "So:", "tool_calls": [call] },
            { "role": "tool", "tool_call_id": "c1", "content": "4" },
            { "role": "tool", "tool_call_id": "c2", "content": "Error: broken" },
            { "role": "user", "content": "well?" },
        ]);
        assert_eq!(read.unwrap(), expected);
    }

    #[test]
    fn what_a_chat_has_not_is_refused_by_its_name() {
        let image = json!([{ "type": "image", "source": {} }]);
        assert!(said(&image).unwrap_err().contains("image"));
        let call = json!([{ "type": "tool_use", "id": "c", "name": "n", "input": {} }]);
        assert!(said(&call).unwrap_err().contains("messages[0].content"));
        assert!(said(&json!(3)).unwrap_err().contains("a text or a list of blocks"));
        let more = |field: &str, value: Value| {
            let mut request = json!({ "model": "m", "max_tokens": 5, "messages": [] });
            request[field] = value;
            chat(request).unwrap_err()
        };
        assert!(
            more("thinking", json!({ "type": "enabled", "budget_tokens": 9 })).contains("thinking")
        );
        assert!(more("mood", json!(1)).contains("mood"));
        let search =
            json!([{ "type": "web_search_20250305", "name": "web_search", "max_uses": 5 }]);
        assert!(more("tools", search).contains("tools[0].type"));
    }

    #[test]
    fn what_clients_send_of_no_value_is_taken() {
        let read = chat(json!({
            "model": "m", "max_tokens": 5, "system": "", "tools": null, "stop_sequences": null, "stream": null,
            "thread": null, "cache_control": { "type": "ephemeral" },
            "messages": [
                { "role": "system", "content": "be brief" },
                { "role": "assistant", "content": [
                    { "type": "tool_use", "id": "c1", "name": "add", "input": {}, "caller": null, "toolset_name": null },
                ] },
                { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "c1" }] },
            ],
        }));
        let roles: Vec<Value> =
            read.unwrap().as_array().unwrap().iter().map(|said| said["role"].clone()).collect();
        assert_eq!(roles, ["system", "assistant", "tool"]);
        let begun = json!({ "model": "m", "max_tokens": 5, "messages": [{ "role": "assistant", "content": "So" }] });
        assert!(chat(begun).unwrap_err().contains("messages[0].role"));
        let cited = json!([{ "type": "text", "text": "so", "citations": [{}] }]);
        assert!(said(&cited).unwrap_err().contains("`citations`"));
    }

    #[test]
    fn an_answer_is_told_as_a_message() {
        let call = json!({ "id": "c1", "type": "function", "function": { "name": "add", "arguments": "{\"a\":2}" } });
        let choice = |message: Value, reason: &str, stop: Value| {
            message_of(&json!({ "message": message, "finish_reason": reason, "stop_reason": stop }))
        };
        fn message_of(choice: &Value) -> Value {
            message(&json!({
                "id": "msg_1", "model": "m", "choices": [choice],
                "usage": { "prompt_tokens": 3, "completion_tokens": 2 },
            }))
        }
        let called =
            choice(json!({ "content": null, "tool_calls": [call] }), "tool_calls", Value::Null);
        let expected =
            json!([{ "type": "tool_use", "id": "c1", "name": "add", "input": { "a": 2 } }]);
        assert_eq!((&called["content"], &called["stop_reason"]), (&expected, &json!("tool_use")));
        let stopped = choice(json!({ "content": "yes" }), "stop", json!("\n"));
        assert_eq!(
            (&stopped["content"][0]["text"], &stopped["stop_reason"], &stopped["stop_sequence"]),
            (&json!("yes"), &json!("stop_sequence"), &json!("\n"))
        );
        let ended = choice(json!({ "content": "" }), "stop", Value::Null);
        assert_eq!((&ended["content"], &ended["stop_reason"]), (&json!([]), &json!("end_turn")));
        assert_eq!(ended["usage"], json!({ "input_tokens": 3, "output_tokens": 2 }));
        assert_eq!(
            choice(json!({ "content": "y" }), "length", Value::Null)["stop_reason"],
            "max_tokens"
        );
    }
}
