//! Models in training: created, looked at, let go of, and taken up again after an orderly end.

use super::sessions::Json200;
use crate::app::{App, Model, Progress};
use crate::checkpoints::{LoraSpec, RunRecord};
use crate::keys::Owner;
use crate::promises::Taken;
use crate::refusal::Refusal;
use crate::request::{Json, Sequence, metadata};
use axum::extract::State;
use chrono::Utc;
use posttrain_train::{DeadGroups, Trainer, TrainerConfig};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateModel {
    session_id: String,
    model_seq_id: Sequence,
    base_model: String,
    #[serde(default)]
    user_metadata: Option<Map<String, Value>>,
    #[serde(default)]
    lora_config: Option<LoraRequest>,
    #[serde(default)]
    optimizer_config: Option<OptimizerConfig>,
    #[serde(default, rename = "type")]
    _type: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoraRequest {
    rank: i64,
    #[serde(default)]
    seed: Option<i64>,
    #[serde(default = "yes")]
    train_unembed: bool,
    #[serde(default = "yes")]
    train_mlp: bool,
    #[serde(default = "yes")]
    train_attn: bool,
}

fn yes() -> bool {
    true
}

/// Which optimizer a model has.
#[derive(Deserialize)]
pub(crate) struct OptimizerConfig {
    #[serde(rename = "type")]
    family: String,
}

impl OptimizerConfig {
    pub fn check(&self) -> Result<(), Refusal> {
        match self.family.as_str() {
            "adamw" => Ok(()),
            other => Err(Refusal::field(
                "optimizer_config.type",
                "adamw, the optimizer that this server has",
                other,
            )),
        }
    }
}

/// How every trainer of this server makes its passes: a completion without an advantage is scored
/// all the same, since its log-probabilities are part of the answer.
fn trainer_config() -> TrainerConfig {
    TrainerConfig { dead_groups: DeadGroups::Compute, ..TrainerConfig::default() }
}

/// The id that the SDK, too, gives a session's model.
pub(crate) fn model_id(session: &str, number: Sequence) -> String {
    format!("{session}:train:{}", number.0)
}

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<CreateModel>,
) -> Result<Json200, Refusal> {
    app.session(&owner, &request.session_id)?;
    check_base(&app, &request.base_model)?;
    request.optimizer_config.iter().try_for_each(OptimizerConfig::check)?;
    let Some(lora) = request.lora_config else {
        return Err(Refusal::field(
            "lora_config",
            "an adapter's rank: this server trains adapters alone",
            "none",
        ));
    };
    let spec = LoraSpec {
        rank: lora.rank,
        train_attn: lora.train_attn,
        train_mlp: lora.train_mlp,
        train_unembed: lora.train_unembed,
    };
    let most = app.config.limits.rank;
    if !(1..=most).contains(&spec.rank) {
        return Err(Refusal::field("lora_config.rank", &format!("from 1 to {most}"), spec.rank));
    }

    let seed = lora.seed.map_or_else(random_seed, |seed| seed as u64);
    let new = NewModel {
        id: model_id(&request.session_id, request.model_seq_id),
        owner,
        session: request.session_id,
        spec,
        seed,
        user_metadata: metadata(request.user_metadata)?,
    };
    let id = new.id.clone();
    let promise = new.promise();
    let answer = json!({ "type": "create_model", "model_id": id });
    create_once(&app, new, "create_model", answer, |_| Ok(())).await?;
    Ok(Json200(json!({ "request_id": promise, "model_id": id })))
}

pub(crate) fn random_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

/// A model that is to be made.
pub(crate) struct NewModel {
    pub id: String,
    pub owner: Owner,
    pub session: String,
    pub spec: LoraSpec,
    pub seed: u64,
    pub user_metadata: Map<String, Value>,
}

impl NewModel {
    pub fn promise(&self) -> String {
        format!("{}:create", self.id)
    }

    fn record(&self, base_model: &str) -> RunRecord {
        RunRecord {
            id: self.id.clone(),
            session: self.session.clone(),
            base_model: base_model.into(),
            lora: self.spec,
            seed: self.seed,
            user_metadata: self.user_metadata.clone(),
            created: Utc::now(),
            last_request: Utc::now(),
        }
    }
}

/// Makes a model unless it was made before. It is there when this returns, so that the requests
/// which follow find it; whoever waits for its promise hears `answer`.
pub(crate) async fn create_once(
    app: &Arc<App>,
    new: NewModel,
    kind: &'static str,
    answer: Value,
    fill: impl FnOnce(&mut Trainer) -> Result<(), Refusal> + Send + 'static,
) -> Result<(), Refusal> {
    let promise = new.promise();
    if app.promises.take(&promise, &new.owner, kind)? == Taken::Again {
        return Ok(());
    }

    let own = app.clone();
    // A task of its own: a client that hangs up takes the promise with it otherwise, and whoever
    // asks again waits for it for ever.
    let kept = tokio::spawn(async move {
        let of_work = own.clone();
        let owner = new.owner.clone();
        let made = tokio::task::spawn_blocking(move || {
            of_work.room_for_model(&owner)?;
            let mut trainer = fresh_trainer(&of_work, new.spec, new.seed)?;
            fill(&mut trainer)?;
            let record = new.record(&of_work.config.name);
            add(&of_work, new, trainer, HashSet::new(), record)
        });
        let outcome = match made.await {
            Ok(Ok(_)) => crate::promises::Outcome::Json(answer),
            Ok(Err(refusal)) => crate::promises::Outcome::Failed(refusal),
            Err(error) => crate::promises::Outcome::Failed(Refusal::server(&error)),
        };
        own.promises.keep(&promise, outcome);
    });
    kept.await.map_err(|error| Refusal::server(&error))
}

fn fresh_trainer(app: &App, spec: LoraSpec, seed: u64) -> Result<Trainer, Refusal> {
    let decoder = &app.model.decoder;
    let lora = spec.lora(decoder.modules())?;
    Ok(Trainer::new(decoder.clone(), &lora, trainer_config(), seed)?)
}

fn add(
    app: &App,
    new: NewModel,
    trainer: Trainer,
    applied: HashSet<i64>,
    record: RunRecord,
) -> Result<Arc<Model>, Refusal> {
    let steps = trainer.policy_version();
    let model = Model {
        id: new.id,
        owner: new.owner,
        session: new.session,
        lora: new.spec,
        seed: new.seed,
        client: app.training.add(trainer)?,
        applied: Mutex::new(applied),
        progress: Mutex::new(Progress { steps, ..Progress::default() }),
        waiting: AtomicU64::new(0),
    };
    app.add_model(model, record)
}

/// Takes up a model that an orderly end left on the disk; `None` if there is none of this id.
pub(crate) fn revived(app: &App, owner: &Owner, id: &str) -> Result<Option<Arc<Model>>, Refusal> {
    if app.checkpoints.run(owner, id).is_none_or(|run| !run.live) {
        return Ok(None);
    }
    let _guard = app.reviving.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(model) = app.registry().models.get(id) {
        return Ok(Some(model.clone()));
    }
    let Some(run) = app.checkpoints.run(owner, id).filter(|run| run.live) else { return Ok(None) };
    // What is taken up now would not be kept again.
    if app.is_stopping() {
        return Err(Refusal::stopping());
    }
    app.room_for_model(owner)?;
    let Some((live, state)) = app.checkpoints.live(owner, id)? else { return Ok(None) };

    let mut trainer = fresh_trainer(app, run.record.lora, run.record.seed)?;
    load_state(&mut trainer, &state)?;
    trainer.load_gradient(&state)?;

    let new = NewModel {
        id: id.into(),
        owner: owner.clone(),
        session: run.record.session.clone(),
        spec: run.record.lora,
        seed: run.record.seed,
        user_metadata: run.record.user_metadata.clone(),
    };
    let model = add(app, new, trainer, live.applied.into_iter().collect(), run.record)?;
    app.session_again(&model);
    app.checkpoints.forget_live(owner, id);
    tracing::info!("model {id} goes on where the server's last end left it");
    Ok(Some(model))
}

/// Reads a trainer's state.
pub(crate) fn load_state(trainer: &mut Trainer, state: &Path) -> Result<(), Refusal> {
    Ok(trainer.load_state(state)?)
}

/// Checks that a client asks for the model that is served.
pub(crate) fn check_base(app: &App, name: &str) -> Result<(), Refusal> {
    if name == app.config.name {
        return Ok(());
    }
    let expected = format!("{:?}, the model that this server has", app.config.name);
    Err(Refusal::field("base_model", &expected, format!("{name:?}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfModel {
    model_id: String,
    #[serde(default, rename = "type")]
    _type: IgnoredAny,
}

pub(crate) async fn info(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<OfModel>,
) -> Result<Json200, Refusal> {
    let model = app.model(&owner, &request.model_id)?;
    let arch = format!("{:?}", app.model.decoder.config().architecture).to_lowercase();
    Ok(Json200(json!({
        "type": "get_info",
        "model_id": model.id,
        "model_name": app.config.name,
        "model_data": { "arch": arch, "model_name": app.config.name, "tokenizer_id": app.config.name },
        "is_lora": true,
        "lora_rank": model.lora.rank,
        "optimizer_config": { "type": "adamw" },
    })))
}

pub(crate) async fn unload(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<OfModel>,
) -> Result<Json200, Refusal> {
    let model = app.model(&owner, &request.model_id)?;
    let promise = format!("{}:unload", model.id);
    if app.promises.take(&promise, &owner, "unload_model")? == Taken::New {
        app.registry().models.remove(&model.id);
        let _ = app.sampling.retire(&model.id);
        let answer = json!({ "type": "unload_model", "model_id": model.id });
        app.promises.keep(&promise, answer);
    }
    Ok(Json200(json!({ "request_id": promise, "model_id": model.id })))
}
