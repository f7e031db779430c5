//! `/v1/chat/completions`.

use super::adapters::{Target, target};
use super::job::{
    Draw, answering, check_text, draw, finish_word, most_tokens, new_id, now, route_headers,
    stopped_by, usage,
};
use super::logprobs::{TOP, chat_form, scored};
use super::stream::{Form, Streamed, stream};
use super::tools::spoken;
use crate::app::App;
use crate::gateway::Episode;
use crate::keys::Owner;
use crate::learn::Captured;
use crate::refusal::Refusal;
use crate::request::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use posttrain_chat::{Content, Message, Role, Tool};
use posttrain_environment::CapturedCall;
use posttrain_rollout::{Completion, SamplingParams};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A request; `rest` has how it is drawn, and what is not known.
#[derive(Deserialize)]
pub(crate) struct ChatRequest {
    model: String,
    pub(crate) messages: Vec<Value>,
    #[serde(default)]
    max_tokens: Option<usize>,
    #[serde(default)]
    max_completion_tokens: Option<usize>,
    #[serde(default)]
    logprobs: Option<bool>,
    #[serde(default)]
    top_logprobs: Option<usize>,
    #[serde(default)]
    tools: Option<Vec<Tool>>,
    #[serde(default)]
    tool_choice: Option<Value>,
    #[serde(default)]
    parallel_tool_calls: Option<bool>,
    #[serde(default)]
    response_format: Option<Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Whose protocol an answer is told in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// OpenAI's.
    OpenAi,
    /// Anthropic's, whose requests are of one completion.
    Anthropic,
}

impl Dialect {
    fn new_id(self) -> String {
        new_id(if self == Self::OpenAi { "chatcmpl" } else { "msg" })
    }
}

/// A request that has been checked.
struct Prepared {
    target: Target,
    prompt: Vec<i64>,
    params: SamplingParams,
    /// The stop texts that its client gave.
    stops: Vec<String>,
    samples: usize,
    logprobs: Option<usize>,
    has_tools: bool,
    /// The call as an episode has it, where it is one's.
    call: Option<CapturedCall>,
}

pub(crate) async fn complete(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<ChatRequest>,
) -> Result<Response, Refusal> {
    answer(&app, &owner, request, None, Dialect::OpenAi).await
}

/// Answers a request; one of an agent program's episode is put behind what that has sampled so far,
/// and taken down there.
pub(crate) async fn answer(
    app: &Arc<App>,
    owner: &Owner,
    request: ChatRequest,
    episode: Option<Arc<Episode>>,
    dialect: Dialect,
) -> Result<Response, Refusal> {
    let _answering = answering(app)?;
    let drawing = Draw::of(&request.rest)?;
    let streamed = drawing.stream == Some(true);
    let include_usage = drawing.stream_options.is_some_and(|options| options.include_usage);
    let mut prepared = prepare(app, owner, (request, drawing), episode.as_deref()).await?;
    let captured = episode.zip(prepared.call.take());
    let headers = route_headers(&prepared.target);
    let id = dialect.new_id();
    if streamed {
        let learned = Captured::of(app, prepared.target.asked.as_ref(), &id, prepared.samples);
        let streamed = Streamed {
            id,
            learned,
            target: prepared.target,
            prompt: prepared.prompt,
            params: prepared.params,
            stops: prepared.stops,
            samples: prepared.samples,
            logprobs: prepared.logprobs,
            include_usage,
            form: Form::Chat { tools: prepared.has_tools },
            dialect,
            captured,
        };
        return Ok((headers, stream(app, streamed).await?).into_response());
    }

    let Prepared { target, prompt, params, stops, samples, logprobs, has_tools, .. } = prepared;
    let temperature = params.temperature;
    let learned = Captured::of(app, target.asked.as_ref(), &id, samples);
    let completions = draw(app, &target, &prompt, params.clone(), samples).await?;
    let mut choices = Vec::with_capacity(samples);
    for (index, completion) in completions.iter().enumerate() {
        let logprobs = match logprobs {
            Some(top) => {
                let policy = target.policy.clone();
                let scored = scored(app, &prompt, completion, policy, top, temperature).await?;
                Some(chat_form(app, &completion.tokens, &scored, top))
            }
            None => None,
        };
        let mut choice = choice(index, completion, logprobs.as_ref(), has_tools);
        choice["stop_reason"] = json!(stopped_by(app, &stops, completion));
        choices.push(choice);
        if let Some(learned) = &learned {
            learned.take(app, (&prompt, &params), index, completion);
        }
    }
    if let (Some((episode, call)), [completion]) = (captured, completions.as_slice()) {
        episode.record(call, completion, choices[0]["message"].clone());
    }
    let written = completions.iter().map(|completion| completion.tokens.len()).sum();
    let answer = json!({
        "id": id,
        "object": "chat.completion",
        "created": now(),
        "model": target.name,
        "choices": choices,
        "usage": usage(prompt.len(), written),
    });
    let answer = match dialect {
        Dialect::OpenAi => answer,
        Dialect::Anthropic => crate::anthropic::message(&answer),
    };
    Ok((headers, axum::Json(answer)).into_response())
}

fn choice(
    index: usize,
    completion: &Completion,
    logprobs: Option<&Value>,
    has_tools: bool,
) -> Value {
    let mut message = json!({ "role": "assistant", "content": completion.text });
    let mut reason = finish_word(completion.finish_reason);
    if has_tools {
        let spoken = spoken(&completion.text);
        if !spoken.calls.is_empty() {
            let content = (!spoken.content.is_empty()).then_some(spoken.content);
            message["content"] = json!(content);
            message["tool_calls"] = Value::Array(spoken.calls);
            reason = "tool_calls";
        }
    }
    json!({ "index": index, "message": message, "logprobs": logprobs, "finish_reason": reason })
}

async fn prepare(
    app: &Arc<App>,
    owner: &Owner,
    (request, drawing): (ChatRequest, Draw),
    episode: Option<&Episode>,
) -> Result<Prepared, Refusal> {
    let messages = read_messages(request.messages)?;
    check_text(app, "messages", messages.iter().map(|message| message.text().len()).sum())?;
    let tools = match request.tool_choice.as_ref().and_then(Value::as_str) {
        None if request.tool_choice.as_ref().is_none_or(Value::is_null) => request.tools,
        Some("auto") => request.tools,
        Some("none") => None,
        _ => {
            let got = request.tool_choice.unwrap_or_default();
            return Err(Refusal::field("tool_choice", "auto or none", got));
        }
    };
    if let Some(format) = request.response_format.filter(|format| !format.is_null()) {
        let kind = format.get("type").unwrap_or(&format);
        if kind != "text" {
            return Err(Refusal::field("response_format.type", "text", kind));
        }
    }
    let any_tools = tools.as_ref().is_some_and(|tools| !tools.is_empty());
    if any_tools && request.parallel_tool_calls == Some(false) {
        let expected = "true or left out: nothing keeps the model from several calls";
        return Err(Refusal::field("parallel_tool_calls", expected, false));
    }
    if any_tools && drawing.stream == Some(true) && request.logprobs == Some(true) {
        let expected = "false with `stream` and `tools`: calls show when they are whole";
        return Err(Refusal::field("logprobs", expected, true));
    }
    let logprobs = match (request.logprobs, request.top_logprobs) {
        (Some(true), top) => Some(top.unwrap_or(0)),
        (_, None | Some(0)) => None,
        _ => return Err(Refusal::field("top_logprobs", "`logprobs` beside it", "none")),
    };
    if let Some(top) = logprobs.filter(|top| *top > TOP) {
        return Err(Refusal::field("top_logprobs", &format!("from 0 to {TOP}"), top));
    }

    let question = last_question(&messages);
    let target = target(app, owner, (&request.model, &request.rest), &question).await?;
    let has_tools = tools.as_ref().is_some_and(|tools| !tools.is_empty());
    // A lone question is put to a run's models as it was in the run.
    let as_in_run = app.routed.as_ref().filter(|_| {
        episode.is_none()
            && target.of_run
            && !has_tools
            && messages.len() == 1
            && messages[0].role == Role::User
    });
    let template = &app.model.template;
    let tokenizer = &app.model.tokenizer;
    let mut call = None;
    let prompt = match (as_in_run, episode, tools.filter(|_| has_tools)) {
        (Some(run), ..) => run.encode(&question, &app.model)?,
        (None, Some(episode), tools) => {
            let prepared = episode.prepare(app, messages, tools.unwrap_or_default())?;
            let prompt = prepared.tokens.clone();
            call = Some(prepared);
            prompt
        }
        (None, None, Some(tools)) => {
            (**template).clone().with_tools(tools).encode(tokenizer, &messages, true)?
        }
        (None, None, None) => template.encode(tokenizer, &messages, true)?,
    };

    let asked = request.max_completion_tokens.or(request.max_tokens);
    let max_tokens = most_tokens(app, prompt.len(), asked, None)?;
    let samples = drawing.samples(app)?;
    if call.is_some() && samples != 1 {
        return Err(Refusal::field("n", "1: a turn of an episode is one completion", samples));
    }
    let has_stop = drawing.stop.is_some();
    let mut params = drawing.params(max_tokens)?;
    let stops = params.stop.clone();
    if let Some(run) = as_in_run.filter(|_| !has_stop) {
        params.stop = run.stop().to_vec();
    }
    crate::tinker::check_tokens("stop_token_ids", &params.stop_token_ids, app.vocab())?;
    Ok(Prepared { target, prompt, params, stops, samples, logprobs, has_tools, call })
}

/// Messages as clients send them back: with fields of no value, and calls' arguments as texts.
fn read_messages(values: Vec<Value>) -> Result<Vec<Message>, Refusal> {
    if values.is_empty() {
        return Err(Refusal::field("messages", "at least one", "none"));
    }
    let mut messages = Vec::with_capacity(values.len());
    for (index, mut value) in values.into_iter().enumerate() {
        if let Some(fields) = value.as_object_mut() {
            fields.retain(|name, value| !value.is_null() || name == "content");
        }
        for call in value.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten()
        {
            let Some(arguments) = call.pointer_mut("/function/arguments") else { continue };
            let parsed = arguments.as_str().and_then(|text| serde_json::from_str(text).ok());
            if let Some(parsed @ Value::Object(_)) = parsed {
                *arguments = parsed;
            }
        }
        let mut message: Message = serde_json::from_value(value)
            .map_err(|error| Refusal::invalid(format!("`messages[{index}]`: {error}")))?;
        // Few templates know lists.
        if let Content::Parts(parts) = &message.content {
            message.content = Content::Text(parts.concat());
        }
        messages.push(message);
    }
    Ok(messages)
}

/// What a router decides by: the last message of the user's.
fn last_question(messages: &[Message]) -> String {
    let last = messages.iter().rev().find(|message| message.role == Role::User);
    last.or(messages.last()).map(|message| message.text().into_owned()).unwrap_or_default()
}
