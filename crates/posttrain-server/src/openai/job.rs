//! What both of OpenAI's endpoints have in common: how tokens are drawn, and by whom.

use super::adapters::Target;
use crate::app::App;
use crate::refusal::Refusal;
use crate::request::fields;
use axum::http::{HeaderMap, HeaderValue};
use posttrain_rollout::service::{SampleRequest, SampleStream};
use posttrain_rollout::{Completion, FinishReason, Request, SamplingParams};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A text, or several.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub(crate) enum Texts {
    One(String),
    Many(Vec<String>),
}

impl Texts {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// How tokens are drawn. What this server does not do is taken at the value that changes nothing.
#[derive(Deserialize)]
pub(crate) struct Draw {
    #[serde(default)]
    pub temperature: Option<f64>,
    #[serde(default)]
    pub top_p: Option<f64>,
    #[serde(default)]
    pub top_k: Option<i64>,
    #[serde(default)]
    pub min_p: Option<f64>,
    #[serde(default)]
    pub n: Option<usize>,
    #[serde(default)]
    pub seed: Option<i64>,
    #[serde(default)]
    pub stop: Option<Texts>,
    #[serde(default)]
    pub stop_token_ids: Option<Vec<i64>>,
    #[serde(default)]
    pub min_tokens: Option<usize>,
    #[serde(default)]
    pub ignore_eos: Option<bool>,
    #[serde(default)]
    pub presence_penalty: Option<f64>,
    #[serde(default)]
    pub frequency_penalty: Option<f64>,
    #[serde(default)]
    pub repetition_penalty: Option<f64>,
    #[serde(default)]
    pub logit_bias: Option<Map<String, Value>>,
    #[serde(default)]
    pub stream: Option<bool>,
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    /// What is none of these.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamOptions {
    #[serde(default)]
    pub include_usage: bool,
}

/// Fields that change nothing here.
const WITHOUT_EFFECT: [&str; 5] =
    ["user", "metadata", "store", "service_tier", "safety_identifier"];

impl Draw {
    /// Reads it out of what a request has beside the fields of its own. What is left there is
    /// refused by its name, unless it changes nothing.
    pub fn of(beside: &Map<String, Value>) -> Result<Self, Refusal> {
        let draw: Self = fields(Value::Object(beside.clone()))?;
        let unknown = draw
            .rest
            .iter()
            .find(|(name, value)| !WITHOUT_EFFECT.contains(&name.as_str()) && !value.is_null());
        match unknown {
            Some((name, _)) => {
                Err(Refusal::field(name, "no such field: this server does not have it", "one"))
            }
            None => Ok(draw),
        }
    }

    /// How many completions of each prompt.
    pub fn samples(&self, app: &App) -> Result<usize, Refusal> {
        let most = app.config.limits.samples;
        let n = self.n.unwrap_or(1);
        if (1..=most).contains(&n) {
            Ok(n)
        } else {
            Err(Refusal::field("n", &format!("from 1 to {most}"), n))
        }
    }

    /// The engine's parameters.
    pub fn params(self, max_tokens: usize) -> Result<SamplingParams, Refusal> {
        let neutral = [
            ("presence_penalty", self.presence_penalty.unwrap_or(0.0), 0.0),
            ("frequency_penalty", self.frequency_penalty.unwrap_or(0.0), 0.0),
            ("repetition_penalty", self.repetition_penalty.unwrap_or(1.0), 1.0),
        ];
        for (field, value, expected) in neutral {
            if value != expected {
                let expected = format!("{expected}: this server has no penalties");
                return Err(Refusal::field(field, &expected, value));
            }
        }
        if self.logit_bias.is_some_and(|bias| !bias.is_empty()) {
            return Err(Refusal::field("logit_bias", "none: this server has no biases", "some"));
        }

        let top_k = match self.top_k {
            None | Some(-1 | 0) => None,
            Some(top_k) => Some(
                usize::try_from(top_k)
                    .map_err(|_| Refusal::field("top_k", "-1 for all, or at least 1", top_k))?,
            ),
        };
        let min_tokens = match self.ignore_eos {
            Some(true) => max_tokens,
            _ => self.min_tokens.unwrap_or(0),
        };
        let seed =
            self.seed.map_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0, |seed| seed as u64);
        let params = SamplingParams {
            max_tokens,
            min_tokens,
            temperature: self.temperature.unwrap_or(1.0),
            top_k,
            top_p: self.top_p.filter(|top_p| *top_p != 1.0),
            min_p: self.min_p.filter(|min_p| *min_p != 0.0),
            stop: self.stop.map(Texts::into_vec).unwrap_or_default(),
            stop_token_ids: self.stop_token_ids.unwrap_or_default(),
            seed,
        };
        params.validate()?;
        check_stops(&params)?;
        Ok(params)
    }
}

/// Checks that what ends a completion is soon looked for: it is, at every token.
pub(crate) fn check_stops(params: &SamplingParams) -> Result<(), Refusal> {
    const TEXTS: usize = 64;
    const BYTES: usize = 1024;
    const TOKENS: usize = 256;
    if params.stop.len() > TEXTS {
        return Err(Refusal::field("stop", &format!("at most {TEXTS} texts"), params.stop.len()));
    }
    if let Some(long) = params.stop.iter().map(String::len).find(|bytes| *bytes > BYTES) {
        return Err(Refusal::field("stop", &format!("texts of at most {BYTES} bytes"), long));
    }
    let tokens = params.stop_token_ids.len();
    if tokens > TOKENS {
        let expected = format!("at most {TOKENS} token ids");
        return Err(Refusal::field("stop_token_ids", &expected, tokens));
    }
    Ok(())
}

/// Refuses a text of so many bytes if no tokenizer makes it fit the context, before one tries.
pub(crate) fn check_text(app: &App, field: &str, bytes: usize) -> Result<(), Refusal> {
    const BYTES_A_TOKEN: usize = 512;
    let most = app.context().saturating_mul(BYTES_A_TOKEN);
    if bytes <= most {
        return Ok(());
    }
    Err(Refusal::field(field, &format!("at most {most} bytes"), bytes))
}

/// What is held while an answer is under way, for which the server's end waits.
pub(crate) fn answering(app: &App) -> Result<Arc<()>, Refusal> {
    let answering = app.answering.clone();
    if app.is_stopping() {
        return Err(Refusal::stopping());
    }
    Ok(answering)
}

/// Tokens of a completion at most: what was asked for, as far as the context has room.
pub(crate) fn most_tokens(
    app: &App,
    prompt: usize,
    asked: Option<usize>,
    usual: Option<usize>,
) -> Result<usize, Refusal> {
    let room = app.context().saturating_sub(prompt);
    if prompt == 0 || room == 0 {
        let expected =
            format!("from 1 token to one less than the model's context of {}", app.context());
        return Err(Refusal::field("the prompt", &expected, prompt));
    }
    match asked {
        Some(0) => Err(Refusal::field("max_tokens", "at least 1", 0)),
        Some(asked) => Ok(asked.min(room)),
        None => Ok(usual.unwrap_or(room).min(room)),
    }
}

/// Submits the samples of a prompt.
pub(crate) async fn submit(
    app: &Arc<App>,
    target: &Target,
    prompt: &[i64],
    params: SamplingParams,
    samples: usize,
    tokens: bool,
) -> Result<SampleStream, Refusal> {
    if app.sampling.pending() + samples > app.config.limits.pending {
        return Err(Refusal::busy("the server has as many samples to draw as it takes"));
    }
    let request = Request::new(prompt.to_vec(), params)
        .samples(samples)
        .policy(target.policy.clone())
        .client(target.client);
    let request = SampleRequest::new(request);
    let published = target.asked.as_ref().and_then(|asked| asked.chosen.name.clone());
    let request = match published {
        Some(name) => request.policy_name(name),
        None => request,
    };
    let request = if tokens { request.with_tokens() } else { request };
    Ok(app.sampling.submit(request).await?)
}

/// The samples of a prompt, all of them.
pub(crate) async fn draw(
    app: &Arc<App>,
    target: &Target,
    prompt: &[i64],
    params: SamplingParams,
    samples: usize,
) -> Result<Vec<Completion>, Refusal> {
    let stream = submit(app, target, prompt, params, samples, false).await?;
    let mut completions = Vec::with_capacity(samples);
    for outcome in stream.outcomes().await {
        completions.push(outcome.result?);
    }
    app.counters.sample_call(true);
    app.counters.sampled(completions.iter().map(|own| own.tokens.len()).sum());
    Ok(completions)
}

/// OpenAI's word for why a completion ended.
pub(crate) fn finish_word(reason: FinishReason) -> &'static str {
    if reason == FinishReason::Stop { "stop" } else { "length" }
}

/// The stop text that a completion ran into, if it was one; its tokens have it, its text ends before.
pub(crate) fn stopped_by<'a>(
    app: &App,
    stops: &'a [String],
    completion: &Completion,
) -> Option<&'a str> {
    if stops.is_empty() || completion.finish_reason != FinishReason::Stop {
        return None;
    }
    let whole = app.model.tokenizer.decode(&completion.tokens).ok()?;
    let rest = whole.get(completion.text.len()..)?;
    stops.iter().map(String::as_str).find(|stop| rest.starts_with(stop))
}

/// What a request took.
pub(crate) fn usage(prompt: usize, completion: usize) -> Value {
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    })
}

/// The router's decision, or the version that answers, told in the head of the response.
pub(crate) fn route_headers(target: &Target) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(asked) = &target.asked {
        headers.insert("x-posttrain-version", HeaderValue::from(asked.chosen.version));
    }
    if let Some(route) = &target.route {
        let confidence = format!("{:.4}", route.confidence);
        for (name, value) in [
            ("x-posttrain-route", route.label.as_str()),
            ("x-posttrain-route-confidence", &confidence),
        ] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
    }
    headers
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

/// A response's id.
pub(crate) fn new_id(kind: &str) -> String {
    format!("{kind}-{}", uuid::Uuid::new_v4().simple())
}
