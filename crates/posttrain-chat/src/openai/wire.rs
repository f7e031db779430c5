//! The OpenAI format: a request's body, an answer's meaning.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::client::JsonClient;
use crate::openai::{OpenAiConfig, StructuredOutput, TokenLimit, Transfer};
use crate::{
    ChatError, ChatRequest, ChatResponse, Content, FinishReason, Message, ResponseFormat,
    TokenLogprob, ToolCall, Usage,
};

/// The field that a choice is sent in where a server only knows JSON.
const CHOICE: &str = "choice";

/// The body of a request.
pub(crate) fn body(
    config: &OpenAiConfig,
    request: &ChatRequest,
    structured: StructuredOutput,
    transfer: Transfer,
) -> Value {
    let mut body = Map::new();
    let mut set = |name: &str, value: Value| body.insert(name.to_owned(), value);
    set("model", json!(config.model));
    set("messages", request.messages.iter().map(message).collect());
    if !request.tools.is_empty() {
        set("tools", json!(request.tools));
    }
    let limit = match config.token_limit {
        TokenLimit::MaxTokens => "max_tokens",
        TokenLimit::MaxCompletionTokens => "max_completion_tokens",
    };
    set(limit, json!(request.max_tokens));
    set("temperature", json!(request.temperature));
    if let Some(top_p) = request.top_p {
        set("top_p", json!(top_p));
    }
    if !request.stop.is_empty() {
        set("stop", json!(request.stop));
    }
    if let Some(seed) = request.seed {
        // Servers read it as a signed number.
        set("seed", json!(seed & (u64::MAX >> 1)));
    }
    if let Some(top) = request.logprobs {
        set("logprobs", json!(true));
        set("top_logprobs", json!(top));
    }
    if transfer == Transfer::Streamed {
        set("stream", json!(true));
        set("stream_options", json!({"include_usage": true}));
    }
    if let Some((name, value)) = constraint(&request.format, structured) {
        set(name, value);
    }
    for (name, value) in &config.extra_body {
        if value.is_null() {
            body.remove(name);
        } else {
            body.insert(name.clone(), value.clone());
        }
    }
    Value::Object(body)
}

/// A message as servers read it: calls with their arguments as text, and `null` where nothing is
/// said.
fn message(message: &Message) -> Value {
    let mut message = message.clone();
    if message.content == Content::Absent {
        message.content = Content::Null;
    }
    for call in message.tool_calls.iter_mut().flatten() {
        *call = call.with_arguments_as_text();
    }

    json!(message)
}

/// The field that demands a form.
pub(crate) fn constraint(
    format: &ResponseFormat,
    structured: StructuredOutput,
) -> Option<(&'static str, Value)> {
    use StructuredOutput::{Guided, JsonObject, JsonSchema, StructuredOutputs, Unconstrained};
    let (name, schema) = match (format, structured) {
        (ResponseFormat::Text, _) | (_, Unconstrained) => return None,
        (ResponseFormat::Choice(choices), StructuredOutputs) => {
            return Some(("structured_outputs", json!({"choice": choices})));
        }
        (ResponseFormat::Choice(choices), Guided) => {
            return Some(("guided_choice", json!(choices)));
        }
        (ResponseFormat::Choice(choices), _) => (CHOICE, choice_schema(choices)),
        (ResponseFormat::JsonSchema { name, schema }, _) => (name.as_str(), schema.clone()),
    };
    Some(match structured {
        JsonObject => ("response_format", json!({"type": "json_object", "schema": schema})),
        StructuredOutputs => ("structured_outputs", json!({"json": schema})),
        Guided => ("guided_json", schema),
        JsonSchema | Unconstrained => {
            let schema = json!({"name": name, "strict": true, "schema": schema});
            ("response_format", json!({"type": "json_schema", "json_schema": schema}))
        }
    })
}

fn choice_schema(choices: &[impl Serialize]) -> Value {
    json!({
        "type": "object",
        "properties": {CHOICE: {"type": "string", "enum": choices}},
        "required": [CHOICE],
        "additionalProperties": false,
    })
}

/// The bare choice where it came as an object; the text as it is otherwise.
pub(crate) fn choose(text: String, choices: &[String]) -> String {
    let object = serde_json::from_str::<Value>(text.trim()).ok();
    let chosen = object.as_ref().and_then(|object| object.get(CHOICE)).and_then(Value::as_str);
    chosen
        .filter(|chosen| choices.iter().any(|choice| choice == chosen))
        .map_or(text, str::to_owned)
}

/// An error that a server reports in place of an answer.
pub(crate) fn reported(
    answer: &Value,
    http: &JsonClient,
    endpoint: impl FnOnce() -> String,
) -> Option<ChatError> {
    let error = answer.get("error").filter(|error| !error.is_null())?;
    let message = error
        .get("message")
        .and_then(Value::as_str)
        .map_or_else(|| error.to_string(), str::to_owned);
    Some(ChatError::Reported { endpoint: endpoint(), message: http.excerpt(&message) })
}

/// The meaning of an answer in one piece.
pub(crate) fn read_answer(answer: &Value, http: &JsonClient) -> Result<ChatResponse, ChatError> {
    // Replicas are equals: the first one's name stands for what they all serve.
    let endpoint = || http.config().endpoints.first().map(ToString::to_string).unwrap_or_default();
    if let Some(error) = reported(answer, http, endpoint) {
        return Err(error);
    }
    let choice = &answer["choices"][0];
    let Some(message) = choice["message"].as_object() else {
        return Err(unexpected(endpoint(), "choices[0].message", answer, http));
    };
    Ok(ChatResponse {
        text: text_of(message.get("content")),
        reasoning: reasoning(&choice["message"]).map(str::to_owned),
        refusal: message
            .get("refusal")
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
            .map(str::to_owned),
        tool_calls: tool_calls(message.get("tool_calls")),
        finish_reason: FinishReason::from_word(
            choice["finish_reason"].as_str().unwrap_or_default(),
        ),
        usage: usage(answer).unwrap_or_default(),
        logprobs: logprobs(&choice["logprobs"]),
        model: answer["model"].as_str().unwrap_or_default().to_owned(),
    })
}

pub(crate) fn unexpected(
    endpoint: String,
    field: &'static str,
    got: &Value,
    http: &JsonClient,
) -> ChatError {
    ChatError::UnexpectedAnswer {
        endpoint,
        field,
        got: http.excerpt(&got.to_string()),
        expected: "an object",
    }
}

/// Text, or the text of a list of parts; null is no text.
fn text_of(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            parts.iter().filter_map(|part| part["text"].as_str()).collect()
        }
        _ => String::new(),
    }
}

/// The calls of functions; what is no such call is none.
fn tool_calls(calls: Option<&Value>) -> Vec<ToolCall> {
    let calls = calls.and_then(Value::as_array).into_iter().flatten();

    calls.filter_map(|call| ToolCall::deserialize(without_index(call)).ok()).collect()
}

/// Some servers number calls also where they do not stream.
fn without_index(call: &Value) -> Value {
    let mut call = call.clone();
    if let Value::Object(fields) = &mut call {
        fields.retain(|name, _| matches!(name.as_str(), "id" | "type" | "function"));
    }
    call
}

/// vLLM before 0.12, SGLang, llama.cpp and DeepSeek call it `reasoning_content`; vLLM since and
/// OpenRouter `reasoning`.
pub(crate) fn reasoning(message: &Value) -> Option<&str> {
    let text = message["reasoning_content"].as_str().or_else(|| message["reasoning"].as_str());
    text.filter(|text| !text.is_empty())
}

pub(crate) fn usage(answer: &Value) -> Option<Usage> {
    let usage = answer["usage"].as_object()?;
    let count = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or_default();
    Some(Usage {
        prompt_tokens: count("prompt_tokens"),
        completion_tokens: count("completion_tokens"),
    })
}

/// OpenAI's form for chats (`content`), or its older one for texts, which llama-cpp-python uses for
/// chats, too.
pub(crate) fn logprobs(logprobs: &Value) -> Option<Vec<TokenLogprob>> {
    if let Some(tokens) = logprobs["content"].as_array() {
        let pair =
            |token: &Value| Some((token["token"].as_str()?.to_owned(), token["logprob"].as_f64()?));
        let read = |entry: &Value| {
            let (token, logprob) = pair(entry)?;
            let top =
                entry["top_logprobs"].as_array().into_iter().flatten().filter_map(pair).collect();
            Some(TokenLogprob { token, logprob, top })
        };
        return tokens.iter().map(read).collect();
    }
    let (tokens, values) = (logprobs["tokens"].as_array()?, logprobs["token_logprobs"].as_array()?);
    let top = |index: usize| {
        let table = logprobs["top_logprobs"][index].as_object().into_iter().flatten();
        table.filter_map(|(token, value)| Some((token.clone(), value.as_f64()?))).collect()
    };
    let read = |(index, (token, value)): (usize, (&Value, &Value))| {
        Some(TokenLogprob {
            token: token.as_str()?.to_owned(),
            logprob: value.as_f64()?,
            top: top(index),
        })
    };
    tokens.iter().zip(values).enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::JsonClientConfig;
    use crate::{Role, Tool};

    fn http() -> JsonClient {
        JsonClientConfig::for_server("http://localhost:1/v1").unwrap().build().unwrap()
    }

    fn config() -> OpenAiConfig {
        OpenAiConfig::for_server("http://localhost:1/v1", "m").unwrap()
    }

    fn request(format: ResponseFormat) -> ChatRequest {
        ChatRequest { format, ..ChatRequest::new([Message::system("s"), Message::user("u")]) }
    }

    fn json_format() -> ResponseFormat {
        ResponseFormat::JsonSchema { name: "verdict".into(), schema: json!({"type": "object"}) }
    }

    #[test]
    fn a_full_request_is_written() {
        let mut asked = request(ResponseFormat::Text);
        (asked.top_p, asked.seed, asked.logprobs, asked.stop) =
            (Some(0.5), Some(u64::MAX), Some(2), vec!["END".into()]);
        let body = body(&config(), &asked, StructuredOutput::JsonSchema, Transfer::Streamed);
        let expected = json!({
            "model": "m",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
            "max_tokens": 1024, "temperature": 0.0, "top_p": 0.5, "stop": ["END"], "seed": i64::MAX,
            "logprobs": true, "top_logprobs": 2, "stream": true, "stream_options": {"include_usage": true},
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn tools_and_their_calls_are_written_as_servers_read_them() {
        let call = ToolCall::new("c1", "add", json!({"a": 2}));
        let calling = Message { tool_calls: Some(vec![call]), ..Message::new(Role::Assistant, "") };
        let calling = Message { content: Content::Absent, ..calling };
        let mut asked = ChatRequest::new([calling, Message::tool("c1", "4")]);
        asked.tools = vec![Tool::new("add", "Adds.", json!({"type": "object"}))];

        let body = body(&config(), &asked, StructuredOutput::JsonSchema, Transfer::Whole);
        let function = json!({"name": "add", "arguments": "{\"a\":2}"});
        let expected = json!([
            {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": function}]},
            {"role": "tool", "content": "4", "tool_call_id": "c1"},
        ]);
        assert_eq!(body["messages"], expected);
        let tool = json!({"name": "add", "description": "Adds.", "parameters": {"type": "object"}});
        assert_eq!(body["tools"], json!([{"type": "function", "function": tool}]));
    }

    #[test]
    fn calls_of_tools_are_read() {
        let function = json!({"name": "add", "arguments": "{}"});
        let call = json!({"index": 0, "id": "c1", "type": "function", "function": function});
        let answer = json!({"choices": [{"message": {"content": null, "tool_calls": [call]}, "finish_reason": "tool_calls"}]});
        let response = read_answer(&answer, &http()).unwrap();
        assert_eq!(response.finish_reason, FinishReason::ToolCalls);
        assert_eq!(response.tool_calls, [ToolCall::new("c1", "add", json!("{}"))]);
    }

    #[test]
    fn extra_fields_replace_and_take_away() {
        let mut config = config();
        config.token_limit = TokenLimit::MaxCompletionTokens;
        config.extra_body = json!({"temperature": null, "max_completion_tokens": 5, "top_k": 1})
            .as_object()
            .unwrap()
            .clone();
        let body = body(
            &config,
            &request(ResponseFormat::Text),
            StructuredOutput::JsonSchema,
            Transfer::Whole,
        );
        assert_eq!(
            (body.get("temperature"), &body["max_completion_tokens"], &body["top_k"]),
            (None, &json!(5), &json!(1))
        );
    }

    #[test]
    fn a_form_is_asked_for_in_the_servers_way() {
        let choice = ResponseFormat::Choice(vec!["a".into(), "b".into()]);
        let ask = |format: &ResponseFormat, structured| constraint(format, structured).unwrap();
        let (name, value) = ask(&json_format(), StructuredOutput::JsonSchema);
        assert_eq!(
            (name, &value["json_schema"]["name"], &value["json_schema"]["strict"]),
            ("response_format", &json!("verdict"), &json!(true))
        );
        let (_, value) = ask(&choice, StructuredOutput::JsonSchema);
        assert_eq!(
            value["json_schema"]["schema"]["properties"]["choice"]["enum"],
            json!(["a", "b"])
        );
        assert_eq!(
            ask(&json_format(), StructuredOutput::JsonObject).1["schema"],
            json!({"type": "object"})
        );
        assert_eq!(ask(&choice, StructuredOutput::Guided), ("guided_choice", json!(["a", "b"])));
        assert_eq!(
            ask(&json_format(), StructuredOutput::Guided),
            ("guided_json", json!({"type": "object"}))
        );
        assert_eq!(
            ask(&choice, StructuredOutput::StructuredOutputs),
            ("structured_outputs", json!({"choice": ["a", "b"]}))
        );
        assert!(constraint(&choice, StructuredOutput::Unconstrained).is_none());
        assert!(constraint(&ResponseFormat::Text, StructuredOutput::JsonSchema).is_none());
    }

    #[test]
    fn a_choice_is_taken_out_of_its_object() {
        let choices = ["a".to_owned(), "b".to_owned()];
        assert_eq!(choose("{\"choice\": \"b\"}".into(), &choices), "b");
        for text in ["{\"choice\": \"c\"}", "b", "{\"choice\": 1}"] {
            assert_eq!(choose(text.into(), &choices), text);
        }
    }

    #[test]
    fn every_servers_answer_is_read() {
        let answer = json!({
            "model": "m-1",
            "choices": [{
                "message": {"content": "4", "reasoning_content": "2 + 2", "refusal": null},
                "finish_reason": "length",
                "logprobs": {"content": [{"token": "4", "logprob": -0.25, "top_logprobs": [{"token": "5", "logprob": -2.0}]}]},
            }],
            "usage": {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8},
        });
        let response = read_answer(&answer, &http()).unwrap();
        assert_eq!(
            (response.text.as_str(), response.reasoning.as_deref(), response.model.as_str()),
            ("4", Some("2 + 2"), "m-1")
        );
        assert_eq!((response.finish_reason, response.usage.total()), (FinishReason::Length, 8));
        let token =
            TokenLogprob { token: "4".into(), logprob: -0.25, top: vec![("5".into(), -2.0)] };
        assert_eq!(response.logprobs, Some(vec![token.clone()]));
        let older =
            json!({"tokens": ["4"], "token_logprobs": [-0.25], "top_logprobs": [{"5": -2.0}]});
        assert_eq!(logprobs(&older), Some(vec![token]));
        let parts = json!({"choices": [{"message": {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}}]});
        assert_eq!(read_answer(&parts, &http()).unwrap().text, "ab");
        let refused = json!({"choices": [{"message": {"content": null, "refusal": "I won't."}, "finish_reason": "stop"}]});
        let refused = read_answer(&refused, &http()).unwrap();
        assert_eq!((refused.text.as_str(), refused.refusal.as_deref()), ("", Some("I won't.")));
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let cause = |answer: Value| read_answer(&answer, &http()).unwrap_err().cause();
        assert_eq!(cause(json!({"error": {"message": "overloaded"}})), "reported");
        for answer in [
            json!({}),
            json!([]),
            json!(null),
            json!({"choices": []}),
            json!({"choices": [{"message": "x"}]}),
        ] {
            assert_eq!(cause(answer.clone()), "unexpected_answer", "{answer}");
        }
    }
}
