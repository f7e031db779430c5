//! Pieces of a streamed answer, and the whole that they make.

use std::sync::Arc;

use serde_json::Value;

use crate::client::exchange::{Exchange, ReadExchange};
use crate::client::{Events, JsonClient};
use crate::openai::wire::{logprobs, reasoning, reported, unexpected, usage};
use crate::{ChatError, ChatResponse, FinishReason, TokenLogprob, ToolCall, Usage};

/// What ends a stream.
const DONE: &str = "[DONE]";

/// A piece of an answer: what came in one event.
///
/// ```
/// assert!(posttrain_chat::openai::ChatDelta::default().text.is_empty());
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ChatDelta {
    /// More of the text.
    pub text: String,
    /// More of what the model thinks before it answers.
    pub reasoning: String,
    /// More of why it refuses.
    pub refusal: String,
    /// More of the calls of tools.
    pub tool_calls: Vec<ToolCallDelta>,
    /// The new tokens' log-probabilities, where they were asked for and the server gives them.
    pub logprobs: Vec<TokenLogprob>,
    /// How the answer ended, in its last piece.
    pub finish_reason: Option<FinishReason>,
    /// Tokens used, in the last piece of all.
    pub usage: Option<Usage>,
    /// The model that answers, in the server's word.
    pub model: String,
}

impl ChatDelta {
    /// The piece with every text of the server's changed.
    pub(crate) fn map_texts(self, change: &dyn Fn(&str) -> String) -> Self {
        let change_call = |call: ToolCallDelta| ToolCallDelta {
            id: call.id.as_deref().map(change),
            name: change(&call.name),
            arguments: change(&call.arguments),
            ..call
        };

        Self {
            text: change(&self.text),
            reasoning: change(&self.reasoning),
            refusal: change(&self.refusal),
            tool_calls: self.tool_calls.into_iter().map(change_call).collect(),
            model: change(&self.model),
            ..self
        }
    }
}

/// A piece of a call of a tool.
///
/// ```
/// assert_eq!(posttrain_chat::openai::ToolCallDelta::default().index, 0);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolCallDelta {
    /// Which of the answer's calls it belongs to.
    pub index: usize,
    /// The call's id, in its first piece.
    pub id: Option<String>,
    /// The function's name, in its first piece.
    pub name: String,
    /// More of the arguments' text.
    pub arguments: String,
}

/// An answer that grows.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    whole: ChatDelta,
    ended: bool,
}

impl Gathered {
    /// The next piece; nothing at the end, which only counts as one once the answer is complete.
    pub(crate) async fn next(
        &mut self,
        events: &mut Events,
        http: &JsonClient,
    ) -> Option<Result<ChatDelta, ChatError>> {
        if self.ended {
            return None;
        }
        let piece = match events.next().await {
            Some(Ok(data)) if data.trim() == DONE => {
                self.ended = true;
                events.finish().await;
                return None;
            }
            Some(Ok(data)) => {
                read_piece(&data, events.endpoint(), http).map_err(|error| events.fail(error))
            }
            Some(Err(error)) => Err(error),
            None if self.whole.finish_reason.is_some() => {
                self.ended = true;
                return None;
            }
            None => {
                let cut = ChatError::CutStream { endpoint: events.endpoint() };
                Err(events.fail(cut))
            }
        };
        self.ended = piece.is_err();
        Some(piece)
    }

    pub(crate) fn add(&mut self, piece: ChatDelta) {
        self.whole.text.push_str(&piece.text);
        self.whole.reasoning.push_str(&piece.reasoning);
        self.whole.refusal.push_str(&piece.refusal);
        self.whole.logprobs.extend(piece.logprobs);
        for call in piece.tool_calls {
            self.add_call(call);
        }
        self.note(piece.finish_reason, piece.usage);
        if !piece.model.is_empty() {
            self.whole.model = piece.model;
        }
    }

    fn add_call(&mut self, piece: ToolCallDelta) {
        let calls = &mut self.whole.tool_calls;
        match calls.iter_mut().find(|call| call.index == piece.index) {
            None => calls.push(piece),
            Some(call) => {
                call.id = call.id.take().or(piece.id);
                call.name.push_str(&piece.name);
                call.arguments.push_str(&piece.arguments);
            }
        }
    }

    /// Remembers what decides about the end.
    fn note(&mut self, finish_reason: Option<FinishReason>, usage: Option<Usage>) {
        self.whole.finish_reason = finish_reason.or(self.whole.finish_reason);
        self.whole.usage = usage.or(self.whole.usage);
    }

    pub(crate) fn finish(self) -> ChatResponse {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        ChatResponse {
            text: self.whole.text,
            reasoning: some(self.whole.reasoning),
            refusal: some(self.whole.refusal),
            tool_calls: self.whole.tool_calls.into_iter().map(ToolCallDelta::into_call).collect(),
            finish_reason: self.whole.finish_reason.unwrap_or(FinishReason::Other),
            usage: self.whole.usage.unwrap_or_default(),
            logprobs: Some(self.whole.logprobs).filter(|logprobs| !logprobs.is_empty()),
            model: self.whole.model,
        }
    }
}

impl ToolCallDelta {
    fn read(piece: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();

        Self {
            index: piece["index"]
                .as_u64()
                .and_then(|index| usize::try_from(index).ok())
                .unwrap_or_default(),
            id: piece["id"].as_str().map(str::to_owned),
            name: text(&piece["function"]["name"]),
            arguments: text(&piece["function"]["arguments"]),
        }
    }

    fn into_call(self) -> ToolCall {
        let call = ToolCall::new("", self.name, Value::String(self.arguments));

        ToolCall { id: self.id, ..call }
    }
}

/// Reads a streamed answer to its end.
pub(crate) struct Gather {
    pub http: JsonClient,
}

impl ReadExchange for Gather {
    type Output = ChatResponse;

    async fn read(&self, exchange: Exchange) -> Result<ChatResponse, ChatError> {
        let (mut events, mut gathered) = (Events::new(exchange, None), Gathered::default());
        while let Some(piece) = gathered.next(&mut events, &self.http).await {
            gathered.add(piece?);
        }
        Ok(gathered.finish())
    }
}

/// The pieces of a stream that its caller owns; keeps no text.
pub(crate) struct DeltaReader {
    events: Events,
    http: JsonClient,
    seen: Gathered,
}

impl DeltaReader {
    pub(crate) fn new(events: Events, http: JsonClient) -> Self {
        Self { events, http, seen: Gathered::default() }
    }

    pub(crate) async fn next(&mut self) -> Option<Result<ChatDelta, ChatError>> {
        let piece = self.seen.next(&mut self.events, &self.http).await?;
        if let Ok(piece) = &piece {
            self.seen.note(piece.finish_reason, piece.usage);
        }
        Some(piece)
    }
}

fn read_piece(data: &str, endpoint: String, http: &JsonClient) -> Result<ChatDelta, ChatError> {
    let event: Value = serde_json::from_str(data).map_err(|source| ChatError::InvalidJson {
        endpoint: endpoint.clone(),
        body: http.excerpt(data),
        source: Arc::new(source),
    })?;
    if let Some(error) = reported(&event, http, || endpoint.clone()) {
        return Err(error);
    }
    if !event.is_object() {
        return Err(unexpected(endpoint, "event", &event, http));
    }
    // The last event has the usage and no choice.
    let choice = &event["choices"][0];
    let text = |field: &str| choice["delta"][field].as_str().unwrap_or_default().to_owned();
    Ok(ChatDelta {
        text: text("content"),
        reasoning: reasoning(&choice["delta"]).unwrap_or_default().to_owned(),
        refusal: text("refusal"),
        tool_calls: choice["delta"]["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
            .map(ToolCallDelta::read)
            .collect(),
        logprobs: logprobs(&choice["logprobs"]).unwrap_or_default(),
        finish_reason: choice["finish_reason"].as_str().map(FinishReason::from_word),
        usage: usage(&event),
        model: event["model"].as_str().unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{ChatDelta, Gathered, ToolCallDelta};
    use crate::ToolCall;

    #[test]
    fn calls_are_put_together_from_their_pieces() {
        let pieces = [
            json!({"index": 0, "id": "c1", "function": {"name": "add", "arguments": ""}}),
            json!({"index": 1, "id": "c2", "function": {"name": "now", "arguments": "{}"}}),
            json!({"index": 0, "function": {"arguments": "{\"a\":"}}),
            json!({"index": 0, "function": {"arguments": "2}"}}),
        ];
        let mut gathered = Gathered::default();
        for piece in &pieces {
            gathered.add(ChatDelta {
                tool_calls: vec![ToolCallDelta::read(piece)],
                ..ChatDelta::default()
            });
        }
        let calls = [
            ToolCall::new("c1", "add", json!("{\"a\":2}")),
            ToolCall::new("c2", "now", json!("{}")),
        ];
        assert_eq!(gathered.finish().tool_calls, calls);
    }
}
