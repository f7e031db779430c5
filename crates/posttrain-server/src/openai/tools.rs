//! Calls of tools in what a model wrote, as OpenAI's clients read them.

use posttrain_chat::{ToolCall, ToolFormat};
use serde_json::{Value, json};

/// A completion taken apart: what is said, and which tools are called.
#[derive(Debug, PartialEq)]
pub(crate) struct Spoken {
    pub content: String,
    pub calls: Vec<Value>,
}

/// Finds calls in a completion. What is no call stays text, word for word.
pub(crate) fn spoken(text: &str) -> Spoken {
    let reply = ToolFormat::Hermes.parse(text);
    Spoken { content: reply.content, calls: reply.calls.iter().map(call).collect() }
}

/// A call with an id of its own, and its arguments as a text.
fn call(call: &ToolCall) -> Value {
    let id = format!("call_{}", uuid::Uuid::new_v4().simple());
    let call = ToolCall { id: Some(id), ..call.with_arguments_as_text() };
    json!(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_an_id_and_its_arguments_as_a_text() {
        let text = "So: <tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 1}}</tool_call>";
        let Spoken { content, calls } = spoken(text);
        assert_eq!((content.as_str(), calls.len()), ("So:", 1));
        assert!(calls[0]["id"].as_str().unwrap().starts_with("call_"));
        assert_eq!(calls[0]["type"], "function");
        assert_eq!(calls[0]["function"], json!({"name": "add", "arguments": "{\"a\":1}"}));

        for plain in ["no call", "<tool_call>not json</tool_call> after"] {
            assert_eq!(spoken(plain), Spoken { content: plain.into(), calls: vec![] });
        }
    }
}
