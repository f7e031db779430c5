//! A chat's stream of one choice, told as a message's events.

use super::{input, stop_reason, tool_use};
use serde_json::{Value, json};

/// Where a message's stream stands.
#[derive(Default)]
pub(crate) struct Events {
    begun: bool,
    /// Blocks that were begun.
    blocks: usize,
    /// Whether the last of them is a text that goes on.
    text: bool,
    /// The last chunk of the choice, which says why it ended.
    ended: Option<Value>,
}

/// An event's name and its data.
pub(crate) type Named = (&'static str, Value);

impl Events {
    /// The events that tell what a chunk of a chat tells. `prompt` is the prompt's tokens.
    pub fn of(&mut self, chunk: &Value, prompt: usize) -> Vec<Named> {
        if let Some(error) = chunk.get("error") {
            let error = json!({ "type": "api_error", "message": error["message"] });
            return vec![named("error", json!({ "error": error }))];
        }
        let mut events = Vec::new();
        if !self.begun {
            self.begun = true;
            let message = json!({
                "id": chunk["id"], "type": "message", "role": "assistant", "model": chunk["model"],
                "content": [], "stop_reason": null, "stop_sequence": null,
                "usage": { "input_tokens": prompt, "output_tokens": 0 },
            });
            events.push(named("message_start", json!({ "message": message })));
        }
        if let Some(choice) = chunk["choices"].get(0) {
            self.choice(choice, &mut events);
        }
        if let (Some(usage), Some(ended)) = (chunk.get("usage"), &self.ended) {
            let delta =
                json!({ "stop_reason": stop_reason(ended), "stop_sequence": ended["stop_reason"] });
            let usage = json!({ "output_tokens": usage["completion_tokens"] });
            events.push(named("message_delta", json!({ "delta": delta, "usage": usage })));
            events.push(named("message_stop", json!({})));
        }
        events
    }

    fn choice(&mut self, choice: &Value, events: &mut Vec<Named>) {
        let delta = &choice["delta"];
        match delta["content"].as_str() {
            Some(text) if !text.is_empty() => {
                if !self.text {
                    self.start(&json!({ "type": "text", "text": "" }), events);
                    self.text = true;
                }
                self.delta(&json!({ "type": "text_delta", "text": text }), events);
            }
            _ => {}
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            self.stop(events);
            self.start(&tool_use(call, &json!({})), events);
            let json = input(call).to_string();
            self.delta(&json!({ "type": "input_json_delta", "partial_json": json }), events);
            events.push(named("content_block_stop", json!({ "index": self.blocks - 1 })));
        }
        if !choice["finish_reason"].is_null() {
            self.stop(events);
            self.ended = Some(choice.clone());
        }
    }

    fn start(&mut self, block: &Value, events: &mut Vec<Named>) {
        let data = json!({ "index": self.blocks, "content_block": block });
        events.push(named("content_block_start", data));
        self.blocks += 1;
    }

    fn delta(&self, delta: &Value, events: &mut Vec<Named>) {
        events.push(named(
            "content_block_delta",
            json!({ "index": self.blocks - 1, "delta": delta }),
        ));
    }

    /// Ends a text, if one goes on.
    fn stop(&mut self, events: &mut Vec<Named>) {
        if std::mem::take(&mut self.text) {
            events.push(named("content_block_stop", json!({ "index": self.blocks - 1 })));
        }
    }
}

/// An event, whose data have its name as well.
fn named(name: &'static str, mut data: Value) -> Named {
    data["type"] = json!(name);
    (name, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_blocks_that_begin_go_on_and_end() {
        let chunk = |delta: Value, reason: Value| {
            let choice = json!({ "index": 0, "delta": delta, "finish_reason": reason });
            json!({ "id": "msg_1", "model": "m", "choices": [choice] })
        };
        let call = json!({ "id": "c1", "function": { "name": "add", "arguments": "{\"a\":2}" } });
        let chunks = [
            chunk(json!({ "role": "assistant", "content": "" }), Value::Null),
            chunk(json!({ "content": "So" }), Value::Null),
            chunk(json!({ "content": ":" }), Value::Null),
            chunk(json!({ "tool_calls": [call] }), Value::Null),
            chunk(json!({}), json!("tool_calls")),
            json!({ "choices": [], "usage": { "completion_tokens": 7 } }),
        ];
        let mut events = Events::default();
        let all: Vec<Named> = chunks.iter().flat_map(|chunk| events.of(chunk, 5)).collect();
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            [
                "message_start",
                "content_block_start",
                "content_block_delta",
                "content_block_delta",
                "content_block_stop",
                "content_block_start",
                "content_block_delta",
                "content_block_stop",
                "message_delta",
                "message_stop",
            ]
        );
        assert_eq!(all[0].1["message"]["usage"]["input_tokens"], 5);
        assert_eq!((&all[3].1["index"], &all[3].1["delta"]["text"]), (&json!(0), &json!(":")));
        assert_eq!(
            (&all[6].1["index"], &all[6].1["delta"]["partial_json"]),
            (&json!(1), &json!("{\"a\":2}"))
        );
        assert_eq!(all[8].1["delta"]["stop_reason"], "tool_use");
        assert_eq!(all[8].1["usage"]["output_tokens"], 7);
    }
}
