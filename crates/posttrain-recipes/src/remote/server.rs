//! One server: what it has loaded, how busy it is, how long it is left alone.

use super::ServersConfig;
use super::proof::Proof;
use super::wire::Dialect;
use crate::RecipeError;
use posttrain_chat::ChatError;
use posttrain_chat::client::{Endpoint, JsonClient};
use posttrain_model::Decoder;
use posttrain_rollout::{Completion, PolicySnapshot, SamplingParams};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Seconds that a server is left alone after a failure.
const REST: Duration = Duration::from_secs(5);
/// Policies beside the one in use that a server keeps: others may still be asked for.
const KEPT: usize = 1;
/// Samples that a server is asked to prove itself with: what has been learned may be to say little.
const PROOF_SAMPLES: usize = 4;
/// Tokens that each has at most.
const PROOF_TOKENS: usize = 16;
/// How long an unload may take.
const UNLOAD: Duration = Duration::from_secs(10);

/// A server.
pub(super) struct Server {
    pub url: String,
    dialect: Dialect,
    client: JsonClient,
    tolerance: f64,
    in_flight: AtomicUsize,
    resting: Mutex<Option<Instant>>,
    loaded: tokio::sync::Mutex<Vec<Loaded>>,
}

/// A policy that it has, oldest first.
#[derive(Clone)]
struct Loaded {
    policy: PolicySnapshot,
    /// The name that it is asked for by; shared with the requests under way.
    name: Arc<str>,
}

/// A group that a server is asked for.
pub(super) struct Claim<'a>(&'a Server);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a group is asked for.
pub(super) struct Ask<'a> {
    pub policy: Option<&'a PolicySnapshot>,
    /// The policy's PEFT folder.
    pub folder: Option<&'a Path>,
    pub prompt: &'a [i64],
    pub samples: usize,
    pub params: &'a SamplingParams,
    pub model: &'a Arc<Decoder>,
}

/// Why a server did not answer.
pub(super) enum Failure {
    /// Another may, or itself a while later.
    Passing(String),
    /// None will.
    Lasting(RecipeError),
}

impl Server {
    pub fn new(url: &str, config: &ServersConfig, dialect: Dialect) -> Result<Self, RecipeError> {
        Ok(Self {
            dialect,
            // As it is shown: an address may hold a password.
            url: url.parse::<Endpoint>()?.to_string(),
            client: config.client(url)?.build()?,
            tolerance: config.tolerance,
            in_flight: AtomicUsize::new(0),
            resting: Mutex::new(None),
            loaded: tokio::sync::Mutex::new(Vec::new()),
        })
    }

    /// Groups that it is asked for, or about to be.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a group among them until what comes back is dropped.
    pub fn claim(&self) -> Claim<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Claim(self)
    }

    /// How long it is left alone yet.
    pub fn rests(&self) -> Duration {
        let until = *self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    fn rest(&self) {
        let until = Instant::now() + REST;
        *self.resting.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// Has a group sampled.
    pub async fn ask(&self, ask: &Ask<'_>) -> Result<Vec<Completion>, Failure> {
        let answered = self.answer(ask).await;
        if matches!(answered, Err(Failure::Passing(_))) {
            self.rest();
        }
        answered
    }

    async fn answer(&self, ask: &Ask<'_>) -> Result<Vec<Completion>, Failure> {
        let name = match (ask.policy, ask.folder) {
            (Some(policy), Some(folder)) => Some(self.load(policy, folder, ask).await?),
            _ => None,
        };
        // More than the context has room for a server refuses.
        let context = ask.model.config().max_position_embeddings as usize;
        let room = context.saturating_sub(ask.prompt.len()).max(1);
        let max_tokens = ask.params.max_tokens.min(room);
        let params = SamplingParams { max_tokens, ..ask.params.clone() };
        let body = self.dialect.request(name.as_deref(), ask.prompt, ask.samples, &params);
        let tokens = (ask.prompt.len() + ask.samples * max_tokens) as u64;
        match self.client.post(self.dialect.endpoint(), &body, tokens).await {
            Ok(reply) => {
                let vocab = ask.model.config().vocab_size;
                let version = ask.policy.map_or(0, |policy| policy.version);
                let read = self.dialect.read(&reply, ask.samples, vocab, version);
                read.map_err(|reason| self.refused(&format!("its answer {reason}")))
            }
            Err(error) => Err(self.failed(error, name.as_deref()).await),
        }
    }

    /// The name under which it serves a policy, which it is given first, and has to prove.
    async fn load(
        &self,
        policy: &PolicySnapshot,
        folder: &Path,
        ask: &Ask<'_>,
    ) -> Result<Arc<str>, Failure> {
        let mut loaded = self.loaded.lock().await;
        if let Some(there) = loaded.iter().find(|loaded| loaded.policy.is(policy)) {
            return Ok(there.name.clone());
        }
        // Somebody has just tried in vain, while this one waited for the lock.
        if !self.rests().is_zero() {
            return Err(Failure::Passing(format!("{}: it is left alone for a while", self.url)));
        }
        let loading = self.load_anew(policy, folder, (&mut loaded, ask)).await;
        if matches!(loading, Err(Failure::Passing(_))) {
            self.rest();
        }
        loading
    }

    async fn load_anew(
        &self,
        policy: &PolicySnapshot,
        folder: &Path,
        (loaded, ask): (&mut Vec<Loaded>, &Ask<'_>),
    ) -> Result<Arc<str>, Failure> {
        // A name of its own each time: one that was used may be kept by the server.
        let name: Arc<str> = format!("v{}-{:08x}", policy.version, fastrand::u32(..)).into();
        let body = json!({"lora_name": &*name, "lora_path": folder});
        match self.client.post_text("load_lora_adapter", &body).await {
            Ok(_) => {}
            Err(ChatError::Status { status, body, .. }) if self.dialect.refuses_load(status) => {
                let reason = format!(
                    "answers {status} to the load of {}: it cannot read that folder \
                     (`sampler.adapters` names one that it can), or takes no adapters while it \
                     runs (start it with {}); it says {body:?}",
                    folder.display(),
                    self.dialect.how_to_start()
                );
                let error = RecipeError::Sampler { url: self.url.clone(), reason };
                return Err(Failure::Lasting(error));
            }
            Err(error) => return Err(self.failed(error, None).await),
        }
        let before = loaded.last().map(|loaded| loaded.policy.clone());
        if let Err(failure) = self.prove(&name, (policy, before.as_ref()), ask).await {
            self.unload(&name).await;
            return Err(failure);
        }
        loaded.push(Loaded { policy: policy.clone(), name: name.clone() });

        // What is under way holds its name, too.
        while let Some(place) = loaded
            .iter()
            .take(loaded.len().saturating_sub(1 + KEPT))
            .position(|old| Arc::strong_count(&old.name) == 1)
        {
            let old = loaded.remove(place);
            self.unload(&old.name).await;
        }
        Ok(name)
    }

    async fn unload(&self, name: &str) {
        let body = json!({"lora_name": name});
        let unload = self.client.post_text("unload_lora_adapter", &body);
        // What is left there costs the server memory; everybody waits for this.
        match tokio::time::timeout(UNLOAD, unload).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!("{}: `{name}` is not unloaded: {error}", self.url),
            Err(_) => tracing::warn!("{}: `{name}` is not unloaded within {UNLOAD:?}", self.url),
        }
    }

    async fn prove(
        &self,
        name: &str,
        (policy, before): (&PolicySnapshot, Option<&PolicySnapshot>),
        ask: &Ask<'_>,
    ) -> Result<(), Failure> {
        let context = ask.model.config().max_position_embeddings as usize;
        let tokens = PROOF_TOKENS.min(context.saturating_sub(ask.prompt.len())).max(1);
        // Greedily nothing is scored as it is drawn.
        let asked = ask.params.temperature;
        let params = SamplingParams {
            max_tokens: tokens,
            temperature: if asked > 0.0 { asked } else { 1.0 },
            seed: ask.params.seed,
            ..SamplingParams::default()
        };
        let body = self.dialect.request(Some(name), ask.prompt, PROOF_SAMPLES, &params);
        let endpoint = self.dialect.endpoint();
        let most = (PROOF_SAMPLES * PROOF_TOKENS) as u64;
        let reply = match self.client.post(endpoint, &body, most).await {
            Ok(reply) => reply,
            Err(error) => return Err(self.failed(error, None).await),
        };
        let vocab = ask.model.config().vocab_size;
        let drawn = self.dialect.read(&reply, PROOF_SAMPLES, vocab, policy.version);
        let drawn = drawn.map_err(|reason| self.refused(&format!("its answer {reason}")))?;

        let (model, prompt) = (ask.model.clone(), ask.prompt.to_vec());
        let (own, before) = (policy.clone(), before.cloned());
        let temperature = params.temperature;
        let proof = tokio::task::spawn_blocking(move || {
            let policies = (Some(&own), before.as_ref());
            Proof::of(&model, policies, &prompt, &drawn, temperature)
        });
        let proof = match proof.await {
            Ok(proof) => proof.map_err(Failure::Lasting)?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        tracing::debug!("{}: `{name}` is {:.2e} nats from the policy", self.url, proof.own);
        match proof.refusal(self.tolerance, self.dialect.how_to_start()) {
            None => Ok(()),
            Some(reason) => Err(self.refused(&reason)),
        }
    }

    fn refused(&self, reason: &str) -> Failure {
        let reason = format!("{}: {reason}", self.url);
        tracing::warn!("{reason}");
        Failure::Passing(reason)
    }

    /// What a client's error means, of a request for the policy of that name, if for one. A server
    /// that cannot be reached, or does not know a name that it was given, is started anew: the name
    /// is not asked for again.
    async fn failed(&self, error: ChatError, name: Option<&str>) -> Failure {
        let unknown = matches!(
            &error,
            ChatError::Status { status, body, .. } if self.dialect.forgot(*status, body, name)
        );
        if name.is_some() && (unknown || matches!(error, ChatError::Broken { .. })) {
            self.loaded.lock().await.retain(|loaded| Some(&*loaded.name) != name);
        }
        let away = matches!(
            error,
            ChatError::TimedOut { .. }
                | ChatError::Unavailable { .. }
                | ChatError::InvalidJson { .. }
                | ChatError::TooLarge { .. }
        );
        if unknown || away || error.is_transient() {
            tracing::warn!("{error}");
            return Failure::Passing(error.to_string());
        }
        Failure::Lasting(error.into())
    }
}
