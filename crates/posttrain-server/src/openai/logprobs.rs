//! Log-probabilities in OpenAI's two forms.

use crate::app::App;
use crate::refusal::Refusal;
use crate::tinker::{Scored, score};
use posttrain_rollout::{Completion, PolicySnapshot, SampledToken};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The most probable tokens that may be asked for in a place, as OpenAI has it.
pub(crate) const TOP: usize = 20;

/// A completion's tokens, each with the most probable ones in its place.
pub(crate) async fn scored(
    app: &Arc<App>,
    prompt: &[i64],
    completion: &Completion,
    policy: Option<PolicySnapshot>,
    top: usize,
    temperature: f64,
) -> Result<Scored, Refusal> {
    if top == 0 || completion.tokens.is_empty() {
        return Ok(Scored { logprobs: completion.logprobs.clone(), ..Scored::default() });
    }
    let text = [prompt, &completion.tokens].concat();
    let temperature = if temperature > 0.0 { temperature } else { 1.0 };
    let scored = score(app, policy, text, prompt.len(), top, temperature).await?;
    // Those that the tokens were drawn with, truncation and all.
    Ok(Scored { logprobs: completion.logprobs.clone(), ..scored })
}

/// A prompt's tokens behind the first, which has nothing before it, each with the most probable
/// ones in its place. At temperature 1, whatever is drawn behind it.
pub(crate) async fn read(
    app: &Arc<App>,
    prompt: &[i64],
    policy: Option<PolicySnapshot>,
    top: usize,
) -> Result<Scored, Refusal> {
    match prompt.len() {
        ..2 => Ok(Scored::default()),
        _ => score(app, policy, prompt.to_vec(), 1, top, 1.0).await,
    }
}

fn token_text(app: &App, token: i64) -> String {
    app.model.tokenizer.decode_with_special(&[token]).unwrap_or_default()
}

fn entry(app: &App, token: i64, logprob: f32) -> Map<String, Value> {
    let text = token_text(app, token);
    let mut entry = Map::new();
    entry.insert("bytes".into(), json!(text.as_bytes()));
    entry.insert("token".into(), json!(text));
    entry.insert("logprob".into(), json!(finite(logprob)));
    entry
}

/// JSON has no infinity.
fn finite(logprob: f32) -> f32 {
    logprob.max(-9999.0)
}

/// The form of chat completions.
pub(crate) fn chat_form(app: &App, tokens: &[i64], scored: &Scored, top: usize) -> Value {
    let mut content = Vec::with_capacity(tokens.len());
    for (place, (token, logprob)) in tokens.iter().zip(&scored.logprobs).enumerate() {
        let mut own = entry(app, *token, *logprob);
        own.insert("top_logprobs".into(), Value::Array(tops(app, scored, place, top)));
        content.push(Value::Object(own));
    }
    json!({ "content": content, "refusal": null })
}

fn tops(app: &App, scored: &Scored, place: usize, top: usize) -> Vec<Value> {
    let places = place * top..(place + 1) * top;
    let tokens = scored.top_tokens.get(places.clone()).unwrap_or_default();
    let logprobs = scored.top_logprobs.get(places).unwrap_or_default();
    let each = tokens.iter().zip(logprobs);
    each.map(|(token, logprob)| Value::Object(entry(app, *token, *logprob))).collect()
}

/// The form of chat completions for a token that has just been drawn.
pub(crate) fn chat_token(app: &App, token: &SampledToken) -> Value {
    let mut own = entry(app, token.token, token.logprob);
    own.insert("top_logprobs".into(), json!([]));
    json!({ "content": [own], "refusal": null })
}

/// The form of completions. Tokens at the beginning that `scored` does not have are a prompt's
/// first: null.
pub(crate) fn text_form(
    app: &App,
    tokens: &[i64],
    scored: &Scored,
    top: usize,
    from: usize,
) -> Value {
    let texts: Vec<String> = tokens.iter().map(|token| token_text(app, *token)).collect();
    let mut offsets = Vec::with_capacity(texts.len());
    let mut end = from;
    for text in &texts {
        offsets.push(end);
        end += text.chars().count();
    }

    let unscored = tokens.len() - scored.logprobs.len().min(tokens.len());
    let of_place = |place: usize| {
        let mut tops: Map<String, Value> = Map::new();
        let places = place * top..(place + 1) * top;
        let own = scored.top_tokens.get(places.clone()).unwrap_or_default();
        for (token, logprob) in own.iter().zip(scored.top_logprobs.get(places).unwrap_or_default())
        {
            tops.insert(token_text(app, *token), json!(finite(*logprob)));
        }
        Value::Object(tops)
    };
    let nulls = || std::iter::repeat_n(Value::Null, unscored);
    let top_logprobs: Vec<Value> =
        nulls().chain((0..tokens.len() - unscored).map(of_place)).collect();
    let finite = |logprob: &f32| json!(finite(*logprob));
    let logprobs: Vec<Value> = nulls().chain(scored.logprobs.iter().map(finite)).collect();
    json!({
        "tokens": texts,
        "token_logprobs": logprobs,
        "top_logprobs": (top > 0).then_some(top_logprobs),
        "text_offset": offsets,
    })
}
