//! How a model writes its calls of tools, by the family of its template.

use serde::{Deserialize, Serialize};
use serde_json::{Deserializer, Value, json};

use crate::{Tool, ToolCall};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const PYTHON_TAG: &str = "<|python_tag|>";

/// The form in which a model calls tools.
///
/// ```
/// use posttrain_chat::ToolFormat;
///
/// let reply = ToolFormat::Hermes.parse(
///     "Let me see.\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 2, \"b\": 2}}\n</tool_call>",
/// );
/// assert_eq!((reply.content.as_str(), reply.calls[0].function.name.as_str()), ("Let me see.", "add"));
///
/// // What looks like a call and is none is told with its reason.
/// let reply = ToolFormat::Hermes.parse("<tool_call>{\"name\": \"add\"</tool_call>");
/// assert!(reply.calls.is_empty() && reply.malformed[0].reason.contains("JSON"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ToolFormat {
    /// `<tool_call>` around a JSON object, any number of times: Hermes, Qwen 2.5 and 3, SmolLM3.
    #[default]
    Hermes,
    /// The reply is a JSON object with `name` and `parameters`, or several with `;` between them,
    /// behind `<|python_tag|>` or not: Llama 3.1 and later.
    Llama3,
    /// The reply is a JSON object with `name` and `arguments`, or a list of such, in a fence or
    /// not: what models are asked for that were not trained on tools.
    Json,
}

/// A reply taken apart: what it says, and which tools it calls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolReply {
    /// The text around the calls; where there are none, all of it. A malformed call stays in it,
    /// word for word.
    pub content: String,
    /// The calls, in their order, without an id.
    pub calls: Vec<ToolCall>,
    /// What looks like a call and is none.
    pub malformed: Vec<MalformedCall>,
}

/// What looks like a call of a tool and is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MalformedCall {
    /// How it is written.
    pub text: String,
    /// What is wrong with it, for the model to read.
    pub reason: String,
}

impl ToolFormat {
    /// Takes a reply apart.
    #[must_use]
    pub fn parse(self, reply: &str) -> ToolReply {
        match self {
            Self::Hermes => parse_hermes(reply),
            Self::Llama3 => parse_llama3(reply),
            Self::Json => parse_json(reply),
        }
    }

    /// Writes calls as a model would: what a scripted demonstration is made of.
    ///
    /// ```
    /// use posttrain_chat::{ToolCall, ToolFormat};
    ///
    /// let call = ToolCall::new("", "add", serde_json::json!({"a": 2}));
    /// let text = ToolFormat::Hermes.write(&[call]);
    /// assert_eq!(text, "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\":2}}\n</tool_call>");
    /// assert_eq!(ToolFormat::Hermes.parse(&text).calls[0].function.arguments["a"], 2);
    /// ```
    #[must_use]
    pub fn write(self, calls: &[ToolCall]) -> String {
        let key = if self == Self::Llama3 { "parameters" } else { "arguments" };
        let written: Vec<String> = calls
            .iter()
            .map(|call| {
                let name = Value::from(call.function.name.as_str());
                format!("{{\"name\": {name}, \"{key}\": {}}}", call.function.arguments)
            })
            .collect();

        match self {
            Self::Hermes => {
                let tagged: Vec<String> =
                    written.iter().map(|call| format!("{OPEN}\n{call}\n{CLOSE}")).collect();
                tagged.join("\n")
            }
            Self::Llama3 => written.join("; "),
            Self::Json if written.len() == 1 => written.concat(),
            Self::Json => format!("[{}]", written.join(", ")),
        }
    }

    /// What tells a model of its tools where its template does not: for a system message.
    ///
    /// ```
    /// use posttrain_chat::{Tool, ToolFormat};
    ///
    /// let tool = Tool::new("now", "Tells the time.", serde_json::json!({"type": "object", "properties": {}}));
    /// let told = ToolFormat::Hermes.instructions(&[tool]);
    /// assert!(told.contains("<tool_call>") && told.contains("\"name\":\"now\""));
    /// ```
    #[must_use]
    pub fn instructions(self, tools: &[Tool]) -> String {
        let example = ToolCall::new("", "NAME", json!({ "ARGUMENT": "VALUE" }));
        let mut text = format!("To call a tool, write:\n{}\nTools:", self.write(&[example]));
        for tool in tools {
            let function = json!({
                "name": tool.function.name,
                "description": tool.function.description,
                "parameters": tool.function.parameters,
            });
            text += &format!("\n{function}");
        }
        text
    }
}

fn parse_hermes(text: &str) -> ToolReply {
    let mut reply = ToolReply::default();
    let mut rest = text;
    while let Some((before, inner)) = rest.split_once(OPEN) {
        let (body, after, closed) = match inner.split_once(CLOSE) {
            Some((body, after)) => (body, after, true),
            None => (inner, "", false),
        };
        reply.content.push_str(before);

        match serde_json::from_str(body.trim()).map_err(no_json).and_then(|value| call(&value)) {
            Ok(call) => reply.calls.push(call),
            Err(reason) => {
                let close = if closed { CLOSE } else { "" };
                let text = format!("{OPEN}{body}{close}");
                reply.content.push_str(&text);
                reply.malformed.push(MalformedCall { text, reason });
            }
        }
        rest = after;
    }
    reply.content.push_str(rest);
    trimmed(reply)
}

fn parse_llama3(text: &str) -> ToolReply {
    let tagged = text.trim().strip_prefix(PYTHON_TAG);
    let body = tagged.unwrap_or(text).trim();
    if tagged.is_none() && !body.starts_with('{') {
        return said(text);
    }

    let mut reply = ToolReply::default();
    let mut rest = body;
    while !rest.is_empty() {
        let mut values = Deserializer::from_str(rest).into_iter::<Value>();
        let next = values.next();
        let end = values.byte_offset();
        match next.unwrap_or(Ok(Value::Null)).map_err(no_json).and_then(|value| call(&value)) {
            Ok(call) => reply.calls.push(call),
            // An object that names no function is an answer.
            Err(_) if tagged.is_none() && !body.contains("\"name\"") => return said(text),
            Err(reason) => {
                reply.content.push_str(rest);
                reply.malformed.push(MalformedCall { text: rest.to_owned(), reason });
                break;
            }
        }
        rest = rest[end..].trim_start_matches(|c: char| c == ';' || c.is_whitespace());
    }
    reply
}

fn parse_json(text: &str) -> ToolReply {
    let trimmed = text.trim();
    let fenced = trimmed.strip_prefix("```").and_then(|inner| inner.strip_suffix("```"));
    let body = fenced.map_or(trimmed, |inner| inner.strip_prefix("json").unwrap_or(inner)).trim();
    if !body.starts_with(['{', '[']) || !body.contains("\"name\"") {
        return said(text);
    }

    let calls = serde_json::from_str(body).map_err(no_json).and_then(|value| match value {
        Value::Array(values) => values.iter().map(call).collect(),
        value => Ok(vec![call(&value)?]),
    });
    match calls {
        Ok(calls) => ToolReply { calls, ..ToolReply::default() },
        Err(reason) => {
            let malformed = vec![MalformedCall { text: body.to_owned(), reason }];
            ToolReply { malformed, ..said(text) }
        }
    }
}

/// A reply that calls nothing.
fn said(text: &str) -> ToolReply {
    ToolReply { content: text.to_owned(), ..ToolReply::default() }
}

fn trimmed(mut reply: ToolReply) -> ToolReply {
    if !reply.calls.is_empty() {
        reply.content = reply.content.trim().to_owned();
    }
    reply
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn no_json(error: serde_json::Error) -> String {
    format!("it is no JSON: {error}")
}

/// A call from its JSON; why it is none, in words.
fn call(value: &Value) -> Result<ToolCall, String> {
    let fields = value.as_object().ok_or("it is no JSON object")?;
    let name = fields.get("name").and_then(Value::as_str).ok_or("it has no `name`, a text")?;

    let arguments = fields.get("arguments").or_else(|| fields.get("parameters"));
    let arguments = match arguments.ok_or("it has no `arguments`, an object")? {
        // Some models write the object as a text.
        Value::String(text) => serde_json::from_str(text).unwrap_or(Value::Null),
        value => value.clone(),
    };
    if !arguments.is_object() {
        return Err("its `arguments` are no JSON object".into());
    }

    let known = ["name", "arguments", "parameters", "id", "type"];
    match fields.keys().find(|key| !known.contains(&key.as_str())) {
        Some(unknown) => Err(format!("it has a field `{unknown}` beside `name` and `arguments`")),
        None => Ok(ToolCall { id: None, ..ToolCall::new("", name, arguments) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(format: ToolFormat, text: &str) -> (String, Vec<String>, usize) {
        let reply = format.parse(text);
        let calls = reply
            .calls
            .iter()
            .map(|call| format!("{}({})", call.function.name, call.function.arguments));
        (reply.content, calls.collect(), reply.malformed.len())
    }

    #[test]
    fn hermes_calls_are_found_and_everything_else_stays_text() {
        let two = "a <tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call> b\n<tool_call>{\"name\":\"g\",\"arguments\":\"{}\"}";
        assert_eq!(
            told(ToolFormat::Hermes, two),
            ("a  b".into(), vec!["f({})".into(), "g({})".into()], 0)
        );

        let malformed = [
            "<tool_call>not json</tool_call> after",
            "<tool_call>{\"name\": 1, \"arguments\": {}}</tool_call>",
            "<tool_call>{\"name\": \"f\"}</tool_call>",
            "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>",
            "<tool_call>{\"name\": \"f\", \"arguments\": {}, \"then\": 1}</tool_call>",
            "<tool_call>",
            "<tool_call>{\"name\": \"f\", \"arguments\": {}} {}</tool_call>",
        ];
        for text in malformed {
            assert_eq!(told(ToolFormat::Hermes, text), (text.to_owned(), vec![], 1), "{text}");
        }
        assert_eq!(told(ToolFormat::Hermes, "no call"), ("no call".into(), vec![], 0));
    }

    #[test]
    fn llama_writes_objects_one_after_another() {
        let one = "{\"name\": \"f\", \"parameters\": {\"a\": 1}}";
        assert_eq!(told(ToolFormat::Llama3, one).1, ["f({\"a\":1})"]);
        let two = format!("<|python_tag|>{one}; {one}");
        assert_eq!(told(ToolFormat::Llama3, &two).1.len(), 2);

        assert_eq!(told(ToolFormat::Llama3, "Hello {x}."), ("Hello {x}.".into(), vec![], 0));
        assert_eq!(
            told(ToolFormat::Llama3, "{\"answer\": 4}"),
            ("{\"answer\": 4}".into(), vec![], 0)
        );
        let broken = format!("{one}; {{\"name\": \"f\"");
        assert_eq!(told(ToolFormat::Llama3, &broken).2, 1);
        assert_eq!(told(ToolFormat::Llama3, "<|python_tag|>print(1)").2, 1);
    }

    #[test]
    fn plain_json_is_a_call_if_it_names_a_function() {
        let one = "{\"name\": \"f\", \"arguments\": {\"a\": 1}}";
        for text in [one.to_owned(), format!("```json\n{one}\n```"), format!("[{one}]")] {
            assert_eq!(
                told(ToolFormat::Json, &text),
                (String::new(), vec!["f({\"a\":1})".into()], 0)
            );
        }
        assert_eq!(told(ToolFormat::Json, "{\"answer\": 4}").1, Vec::<String>::new());
        assert_eq!(told(ToolFormat::Json, "{\"name\": \"f\"").2, 1);
    }

    #[test]
    fn what_is_written_is_read() {
        let calls = [
            ToolCall { id: None, ..ToolCall::new("", "f", json!({"a": "</tool>\n\"é"})) },
            ToolCall { id: None, ..ToolCall::new("", "g", json!({})) },
        ];
        for format in [ToolFormat::Hermes, ToolFormat::Llama3, ToolFormat::Json] {
            for calls in [&calls[..1], &calls[..]] {
                assert_eq!(format.parse(&format.write(calls)).calls, calls, "{format:?}");
            }
        }
    }

    #[test]
    fn depth_and_length_are_bounded() {
        for format in [ToolFormat::Hermes, ToolFormat::Llama3, ToolFormat::Json] {
            let deep = format!("{{\"name\": {}", "[".repeat(200_000));
            let deep = if format == ToolFormat::Hermes { format!("{OPEN}{deep}") } else { deep };
            assert_eq!(format.parse(&deep).malformed.len(), 1);
        }
        let many = OPEN.repeat(50_000);
        assert_eq!(ToolFormat::Hermes.parse(&many).malformed.len(), 1);
    }
}
