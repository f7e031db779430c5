//! What all requests of a server share.

use crate::checkpoints::{CheckpointKind, Checkpoints, LoraSpec, RunRecord, SessionRecord};
use crate::counters::Counters;
use crate::gateway::Episodes;
use crate::keys::Owner;
use crate::learn::Learning;
use crate::promises::Promises;
use crate::refusal::Refusal;
use crate::routed::RoutedModel;
use crate::signatures::Signatures;
use crate::{ServerConfig, ServerError};
use chrono::Utc;
use posttrain_model::TextModel;
use posttrain_rollout::PolicySnapshot;
use posttrain_rollout::service::SamplingClient;
use posttrain_train::{TrainingClient, TrainingService};
use serde_json::Map;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Semaphore;

/// A client's session.
pub(crate) struct Session {
    pub owner: Owner,
    pub record: SessionRecord,
    /// When it was last heard of.
    pub seen: Instant,
}

/// A model in training.
pub(crate) struct Model {
    pub id: String,
    pub owner: Owner,
    pub session: String,
    pub lora: LoraSpec,
    pub seed: u64,
    pub client: TrainingClient,
    /// The requests that have been applied, or wait to be.
    pub applied: Mutex<HashSet<i64>>,
    pub progress: Mutex<Progress>,
    /// Calls that wait or run.
    pub waiting: AtomicU64,
}

impl Model {
    /// The requests that have been applied, or wait to be.
    pub fn applied(&self) -> Vec<i64> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

/// How a model's training goes, for the page that a person looks at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    pub steps: u64,
    /// The sum of the losses since the last step, and the entries that they are of.
    pub loss: f64,
    pub entries: u64,
    /// The mean loss of an entry and the gradient's norm of each step, the latest of them.
    pub history: VecDeque<StepPoint>,
    pub failed: Option<String>,
}

/// A step of a model.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct StepPoint {
    pub step: u64,
    pub loss: f64,
    pub grad_norm: f64,
}

/// Steps that are shown of a model.
const HISTORY: usize = 1000;

impl Progress {
    pub fn step(&mut self, grad_norm: f64) {
        self.steps += 1;
        let loss = self.loss / self.entries.max(1) as f64;
        self.history.push_back(StepPoint { step: self.steps, loss, grad_norm });
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
        self.loss = 0.0;
        self.entries = 0;
    }
}

/// What a sampler samples from.
#[derive(Clone)]
pub(crate) enum Weights {
    Base,
    /// A checkpoint, or a snapshot that was never written.
    Policy(PolicySnapshot),
    /// Whatever the model's training publishes: the name that it does so by.
    Inflight(String),
    /// A snapshot that made room for others.
    Evicted,
}

/// A sampling session.
pub(crate) struct Sampler {
    pub owner: Owner,
    pub session: String,
    pub model_path: Option<String>,
    pub weights: Weights,
    pub used: Instant,
}

/// Everything that is in memory alone.
#[derive(Default)]
pub(crate) struct Registry {
    pub sessions: HashMap<String, Session>,
    pub models: BTreeMap<String, Arc<Model>>,
    pub samplers: HashMap<String, Sampler>,
    /// Adapters that OpenAI's clients have loaded, by owner and name.
    pub adapters: BTreeMap<(Owner, String), PolicySnapshot>,
    /// Policies that were read from checkpoints, by owner and path: whoever asks for a path again
    /// gets the same copy, and is sampled in the same batch.
    pub loaded: HashMap<(Owner, String), (PolicySnapshot, Instant)>,
    /// Requests that each owner may still make at once, and when that was counted.
    pub allowance: HashMap<Owner, (f64, Instant)>,
}

/// What all requests share.
pub(crate) struct App {
    pub config: ServerConfig,
    pub model: TextModel,
    pub sampling: SamplingClient,
    pub training: TrainingService,
    pub promises: Promises,
    pub checkpoints: Checkpoints,
    pub counters: Counters,
    pub routed: Option<RoutedModel>,
    pub signatures: Signatures,
    pub episodes: Episodes,
    pub learning: Option<Learning>,
    /// Passes that score texts, one at a time: each uses all cores.
    pub scoring: Arc<Semaphore>,
    writing_sessions: Mutex<()>,
    /// Held by every answer to OpenAI's clients that is under way.
    pub answering: Arc<()>,
    pub stopping: AtomicBool,
    pub started: Instant,
    registry: Mutex<Registry>,
    /// Held while a model is taken up again, so that two requests do not both.
    pub reviving: Mutex<()>,
}

impl App {
    pub fn new(
        config: ServerConfig,
        model: TextModel,
        sampling: SamplingClient,
        training: TrainingService,
        routed: Option<RoutedModel>,
    ) -> Result<Self, ServerError> {
        let checkpoints = Checkpoints::open(&config.data)?;
        let learn = |learn| Learning::start(&model, sampling.clone(), learn, &config.data);
        let learning = config.learn.clone().map(learn).transpose()?;
        let promises = Promises::new(config.limits.result_bytes);
        // What was acknowledged, or would have been a moment later, is found by a client that asks
        // again.
        for (owner, record) in checkpoints.all() {
            let value = serde_json::json!({ "path": record.path.to_string() });
            promises.remember(&record.request, &owner, record.path.kind.request(), value);
        }

        for record in checkpoints.take_results()? {
            promises.restore(record);
        }

        let mut registry = Registry::default();
        for record in checkpoints.sessions()? {
            let owner = Owner::of_folder(&record.owner);
            let session = Session { owner, record: record.clone(), seen: Instant::now() };
            registry.sessions.insert(record.id, session);
        }

        Ok(Self {
            config,
            model,
            sampling,
            training,
            promises,
            checkpoints,
            counters: Counters::default(),
            routed,
            signatures: Signatures::new(),
            episodes: Episodes::default(),
            learning,
            scoring: Arc::new(Semaphore::new(1)),
            stopping: AtomicBool::new(false),
            started: Instant::now(),
            registry: Mutex::new(registry),
            reviving: Mutex::default(),
            writing_sessions: Mutex::default(),
            answering: Arc::default(),
        })
    }

    pub fn registry(&self) -> MutexGuard<'_, Registry> {
        // Nothing panics while the lock is held.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the server takes nothing more.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Tokens that the model reads at most.
    pub fn context(&self) -> usize {
        self.model.decoder.config().max_position_embeddings as usize
    }

    pub fn vocab(&self) -> i64 {
        self.model.decoder.config().vocab_size
    }

    /// Counts a request against what its owner may make.
    pub fn allow(&self, owner: &Owner) -> Result<(), Refusal> {
        let rate = self.config.limits.requests_per_second;
        let now = Instant::now();
        let mut registry = self.registry();
        let most = rate * 10.0;
        let (left, counted) = registry.allowance.get(owner).copied().unwrap_or((most, now));
        let left = (left + rate * now.duration_since(counted).as_secs_f64()).min(most);
        if left < 1.0 {
            registry.allowance.insert(owner.clone(), (left, now));
            return Err(Refusal::busy(format!("more than {rate} requests per second")));
        }
        registry.allowance.insert(owner.clone(), (left - 1.0, now));
        Ok(())
    }

    /// A session of this owner that is open, which is seen by that.
    pub fn session(&self, owner: &Owner, id: &str) -> Result<(), Refusal> {
        let mut registry = self.registry();
        match registry.sessions.get_mut(id).filter(|session| session.owner == *owner) {
            Some(session) if session.record.finished.is_some() => {
                Err(Refusal::gone(format!("session {id} is finished")))
            }
            Some(session) => {
                session.seen = Instant::now();
                Ok(())
            }
            None => Err(Refusal::not_found(format!(
                "there is no session {id}: it ended after {} s without a heartbeat, or the server has started anew since",
                self.config.limits.session_timeout.as_secs()
            ))),
        }
    }

    /// A model of this owner in training, whose session is seen by that.
    pub fn model(&self, owner: &Owner, id: &str) -> Result<Arc<Model>, Refusal> {
        {
            let mut registry = self.registry();
            let found = registry.models.get(id).filter(|model| model.owner == *owner).cloned();
            if let Some(model) = found {
                if let Some(session) = registry.sessions.get_mut(&model.session) {
                    session.seen = Instant::now();
                }
                return Ok(model);
            }
        }
        if let Some(model) = crate::tinker::revived(self, owner, id)? {
            return Ok(model);
        }
        Err(self.no_model(owner, id))
    }

    /// Why there is no model of this id, and where its client can go on from.
    fn no_model(&self, owner: &Owner, id: &str) -> Refusal {
        let Some(run) = self.checkpoints.run(owner, id) else {
            return Refusal::not_found(format!("there is no model {id}"));
        };
        let saved = run.checkpoints.values();
        let last = saved
            .filter(|record| record.path.kind == CheckpointKind::Weights)
            .max_by_key(|record| record.created);
        let go_on = match last {
            Some(record) => format!("its last checkpoint is {}", record.path),
            None => "it was never saved".into(),
        };
        Refusal::gone(format!(
            "model {id} is no longer in memory: its session ended, or the server has started anew since; {go_on}"
        ))
    }

    /// Takes a model in, and its run, if there is still room.
    pub fn add_model(&self, model: Model, record: RunRecord) -> Result<Arc<Model>, Refusal> {
        let model = Arc::new(model);
        {
            let mut registry = self.registry();
            self.room_among(&registry, &model.owner)?;
            registry.models.insert(model.id.clone(), model.clone());
        }
        if let Err(error) = self.checkpoints.add_run(&model.owner, record) {
            self.registry().models.remove(&model.id);
            return Err(error.into());
        }
        Ok(model)
    }

    /// Opens a model's session again, where the server's end was longer than a client's silence may
    /// be: its end frees the model.
    pub fn session_again(&self, model: &Model) {
        let mut registry = self.registry();
        if registry.sessions.contains_key(&model.session) {
            return;
        }
        let record = SessionRecord {
            id: model.session.clone(),
            owner: model.owner.as_str().into(),
            created: Utc::now(),
            sdk_version: String::new(),
            tags: Vec::new(),
            display_name: None,
            user_metadata: Map::new(),
            finished: None,
        };
        let session = Session { owner: model.owner.clone(), record, seen: Instant::now() };
        registry.sessions.insert(model.session.clone(), session);
    }

    /// Checks that there is room for another model of this owner.
    pub fn room_for_model(&self, owner: &Owner) -> Result<(), Refusal> {
        self.room_among(&self.registry(), owner)
    }

    fn room_among(&self, registry: &Registry, owner: &Owner) -> Result<(), Refusal> {
        let own = registry.models.values().filter(|model| model.owner == *owner).count();
        let most = self.config.limits.models_per_key;
        if self.config.keys.is_some() && own >= most {
            return Err(Refusal::invalid(format!(
                "{most} models of this key are in training, as many as it may have: finish a session, or wait until one ends"
            )));
        }
        let most = self.config.limits.models;
        if registry.models.len() >= most {
            return Err(Refusal::invalid(format!(
                "{most} models are in training, as many as this server keeps: finish a session, or wait until one ends"
            )));
        }
        Ok(())
    }

    /// Ends sessions that nobody has been heard of for long, and throws out what has expired.
    pub fn sweep(&self) {
        let timeout = self.config.limits.session_timeout;
        let over: Vec<String> = {
            let registry = self.registry();
            let silent =
                registry.sessions.iter().filter(|(_, session)| session.seen.elapsed() > timeout);
            silent.map(|(id, _)| id.clone()).collect()
        };
        let any = !over.is_empty();
        for id in over {
            tracing::info!(
                "session {id}: no heartbeat for {} s, its models are freed",
                timeout.as_secs()
            );
            self.free(&id);
            self.registry().sessions.remove(&id);
        }
        if any {
            self.write_sessions();
        }

        self.checkpoints.sweep();
        self.promises.sweep(Instant::now());
        self.episodes.sweep(timeout);
        self.registry().loaded.retain(|_, (_, used)| used.elapsed() < timeout);
    }

    /// Keeps the sessions there are for the next start.
    pub fn write_sessions(&self) {
        // Of two writers the later one has the later list, and no request waits for the disk.
        let _alone = self.writing_sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let records: Vec<SessionRecord> =
            self.registry().sessions.values().map(|session| session.record.clone()).collect();
        if let Err(error) = self.checkpoints.write_sessions(&records) {
            tracing::warn!("the list of sessions cannot be written: {error}");
        }
    }

    /// Keeps the results that nobody has fetched yet for the next start.
    pub fn write_results(&self) {
        if let Err(error) = self.checkpoints.write_results(&self.promises.unfetched()) {
            tracing::warn!("results cannot be kept: {error}");
        }
    }

    /// Frees the models and samplers of a session. Calls that wait are done all the same.
    pub fn free(&self, session: &str) {
        let mut registry = self.registry();
        let gone: Vec<String> = {
            let own = registry.models.values().filter(|model| model.session == session);
            own.map(|model| model.id.clone()).collect()
        };
        for id in &gone {
            registry.models.remove(id);
            let _ = self.sampling.retire(id);
        }
        registry.samplers.retain(|_, sampler| sampler.session != session);
    }
}
