//! Calls of tools in what a model wrote: `<tool_call>` with a JSON object, as the templates of
//! Qwen, Hermes and SmolLM3 teach it.

use serde_json::{Value, json};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// A completion taken apart: what is said, and which tools are called.
#[derive(Debug, PartialEq)]
pub(crate) struct Spoken {
    pub content: String,
    pub calls: Vec<Value>,
}

/// Finds calls in a completion. What is no call stays text, word for word.
pub(crate) fn spoken(text: &str) -> Spoken {
    let mut content = String::new();
    let mut calls = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(OPEN) {
        let (before, block) = rest.split_at(start);
        let inner = &block[OPEN.len()..];
        let (body, after) = inner.split_once(CLOSE).unwrap_or((inner, ""));
        content.push_str(before);
        if let Some(call) = call(body) {
            calls.push(call);
        } else {
            content.push_str(&block[..block.len() - after.len()]);
        }
        rest = after;
    }
    content.push_str(rest);
    if !calls.is_empty() {
        content = content.trim().to_owned();
    }
    Spoken { content, calls }
}

fn call(body: &str) -> Option<Value> {
    let body: Value = serde_json::from_str(body.trim()).ok()?;
    let name = body.get("name")?.as_str()?;
    let arguments = body.get("arguments").or_else(|| body.get("parameters"))?;
    // OpenAI has them as a text.
    let arguments = match arguments {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Some(json!({
        "id": format!("call_{}", uuid::Uuid::new_v4().simple()),
        "type": "function",
        "function": { "name": name, "arguments": arguments },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> (String, Vec<String>) {
        let spoken = spoken(text);
        let name = |call: &Value| {
            format!(
                "{}({})",
                call["function"]["name"].as_str().unwrap(),
                call["function"]["arguments"].as_str().unwrap()
            )
        };
        (spoken.content, spoken.calls.iter().map(name).collect())
    }

    #[test]
    fn calls_are_found_and_everything_else_stays_text() {
        let one = "Let me see.\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>";
        assert_eq!(names(one), ("Let me see.".into(), vec!["add({\"a\":1})".into()]));
        let two = "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call><tool_call>{\"name\":\"g\",\"arguments\":\"{}\"}";
        assert_eq!(names(two), (String::new(), vec!["f({})".into(), "g({})".into()]));
        for plain in [
            "no call",
            "<tool_call>not json</tool_call> after",
            "<tool_call>{\"name\": 1}</tool_call>",
        ] {
            assert_eq!(names(plain), (plain.to_owned(), vec![]));
        }
    }
}
