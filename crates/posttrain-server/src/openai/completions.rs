//! `/v1/completions`.

use super::adapters::{Target, target};
use super::chat::Dialect;
use super::job::{
    Draw, answering, check_text, draw, finish_word, most_tokens, new_id, now, route_headers, usage,
};
use super::logprobs::{TOP, read, scored, text_form};
use super::stream::{Form, Streamed, stream};
use crate::app::App;
use crate::keys::Owner;
use crate::learn::Captured;
use crate::refusal::Refusal;
use crate::request::Json;
use crate::tinker::{Scored, check_tokens};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use posttrain_chat::FinishReason;
use posttrain_rollout::{Completion, SamplingParams};
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
        let encode = |text: &String| {
            check_text(app, "prompt", text.len())?;
            Ok(app.model.tokenizer.encode_prompt(text)?)
        };
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
    let _answering = answering(&app)?;
    let drawing = Draw::of(&request.rest)?;
    check_unserved(&request, &drawing)?;
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
    let streamed = drawing.stream == Some(true);
    let include_usage = drawing.stream_options.is_some_and(|options| options.include_usage);
    let prompts = request.prompt.tokens(&app)?;
    let samples = drawing.samples(&app)?;
    let (most, asked) = (app.config.limits.samples, prompts.len() * samples);
    if asked > most {
        return Err(Refusal::field(
            "n",
            &format!("at most {most} completions of all prompts"),
            asked,
        ));
    }

    let longest = prompts.iter().map(Vec::len).max().unwrap_or_default();
    let echo = request.echo == Some(true);
    // A prompt that is echoed may be read alone.
    let writes = !(echo && request.max_tokens == Some(0));
    let fits = (1..=app.context()).contains(&longest);
    let most = match writes || !fits {
        true => most_tokens(&app, longest, request.max_tokens, Some(USUAL))?,
        false => 1,
    };
    if echo {
        check_echo(&app, &prompts, samples, top)?;
    }
    let params = drawing.params(most)?;
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
            stops: Vec::new(),
            samples,
            logprobs: top,
            include_usage,
            form,
            dialect: Dialect::OpenAi,
            captured: None,
        };
        return Ok((headers, stream(&app, streamed).await?).into_response());
    }

    let id = new_id("cmpl");
    let learned = Captured::of(&app, target.asked.as_ref(), &id, prompts.len() * samples);
    let mut choices = Vec::new();
    let mut prompt_tokens = 0;
    let mut written = 0;
    for (nth, prompt) in prompts.iter().enumerate() {
        // Prompts of one request differ in their draws as samples do.
        let params =
            SamplingParams { seed: params.seed.wrapping_add(nth as u64), ..params.clone() };
        let echoed = match echo {
            true => Echoed::of(&app, &target, prompt, top).await?,
            false => Echoed::default(),
        };
        let completions = match writes {
            true => draw(&app, &target, prompt, params.clone(), samples).await?,
            false => vec![nothing_written(); samples],
        };
        for completion in completions {
            if let Some(learned) = learned.as_ref().filter(|_| writes) {
                learned.take(&app, (prompt, &params), choices.len(), &completion);
            }
            written += completion.tokens.len();
            let own = Choice { target: &target, prompt, params: &params, echoed: &echoed, top };
            choices.push(own.answer(&app, choices.len(), &completion).await?);
        }
        prompt_tokens += prompt.len();
    }
    let answer = json!({
        "id": id,
        "object": "text_completion",
        "created": now(),
        "model": target.name,
        "choices": choices,
        "usage": usage(prompt_tokens, written),
    });
    Ok((headers, axum::Json(answer)).into_response())
}

/// A prompt as it stands before its completions; nothing where it is not asked for.
#[derive(Clone, Default)]
struct Echoed {
    text: String,
    tokens: Vec<i64>,
    /// Of the tokens behind the first, where log-probabilities are asked for.
    scored: Scored,
}

impl Echoed {
    async fn of(
        app: &Arc<App>,
        target: &Target,
        prompt: &[i64],
        top: Option<usize>,
    ) -> Result<Self, Refusal> {
        let scored = match top {
            Some(top) => read(app, prompt, target.policy.clone(), top).await?,
            None => Scored::default(),
        };
        let text = app.model.tokenizer.decode_with_special(prompt)?;
        Ok(Self { text, tokens: prompt.to_vec(), scored })
    }
}

/// What a completion is told with.
struct Choice<'a> {
    target: &'a Target,
    prompt: &'a [i64],
    params: &'a SamplingParams,
    echoed: &'a Echoed,
    /// How many probable tokens are told in each place, where log-probabilities are.
    top: Option<usize>,
}

impl Choice<'_> {
    async fn answer(
        &self,
        app: &Arc<App>,
        index: usize,
        completion: &Completion,
    ) -> Result<Value, Refusal> {
        let Echoed { mut text, mut tokens, scored: mut all } = self.echoed.clone();
        text.push_str(&completion.text);
        tokens.extend_from_slice(&completion.tokens);
        let logprobs = match self.top {
            Some(top) => {
                let (policy, temperature) = (self.target.policy.clone(), self.params.temperature);
                let own = scored(app, self.prompt, completion, policy, top, temperature).await?;
                all.logprobs.extend(own.logprobs);
                all.top_tokens.extend(own.top_tokens);
                all.top_logprobs.extend(own.top_logprobs);
                Some(text_form(app, &tokens, &all, top, 0))
            }
            None => None,
        };
        Ok(json!({
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": finish_word(completion.finish_reason),
        }))
    }
}

/// Refuses an answer that would repeat its prompts beyond a call's entries: each sample has the
/// prompt's tokens in it, and each of those the tokens that are told in its place.
fn check_echo(
    app: &App,
    prompts: &[Vec<i64>],
    samples: usize,
    top: Option<usize>,
) -> Result<(), Refusal> {
    if prompts.iter().any(Vec::is_empty) {
        return Err(Refusal::field("prompt", "at least one token each with `echo`", 0));
    }
    let tokens: usize = prompts.iter().map(Vec::len).sum();
    let entries = tokens.saturating_mul(samples).saturating_mul(1 + top.unwrap_or(0));
    let most = app.config.limits.entries;
    if entries > most {
        let expected = format!("tokens, `n` and `logprobs` that make at most {most} entries");
        return Err(Refusal::field("echo", &expected, entries));
    }
    Ok(())
}

/// What comes of no tokens.
fn nothing_written() -> Completion {
    Completion {
        tokens: Vec::new(),
        logprobs: Vec::new(),
        text: String::new(),
        finish_reason: FinishReason::Length,
        policy_version: 0,
        token_versions: Vec::new(),
        recording: None,
    }
}

fn check_unserved(request: &CompletionRequest, drawing: &Draw) -> Result<(), Refusal> {
    if request.echo == Some(true) && drawing.stream == Some(true) {
        return Err(Refusal::field("echo", "false with `stream`", "true"));
    }
    if request.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(Refusal::field("suffix", "none", "one"));
    }
    match request.best_of {
        Some(best) if best != drawing.n.unwrap_or(1) => {
            Err(Refusal::field("best_of", "as many as `n`", best))
        }
        _ => Ok(()),
    }
}
