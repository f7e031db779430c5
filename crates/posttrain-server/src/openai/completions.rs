//! `/v1/completions`.

use super::adapters::target;
use super::chat::{DRAW, check_rest};
use super::job::{Draw, draw, finish_word, most_tokens, new_id, now, route_headers, usage};
use super::logprobs::{TOP, scored, text_form};
use super::stream::{Form, Streamed, stream};
use crate::app::App;
use crate::keys::Owner;
use crate::learn::Captured;
use crate::refusal::Refusal;
use crate::request::Json;
use crate::tinker::check_tokens;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use posttrain_rollout::SamplingParams;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A request. What is not known is refused by its name (`rest`).
#[derive(Deserialize)]
pub(crate) struct CompletionRequest {
    model: String,
    prompt: Prompt,
    #[serde(default)]
    max_tokens: Option<usize>,
    #[serde(default)]
    logprobs: Option<usize>,
    #[serde(default)]
    echo: Option<bool>,
    #[serde(default)]
    best_of: Option<usize>,
    #[serde(default)]
    suffix: Option<String>,
    #[serde(flatten)]
    draw: Draw,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text, token ids, or a list of either")]
enum Prompt {
    Text(String),
    Tokens(Vec<i64>),
    Texts(Vec<String>),
    TokenLists(Vec<Vec<i64>>),
}

/// Tokens of a completion where nothing is said, as OpenAI has it.
const USUAL: usize = 16;
/// Prompts of one request.
const PROMPTS: usize = 256;

impl Prompt {
    fn tokens(self, app: &App) -> Result<Vec<Vec<i64>>, Refusal> {
        let encode = |text: &String| Ok(app.model.tokenizer.encode_text(text)?);
        let prompts: Vec<Vec<i64>> = match self {
            Self::Text(text) => vec![encode(&text)?],
            Self::Tokens(tokens) => vec![tokens],
            Self::Texts(texts) => texts.iter().map(encode).collect::<Result<_, Refusal>>()?,
            Self::TokenLists(lists) => lists,
        };
        if !(1..=PROMPTS).contains(&prompts.len()) {
            return Err(Refusal::field(
                "prompt",
                &format!("from 1 to {PROMPTS} prompts"),
                prompts.len(),
            ));
        }
        for prompt in &prompts {
            check_tokens("prompt", prompt, app.vocab())?;
        }
        Ok(prompts)
    }
}

pub(crate) async fn complete(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<CompletionRequest>,
) -> Result<Response, Refusal> {
    check_rest(&request.rest, &DRAW)?;
    check_unserved(&request)?;
    let top = request.logprobs;
    if let Some(top) = top.filter(|top| *top > TOP) {
        return Err(Refusal::field("logprobs", &format!("from 0 to {TOP}"), top));
    }
    let question = match &request.prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Texts(texts) => texts.first().cloned().unwrap_or_default(),
        Prompt::Tokens(_) | Prompt::TokenLists(_) => String::new(),
    };
    let target = target(&app, &owner, (&request.model, &request.rest), &question).await?;
    let headers = route_headers(&target);
    let streamed = request.draw.stream == Some(true);
    let include_usage = request.draw.stream_options.is_some_and(|options| options.include_usage);
    let prompts = request.prompt.tokens(&app)?;
    let samples = request.draw.samples(&app)?;

    let longest = prompts.iter().map(Vec::len).max().unwrap_or_default();
    let max_tokens = most_tokens(&app, longest, request.max_tokens, Some(USUAL))?;
    let params = request.draw.params(max_tokens)?;
    check_tokens("stop_token_ids", &params.stop_token_ids, app.vocab())?;
    if streamed {
        let [prompt] = <[Vec<i64>; 1]>::try_from(prompts).map_err(|prompts| {
            Refusal::field("prompt", "one prompt with `stream`", prompts.len())
        })?;
        let form = Form::Text;
        let id = new_id("cmpl");
        let learned = Captured::of(&app, target.asked.as_ref(), &id, samples);
        let streamed = Streamed {
            id,
            learned,
            target,
            prompt,
            params,
            samples,
            logprobs: top,
            include_usage,
            form,
            captured: None,
        };
        return Ok((headers, stream(&app, streamed).await?).into_response());
    }

    let id = new_id("cmpl");
    let learned = Captured::of(&app, target.asked.as_ref(), &id, prompts.len() * samples);
    let mut choices = Vec::new();
    let mut read = 0;
    let mut written = 0;
    for (nth, prompt) in prompts.iter().enumerate() {
        // Prompts of one request differ in their draws as samples do.
        let params =
            SamplingParams { seed: params.seed.wrapping_add(nth as u64), ..params.clone() };
        let temperature = params.temperature;
        for completion in draw(&app, &target, prompt, params.clone(), samples).await? {
            if let Some(learned) = &learned {
                learned.take(&app, (prompt, &params), choices.len(), &completion);
            }
            let logprobs = match top {
                Some(top) => {
                    let policy = target.policy.clone();
                    let scored =
                        scored(&app, prompt, &completion, policy, top, temperature).await?;
                    Some(text_form(&app, &completion.tokens, &scored, top, 0))
                }
                None => None,
            };
            written += completion.tokens.len();
            choices.push(json!({
                "index": choices.len(),
                "text": completion.text,
                "logprobs": logprobs,
                "finish_reason": finish_word(completion.finish_reason),
            }));
        }
        read += prompt.len();
    }
    let answer = json!({
        "id": id,
        "object": "text_completion",
        "created": now(),
        "model": target.name,
        "choices": choices,
        "usage": usage(read, written),
    });
    Ok((headers, axum::Json(answer)).into_response())
}

fn check_unserved(request: &CompletionRequest) -> Result<(), Refusal> {
    if request.echo == Some(true) {
        return Err(Refusal::field("echo", "false", "true"));
    }
    if request.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(Refusal::field("suffix", "none", "one"));
    }
    match request.best_of {
        Some(best) if best != request.draw.n.unwrap_or(1) => {
            Err(Refusal::field("best_of", "as many as `n`", best))
        }
        _ => Ok(()),
    }
}
