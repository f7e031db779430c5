//! Samplers, and what is sampled from them.

use super::datum::{check_tokens, no_images};
use super::models::check_base;
use super::sessions::Json200;
use super::weights::load_adapter;
use super::wire::{
    SampleResponse, SampledSequence, TopkLogprobs, encoded, floats_to_bytes, tokens_to_bytes,
};
use crate::app::{App, Sampler, Weights};
use crate::keys::Owner;
use crate::openai::check_stops;
use crate::promises::{Outcome, Taken};
use crate::refusal::Refusal;
use crate::request::{Json, Sequence};
use axum::extract::{Path, State};
use bytes::Bytes;
use posttrain_rollout::service::SampleRequest;
use posttrain_rollout::{Completion, FinishReason, PolicySnapshot, Request, SamplingParams};
use posttrain_train::{TopRequest, TopScores, score_texts, top_logprobs};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

/// A sampler that is to be made.
pub(crate) struct NewSampler {
    pub id: String,
    pub owner: Owner,
    pub session: String,
    pub model_path: Option<String>,
}

/// The id of a session's sampler.
pub(crate) fn sampler_id(session: &str, number: Sequence) -> String {
    format!("{session}:sample:{}", number.0)
}

/// Takes a sampler in. Of a session's samplers that are in memory alone, the one that was used
/// longest ago makes room.
pub(crate) fn add_sampler(app: &App, new: NewSampler, weights: Weights) {
    let sampler = Sampler {
        owner: new.owner,
        session: new.session,
        model_path: new.model_path,
        weights,
        used: Instant::now(),
    };
    let mut registry = app.registry();
    let session = sampler.session.clone();
    registry.samplers.insert(new.id, sampler);

    let in_memory = |sampler: &&mut Sampler| {
        let alone = matches!(sampler.weights, Weights::Policy(_)) && sampler.model_path.is_none();
        alone && sampler.session == session
    };
    let mut own: Vec<&mut Sampler> = registry.samplers.values_mut().filter(in_memory).collect();
    own.sort_by_key(|sampler| std::cmp::Reverse(sampler.used));
    for old in own.into_iter().skip(app.config.limits.samplers) {
        old.weights = Weights::Evicted;
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateSampler {
    session_id: String,
    sampling_session_seq_id: Sequence,
    #[serde(default)]
    base_model: Option<String>,
    #[serde(default)]
    model_path: Option<String>,
    #[serde(default, rename = "type")]
    _type: IgnoredAny,
}

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<CreateSampler>,
) -> Result<Json200, Refusal> {
    app.session(&owner, &request.session_id)?;
    request.base_model.iter().try_for_each(|name| check_base(&app, name))?;
    let weights = match &request.model_path {
        Some(path) => Weights::Policy(policy_of_path(&app, &owner, path).await?),
        None if request.base_model.is_some() => Weights::Base,
        None => return Err(Refusal::field("base_model", "it or `model_path`", "neither")),
    };

    let id = sampler_id(&request.session_id, request.sampling_session_seq_id);
    let known = app.registry().samplers.contains_key(&id);
    if !known {
        let new = NewSampler {
            id: id.clone(),
            owner,
            session: request.session_id,
            model_path: request.model_path,
        };
        add_sampler(&app, new, weights);
    }
    Ok(Json200(json!({ "type": "create_sampling_session", "sampling_session_id": id })))
}

/// The policy of a checkpoint. Whoever asks for one that is in memory gets that.
pub(crate) async fn policy_of_path(
    app: &Arc<App>,
    owner: &Owner,
    path: &str,
) -> Result<PolicySnapshot, Refusal> {
    let record = app.checkpoints.get(owner, &path.parse()?)?;
    check_base(app, &record.base_model)?;
    let key = (owner.clone(), path.to_owned());
    if let Some((policy, used)) = app.registry().loaded.get_mut(&key) {
        *used = Instant::now();
        return Ok(policy.clone());
    }

    let folder = app.checkpoints.adapter(owner, &record.path);
    let own = app.clone();
    let loaded = tokio::task::spawn_blocking(move || load_adapter(&own, &folder)).await;
    let policy = loaded.map_err(|error| Refusal::server(&error))??;
    let mut registry = app.registry();
    Ok(registry.loaded.entry(key).or_insert((policy, Instant::now())).0.clone())
}

pub(crate) async fn info(
    State(app): State<Arc<App>>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Json200, Refusal> {
    let registry = app.registry();
    let sampler = registry.samplers.get(&id).filter(|sampler| sampler.owner == owner);
    let sampler = sampler.ok_or_else(|| no_sampler(&id))?;
    Ok(Json200(json!({
        "sampler_id": id,
        "base_model": app.config.name,
        "model_path": sampler.model_path,
    })))
}

fn no_sampler(id: &str) -> Refusal {
    Refusal::not_found(format!(
        "there is no sampler {id}: its session ended, or the server has started anew since; make one from a checkpoint"
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sample {
    #[serde(default = "one")]
    num_samples: usize,
    prompt: Prompt,
    sampling_params: Params,
    #[serde(default)]
    base_model: Option<String>,
    #[serde(default)]
    model_path: Option<String>,
    #[serde(default)]
    sampling_session_id: Option<String>,
    #[serde(default)]
    seq_id: Option<Sequence>,
    #[serde(default)]
    prompt_logprobs: Option<bool>,
    #[serde(default)]
    topk_prompt_logprobs: usize,
    #[serde(default)]
    topk_sample_logprobs: usize,
    #[serde(default)]
    target_prompt_logprobs: Option<Value>,
    #[serde(default)]
    prompt_alt_tokens_k: usize,
    #[serde(default)]
    prompt_logprobs_last_n: Option<usize>,
    #[serde(default)]
    record_stability_info: Option<bool>,
    #[serde(default, rename = "type")]
    _type: IgnoredAny,
}

fn one() -> usize {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prompt {
    chunks: Vec<Chunk>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Chunk {
    EncodedText { tokens: Vec<i64> },
    Image {},
    ImageAssetPointer {},
    Dmel {},
}

/// Tinker's sampling parameters with its defaults.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    max_tokens: Option<i64>,
    seed: Option<i64>,
    stop: Option<Stop>,
    temperature: f64,
    top_k: i64,
    top_p: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { max_tokens: None, seed: None, stop: None, temperature: 1.0, top_k: -1, top_p: 1.0 }
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text, a list of texts, or a list of token ids")]
enum Stop {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<i64>),
}

impl Params {
    /// The engine's parameters for a prompt of so many tokens.
    fn engine(&self, prompt: usize, context: usize) -> Result<SamplingParams, Refusal> {
        let room = context.saturating_sub(prompt);
        let max_tokens = match self.max_tokens {
            None => room.max(1),
            Some(tokens) => {
                usize::try_from(tokens).ok().filter(|tokens| *tokens >= 1).ok_or_else(|| {
                    Refusal::field("sampling_params.max_tokens", "at least 1", tokens)
                })?
            }
        };
        let top_k =
            match self.top_k {
                -1 => None,
                top_k => Some(usize::try_from(top_k).ok().filter(|top_k| *top_k >= 1).ok_or_else(
                    || Refusal::field("sampling_params.top_k", "-1 for all, or at least 1", top_k),
                )?),
            };

        let mut params = SamplingParams {
            max_tokens,
            temperature: self.temperature,
            top_k,
            top_p: (self.top_p < 1.0).then_some(self.top_p),
            seed: self.seed.map_or_else(super::models::random_seed, |seed| seed as u64),
            ..SamplingParams::default()
        };
        if self.top_p > 1.0 {
            return Err(Refusal::field(
                "sampling_params.top_p",
                "above 0 and at most 1",
                self.top_p,
            ));
        }
        match &self.stop {
            None => {}
            Some(Stop::Text(text)) => params.stop = vec![text.clone()],
            Some(Stop::Texts(texts)) if texts.is_empty() => params.min_tokens = max_tokens,
            Some(Stop::Texts(texts)) => params.stop.clone_from(texts),
            Some(Stop::Tokens(tokens)) if tokens.is_empty() => params.min_tokens = max_tokens,
            Some(Stop::Tokens(tokens)) => params.stop_token_ids.clone_from(tokens),
        }
        params.validate()?;
        check_stops(&params)?;
        Ok(params)
    }
}

/// What a sample request wants beside its samples.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    prompt_logprobs: bool,
    top_prompt: usize,
    top_sampled: usize,
    last: Option<usize>,
    temperature: f64,
}

/// The most probable tokens that a request may ask for in a place.
const TOP: usize = 64;

impl Sample {
    fn wanted(&self, prompt: usize) -> Result<Wanted, Refusal> {
        for (field, asked) in [
            ("target_prompt_logprobs", self.target_prompt_logprobs.is_some()),
            ("prompt_alt_tokens_k", self.prompt_alt_tokens_k != 0),
            ("record_stability_info", self.record_stability_info == Some(true)),
        ] {
            if asked {
                return Err(Refusal::field(
                    field,
                    "none: this server does not have it",
                    "a request for it",
                ));
            }
        }
        for (field, top) in [
            ("topk_prompt_logprobs", self.topk_prompt_logprobs),
            ("topk_sample_logprobs", self.topk_sample_logprobs),
        ] {
            if top > TOP {
                return Err(Refusal::field(field, &format!("from 0 to {TOP}"), top));
            }
        }

        let prompt_logprobs = self.prompt_logprobs == Some(true);
        if let Some(last) = self.prompt_logprobs_last_n {
            let any = prompt_logprobs || self.topk_prompt_logprobs > 0;
            if !any || last == 0 || last >= prompt {
                let expected =
                    format!("from 1 below the prompt's {prompt} tokens, with `prompt_logprobs`");
                return Err(Refusal::field("prompt_logprobs_last_n", &expected, last));
            }
        }
        Ok(Wanted {
            prompt_logprobs,
            top_prompt: self.topk_prompt_logprobs,
            top_sampled: self.topk_sample_logprobs,
            last: self.prompt_logprobs_last_n,
            temperature: self.sampling_params.temperature,
        })
    }

    fn tokens(&self) -> Result<Vec<i64>, Refusal> {
        let mut tokens = Vec::new();
        for chunk in &self.prompt.chunks {
            match chunk {
                Chunk::EncodedText { tokens: own } => tokens.extend_from_slice(own),
                Chunk::Image {} | Chunk::ImageAssetPointer {} => return Err(no_images("image")),
                Chunk::Dmel {} => return Err(no_images("audio")),
            }
        }
        Ok(tokens)
    }
}

/// Who asks for samples, and from what.
struct Asked {
    source: Source,
    client: u64,
    /// The request's id, which follows from its numbers.
    id: String,
}

/// What a sample is drawn from: a policy, or the name of one that moves.
enum Source {
    Policy(Option<PolicySnapshot>),
    Name(String),
}

pub(crate) async fn sample(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<Sample>,
) -> Result<Json200, Refusal> {
    if app.is_stopping() {
        return Err(Refusal::stopping());
    }
    let most = app.config.limits.samples;
    if !(1..=most).contains(&request.num_samples) {
        return Err(Refusal::field(
            "num_samples",
            &format!("from 1 to {most}"),
            request.num_samples,
        ));
    }
    if app.sampling.pending() + request.num_samples > app.config.limits.pending {
        return Err(Refusal::busy("the server has as many samples to draw as it takes"));
    }

    let Asked { source, client, id } = asked(&app, &owner, &request).await?;
    let sequences: Vec<String> =
        (0..request.num_samples).map(|sample| format!("{id}:{sample}")).collect();
    let answer = json!({ "request_id": id, "sample_sequence_ids": sequences });
    if app.promises.take(&id, &owner, "sample")? == Taken::Again {
        return Ok(Json200(answer));
    }

    let prepared = prepare(&app, &request);
    let own = app.clone();
    tokio::spawn(async move {
        let outcome = match prepared {
            Ok(prepared) => draw(&own, (source, client), prepared).await,
            Err(refusal) => Err(refusal),
        };
        own.counters.sample_call(outcome.is_ok());
        own.promises.keep(&id, Outcome::from(outcome));
    });
    Ok(Json200(answer))
}

async fn asked(app: &Arc<App>, owner: &Owner, request: &Sample) -> Result<Asked, Refusal> {
    if let Some(id) = &request.sampling_session_id {
        let Some(seq) = request.seq_id else {
            return Err(Refusal::field("seq_id", "a number, with `sampling_session_id`", "none"));
        };
        let mut registry = app.registry();
        let session = {
            let sampler = registry.samplers.get_mut(id).filter(|sampler| sampler.owner == *owner);
            let sampler = sampler.ok_or_else(|| no_sampler(id))?;
            sampler.used = Instant::now();
            sampler.session.clone()
        };
        if let Some(session) = registry.sessions.get_mut(&session) {
            session.seen = Instant::now();
        }
        let source = match registry.samplers.get(id).map(|sampler| &sampler.weights) {
            Some(Weights::Policy(policy)) => Source::Policy(Some(policy.clone())),
            Some(Weights::Inflight(name)) => Source::Name(name.clone()),
            Some(Weights::Evicted) => {
                return Err(Refusal::invalid(format!(
                    "sampler {id} made room for the {} newer ones of its session: save its weights by name to keep them",
                    app.config.limits.samplers
                )));
            }
            _ => Source::Policy(None),
        };
        let client = owner.client(&session);
        return Ok(Asked { source, client, id: format!("{id}:request:{}", seq.0) });
    }

    let policy = match &request.model_path {
        Some(path) => Some(policy_of_path(app, owner, path).await?),
        None => None,
    };
    match &request.base_model {
        Some(name) => check_base(app, name)?,
        None if policy.is_none() => {
            return Err(Refusal::field(
                "sampling_session_id",
                "it, `model_path` or `base_model`",
                "none",
            ));
        }
        None => {}
    }
    let id = format!("sample:{}", uuid::Uuid::new_v4());
    Ok(Asked { source: Source::Policy(policy), client: owner.client(""), id })
}

/// A request that has been checked.
struct Prepared {
    prompt: Vec<i64>,
    samples: usize,
    params: SamplingParams,
    wanted: Wanted,
}

fn prepare(app: &App, request: &Sample) -> Result<Prepared, Refusal> {
    let prompt = request.tokens()?;
    check_tokens("prompt", &prompt, app.vocab())?;
    if prompt.is_empty() || prompt.len() >= app.context() {
        let expected =
            format!("from 1 token to one less than the model's context of {}", app.context());
        return Err(Refusal::field("prompt", &expected, prompt.len()));
    }
    let params = request.sampling_params.engine(prompt.len(), app.context())?;
    check_tokens("sampling_params.stop", &params.stop_token_ids, app.vocab())?;
    let wanted = request.wanted(prompt.len())?;
    Ok(Prepared { prompt, samples: request.num_samples, params, wanted })
}

/// The completions of a request with the policy that wrote them.
pub(crate) struct Drawn {
    pub completions: Vec<Completion>,
}

async fn draw(
    app: &Arc<App>,
    (source, client): (Source, u64),
    prepared: Prepared,
) -> Result<Bytes, Refusal> {
    let Prepared { prompt, samples, params, wanted } = prepared;
    let request = Request::new(prompt.clone(), params).samples(samples).client(client);
    let (request, policy) = match source {
        Source::Policy(policy) => (SampleRequest::new(request.policy(policy.clone())), policy),
        Source::Name(name) => {
            let now = app.sampling.policies().into_iter().find(|published| published.name == name);
            let policy = now.map(|published| published.policy);
            (SampleRequest::new(request).policy_name(name), policy)
        }
    };

    let stream = app.sampling.submit(request).await?;
    let mut drawn = Drawn { completions: Vec::with_capacity(samples) };
    for outcome in stream.outcomes().await {
        drawn.completions.push(outcome.result?);
    }
    app.counters.sampled(drawn.completions.iter().map(|own| own.tokens.len()).sum());
    let scored = scored_prompt(app, &prompt, policy.as_ref(), wanted).await?;

    let mut sequences = Vec::with_capacity(samples);
    for completion in &drawn.completions {
        let top = match wanted.top_sampled {
            0 => None,
            top => Some(
                top_of_completion(app, &prompt, completion, policy.as_ref(), wanted, top).await?,
            ),
        };
        sequences.push(SampledSequence {
            stop_reason: i32::from(completion.finish_reason != FinishReason::Stop),
            tokens: tokens_to_bytes(&completion.tokens),
            logprobs: Some(floats_to_bytes(&completion.logprobs)),
            topk_sampled_logprobs: top,
        });
    }
    Ok(encoded(&SampleResponse {
        sequences,
        prompt_logprobs: scored.logprobs.map(|logprobs| floats_to_bytes(&logprobs)),
        topk_prompt_logprobs: scored.top,
        prompt_cache_hit_tokens: 0,
    }))
}

/// What a prompt's tokens are worth, as far as that was asked for.
struct ScoredPrompt {
    /// `[L]`; the first has nothing before it and is not a number, nor are those before the last
    /// `N` that were asked for.
    logprobs: Option<Vec<f32>>,
    top: Option<TopkLogprobs>,
}

async fn scored_prompt(
    app: &Arc<App>,
    prompt: &[i64],
    policy: Option<&PolicySnapshot>,
    wanted: Wanted,
) -> Result<ScoredPrompt, Refusal> {
    if !wanted.prompt_logprobs && wanted.top_prompt == 0 {
        return Ok(ScoredPrompt { logprobs: None, top: None });
    }
    let first = wanted.last.map_or(1, |last| prompt.len() - last).max(1);
    let scored = if prompt.len() > first {
        // At temperature 1, whatever the samples are drawn at.
        score(app, policy.cloned(), prompt.to_vec(), first, wanted.top_prompt, 1.0).await?
    } else {
        Scored::default()
    };

    let logprobs = wanted.prompt_logprobs.then(|| {
        let mut all = vec![f32::NAN; prompt.len() - scored.logprobs.len()];
        all.extend_from_slice(&scored.logprobs);
        all
    });
    let top = (wanted.top_prompt > 0).then(|| {
        let empty = prompt.len() - scored.logprobs.len();
        topk(&scored, empty, wanted.top_prompt)
    });
    Ok(ScoredPrompt { logprobs, top })
}

/// Rows of the most probable tokens, `empty` rows of none before them.
fn topk(scored: &Scored, empty: usize, k: usize) -> TopkLogprobs {
    let mut tokens = vec![0; empty * k];
    let mut logprobs = vec![-99_999.0; empty * k];
    tokens.extend_from_slice(&scored.top_tokens);
    logprobs.extend_from_slice(&scored.top_logprobs);
    TopkLogprobs {
        token_ids: tokens_to_bytes(&tokens),
        logprobs: floats_to_bytes(&logprobs),
        k: k as u32,
        length: (empty + scored.logprobs.len()) as u32,
    }
}

async fn top_of_completion(
    app: &Arc<App>,
    prompt: &[i64],
    completion: &Completion,
    policy: Option<&PolicySnapshot>,
    wanted: Wanted,
    top: usize,
) -> Result<TopkLogprobs, Refusal> {
    let text = [prompt, &completion.tokens].concat();
    // Greedy samples have the log-probabilities of the distribution as it is.
    let temperature = if wanted.temperature > 0.0 { wanted.temperature } else { 1.0 };
    let scored = score(app, policy.cloned(), text, prompt.len(), top, temperature).await?;
    Ok(topk(&scored, 0, top))
}

/// A text's scores.
pub(crate) type Scored = TopScores;

/// Scores a text's tokens from place `first` on, with the `top` most probable in each one's place.
pub(crate) async fn score(
    app: &Arc<App>,
    policy: Option<PolicySnapshot>,
    text: Vec<i64>,
    first: usize,
    top: usize,
    temperature: f64,
) -> Result<Scored, Refusal> {
    let permit = app.scoring.clone().acquire_owned().await;
    let own = app.clone();
    let scored = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let model = &own.model.decoder;
        let adapter = policy.as_ref().map(|policy| &*policy.adapter);
        if top == 0 && temperature == 1.0 {
            let mut scores = score_texts(model, adapter, &[text])?.remove(0).logprobs;
            scores.drain(..first - 1);
            return Ok(Scored { logprobs: scores, ..Scored::default() });
        }
        top_logprobs(model, adapter, &text, TopRequest { first, top, temperature })
    });
    Ok(scored.await.map_err(|error| Refusal::server(&error))??)
}
