//! Checkpoints: saved, loaded, taken for sampling.

use super::models::{
    NewModel, OptimizerConfig, check_base, create_once, load_state, model_id, random_seed,
};
use super::sampling::{NewSampler, add_sampler, sampler_id};
use super::sessions::Json200;
use super::training::{refused, request_id, submit_work};
use crate::app::{App, Model, Weights};
use crate::checkpoints::{CheckpointKind, CheckpointPath, CheckpointRecord};
use crate::keys::Owner;
use crate::promises::Outcome;
use crate::refusal::Refusal;
use crate::request::{Json, Sequence, metadata};
use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use posttrain_lora::{load_peft, save_peft};
use posttrain_rollout::PolicySnapshot;
use posttrain_rollout::service::Transition;
use posttrain_train::{TrainError, Trainer};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SaveWeights {
    model_id: String,
    seq_id: Sequence,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    ttl_seconds: Option<i64>,
    #[serde(default)]
    overwrite: bool,
    #[serde(default)]
    user_metadata: Option<Map<String, Value>>,
    #[serde(default, rename = "type")]
    _type: IgnoredAny,
}

/// A checkpoint that is to be written.
struct NewCheckpoint {
    kind: CheckpointKind,
    name: Option<String>,
    seq: i64,
    ttl_seconds: Option<i64>,
    overwrite: bool,
    user_metadata: Option<Map<String, Value>>,
}

impl NewCheckpoint {
    /// Its record, as far as it is known before its turn comes.
    fn record(self, app: &App, model: &Model) -> Result<CheckpointRecord, Refusal> {
        let name = self.name.unwrap_or_else(|| format!("{:06}", self.seq));
        let path = CheckpointPath::new(&model.id, self.kind, &name)?;
        may_write(app, &model.owner, &path, self.overwrite)?;
        Ok(CheckpointRecord {
            path,
            request: request_id(&model.id, self.seq),
            base_model: app.config.name.clone(),
            lora: model.lora,
            seed: model.seed,
            step: 0,
            created: Utc::now(),
            expires: self.ttl_seconds.map(expiry).transpose()?,
            user_metadata: metadata(self.user_metadata)?,
            bytes: 0,
        })
    }
}

/// Whether an owner may write a checkpoint: asked when the request comes, and again when its turn
/// does, before which others may have been written.
fn may_write(
    app: &App,
    owner: &Owner,
    path: &CheckpointPath,
    overwrite: bool,
) -> Result<(), Refusal> {
    if !overwrite && app.checkpoints.has(owner, path) {
        let detail = format!("{path} is there already: give another name, or `overwrite`");
        return Err(Refusal::invalid(detail));
    }
    let most = app.config.limits.disk_bytes;
    let used = app.checkpoints.bytes(owner);
    if used >= most {
        return Err(Refusal::invalid(format!(
            "the checkpoints of this key take {used} bytes of the {most} that they may: delete some"
        )));
    }
    Ok(())
}

/// When a checkpoint of this time to live expires: 1 hour to 10 years, as the SDK says.
pub(crate) fn expiry(seconds: i64) -> Result<DateTime<Utc>, Refusal> {
    if !(3600..=315_360_000).contains(&seconds) {
        return Err(Refusal::field(
            "ttl_seconds",
            "from 3600 (an hour) to 315360000 (ten years)",
            seconds,
        ));
    }
    Ok(Utc::now() + TimeDelta::seconds(seconds))
}

pub(crate) async fn save(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<SaveWeights>,
) -> Result<Json200, Refusal> {
    let model = app.model(&owner, &request.model_id)?;
    let new = NewCheckpoint {
        kind: CheckpointKind::Weights,
        name: request.path,
        seq: request.seq_id.0,
        ttl_seconds: request.ttl_seconds,
        overwrite: request.overwrite,
        user_metadata: request.user_metadata,
    };
    write(&app, &model, new).map(Json200)
}

/// Has a checkpoint written when its turn comes, and answers once it is on the disk.
fn write(app: &Arc<App>, model: &Arc<Model>, new: NewCheckpoint) -> Result<Value, Refusal> {
    let (seq, overwrite) = (new.seq, new.overwrite);
    let kind = new.kind.request();
    let record = match new.record(app, model) {
        Ok(record) => record,
        Err(refusal) => return refused(app, model, seq, kind, refusal),
    };

    let app_of_job = app.clone();
    let owner = model.owner.clone();
    let work = move |trainer: &mut Trainer| {
        let path = record.path.clone();
        if let Err(refusal) = may_write(&app_of_job, &owner, &path, overwrite) {
            return Ok(Outcome::Failed(refusal));
        }
        let record = CheckpointRecord { step: trainer.policy_version(), ..record };
        let base = record.base_model.clone();
        app_of_job.checkpoints.write(&owner, record, |folder| match path.kind {
            CheckpointKind::Weights => trainer.save_state(folder),
            _ => Ok(save_peft(trainer.adapter(), folder, &base)?),
        })?;
        app_of_job.counters.checkpoint();
        app_of_job.registry().loaded.remove(&(owner.clone(), path.to_string()));
        Ok(Outcome::Json(json!({ "path": path.to_string(), "type": kind })))
    };
    submit_work(app, model, seq, kind, work)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SaveForSampler {
    model_id: String,
    seq_id: Sequence,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    sampling_session_seq_id: Option<Sequence>,
    #[serde(default)]
    kind: Option<SamplerKind>,
    #[serde(default)]
    ttl_seconds: Option<i64>,
    #[serde(default)]
    user_metadata: Option<Map<String, Value>>,
    #[serde(default, rename = "type")]
    _type: IgnoredAny,
}

/// Whether a sampler's weights stay, or follow the model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SamplerKind {
    Snapshot,
    Inflight,
}

pub(crate) async fn save_for_sampler(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<SaveForSampler>,
) -> Result<Json200, Refusal> {
    let model = app.model(&owner, &request.model_id)?;
    let seq = request.seq_id.0;
    let name = "save_weights_for_sampler";
    let kind = request.kind.unwrap_or(SamplerKind::Snapshot);
    match (request.path, request.sampling_session_seq_id) {
        (Some(path), None) if kind == SamplerKind::Snapshot => {
            let new = NewCheckpoint {
                kind: CheckpointKind::SamplerWeights,
                name: Some(path),
                seq,
                ttl_seconds: request.ttl_seconds,
                overwrite: false,
                user_metadata: request.user_metadata,
            };
            write(&app, &model, new).map(Json200)
        }
        (None, Some(number)) => snapshot(&app, &model, seq, kind, number).map(Json200),
        (Some(_), None) => {
            let refusal = Refusal::field("kind", "snapshot with a `path`", "inflight");
            refused(&app, &model, seq, name, refusal).map(Json200)
        }
        (both, _) => {
            let got = if both.is_some() { "both" } else { "neither" };
            let refusal = Refusal::field("path", "either it or `sampling_session_seq_id`", got);
            refused(&app, &model, seq, name, refusal).map(Json200)
        }
    }
}

/// Takes the model's present weights for a sampler that is in memory alone.
fn snapshot(
    app: &Arc<App>,
    model: &Arc<Model>,
    seq: i64,
    kind: SamplerKind,
    number: Sequence,
) -> Result<Value, Refusal> {
    let id = sampler_id(&model.session, number);
    let new = NewSampler {
        id: id.clone(),
        owner: model.owner.clone(),
        session: model.session.clone(),
        model_path: None,
    };
    let own = app.clone();
    let name = model.id.clone();
    let work = move |trainer: &mut Trainer| {
        let policy = trainer.snapshot()?;
        let weights = match kind {
            SamplerKind::Snapshot => Weights::Policy(policy),
            SamplerKind::Inflight => {
                // Whoever samples by the name goes on under the new weights from the next token, and
                // nobody else: an ordinary snapshot of this version is another policy.
                let policy = PolicySnapshot::new((*policy.adapter).clone(), policy.version);
                own.sampling.publish(&name, policy, Transition::Follow);
                Weights::Inflight(name)
            }
        };
        add_sampler(&own, new, weights);
        Ok(Outcome::Json(json!({ "sampling_session_id": id, "type": "save_weights_for_sampler" })))
    };
    submit_work(app, model, seq, "save_weights_for_sampler", work)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SaveExternal {
    model_id: String,
    seq_id: Sequence,
    path: String,
    #[serde(default)]
    ttl_seconds: Option<i64>,
    #[serde(default)]
    age_encryption_recipients: Option<Vec<String>>,
    #[serde(default, rename = "type")]
    _type: IgnoredAny,
}

/// Writes a PEFT folder to be taken away.
pub(crate) async fn save_external(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<SaveExternal>,
) -> Result<Json200, Refusal> {
    let model = app.model(&owner, &request.model_id)?;
    let kind = CheckpointKind::ExternalWeights;
    if request.age_encryption_recipients.is_some_and(|recipients| !recipients.is_empty()) {
        let expected = "none: this server writes files as they are";
        let refusal = Refusal::field("age_encryption_recipients", expected, "some");
        return refused(&app, &model, request.seq_id.0, kind.request(), refusal).map(Json200);
    }
    let new = NewCheckpoint {
        kind,
        name: Some(request.path),
        seq: request.seq_id.0,
        ttl_seconds: request.ttl_seconds,
        overwrite: false,
        user_metadata: None,
    };
    write(&app, &model, new).map(Json200)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadWeights {
    #[serde(default)]
    model_id: Option<String>,
    #[serde(default)]
    seq_id: Option<Sequence>,
    #[serde(default)]
    session_id: Option<String>,
    #[serde(default)]
    model_seq_id: Option<Sequence>,
    #[serde(default)]
    base_model: Option<String>,
    #[serde(default)]
    user_metadata: Option<Map<String, Value>>,
    path: String,
    optimizer: bool,
    #[serde(default)]
    optimizer_config: Option<OptimizerConfig>,
    #[serde(default)]
    weights_access_token: Option<String>,
    #[serde(default, rename = "type")]
    _type: IgnoredAny,
}

/// Loads a checkpoint into a model, or makes a model of it.
pub(crate) async fn load(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<LoadWeights>,
) -> Result<Json200, Refusal> {
    request.optimizer_config.iter().try_for_each(OptimizerConfig::check)?;
    request.base_model.iter().try_for_each(|name| check_base(&app, name))?;
    if request.weights_access_token.is_some() {
        return Err(Refusal::field(
            "weights_access_token",
            "none: checkpoints are their key's own",
            "one",
        ));
    }
    match (&request.model_id, request.seq_id, &request.session_id, request.model_seq_id) {
        (Some(id), Some(seq), None, None) => {
            let model = app.model(&owner, id)?;
            load_into(&app, &model, seq.0, &request).map(Json200)
        }
        (None, None, Some(session), Some(number)) => {
            let (session, number) = (session.clone(), number);
            create_via_load(&app, owner, session, number, request).await.map(Json200)
        }
        _ => {
            let expected = "either it and `seq_id`, or `session_id` and `model_seq_id`";
            Err(Refusal::field("model_id", expected, "another combination"))
        }
    }
}

/// A checkpoint to train on from, which fits what is asked of it.
fn loadable(
    app: &App,
    owner: &Owner,
    path: &str,
    optimizer: bool,
) -> Result<CheckpointRecord, Refusal> {
    let record = app.checkpoints.get(owner, &path.parse()?)?;
    check_base(app, &record.base_model)?;
    if optimizer && record.path.kind != CheckpointKind::Weights {
        return Err(Refusal::field(
            "path",
            "a checkpoint of `save_weights`, which holds the optimizer's state",
            path,
        ));
    }
    Ok(record)
}

fn load_into(
    app: &Arc<App>,
    model: &Arc<Model>,
    seq: i64,
    request: &LoadWeights,
) -> Result<Value, Refusal> {
    let record = match loadable(app, &model.owner, &request.path, request.optimizer) {
        Ok(record) => record,
        Err(refusal) => return refused(app, model, seq, "load_weights", refusal),
    };
    let state = app.checkpoints.state(&model.owner, &record.path);
    let adapter = app.checkpoints.adapter(&model.owner, &record.path);
    let optimizer = request.optimizer;
    let answer = json!({ "path": request.path, "model_id": model.id, "type": "load_weights" });
    let work = move |trainer: &mut Trainer| {
        fill(trainer, &state, &adapter, optimizer)?;
        Ok(Outcome::Json(answer))
    };
    submit_work(app, model, seq, "load_weights", work)
}

fn fill(
    trainer: &mut Trainer,
    state: &Path,
    adapter: &Path,
    optimizer: bool,
) -> Result<(), TrainError> {
    if optimizer { trainer.load_state(state) } else { trainer.load_weights(adapter) }
}

async fn create_via_load(
    app: &Arc<App>,
    owner: Owner,
    session: String,
    number: Sequence,
    request: LoadWeights,
) -> Result<Value, Refusal> {
    app.session(&owner, &session)?;
    let record = loadable(app, &owner, &request.path, request.optimizer)?;
    let state = app.checkpoints.state(&owner, &record.path);
    let adapter = app.checkpoints.adapter(&owner, &record.path);

    let new = NewModel {
        id: model_id(&session, number),
        owner,
        session,
        spec: record.lora,
        seed: if request.optimizer { record.seed } else { random_seed() },
        user_metadata: metadata(request.user_metadata)?,
    };
    let promise = new.promise();
    let id = new.id.clone();
    let answer = json!({ "path": request.path, "model_id": id, "type": "load_weights" });
    let optimizer = request.optimizer;
    let from = move |trainer: &mut Trainer| {
        if optimizer { load_state(trainer, &state) } else { Ok(trainer.load_weights(&adapter)?) }
    };
    create_once(app, new, "load_weights", answer, from).await?;
    Ok(json!({ "request_id": promise, "model_id": id }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WeightsInfo {
    tinker_path: String,
}

pub(crate) async fn info(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<WeightsInfo>,
) -> Result<Json200, Refusal> {
    let record = app.checkpoints.get(&owner, &request.tinker_path.parse()?)?;
    Ok(Json200(json!({
        "base_model": record.base_model,
        "is_lora": true,
        "lora_rank": record.lora.rank,
        "train_unembed": record.lora.train_unembed,
        "train_mlp": record.lora.train_mlp,
        "train_attn": record.lora.train_attn,
        "optimizer_config": { "type": "adamw" },
    })))
}

/// Reads a PEFT folder as a policy to sample from.
pub(crate) fn load_adapter(app: &App, folder: &Path) -> Result<PolicySnapshot, Refusal> {
    let decoder = &app.model.decoder;
    let adapter = load_peft(folder, decoder.modules(), decoder.device());
    let snapshot = adapter.and_then(|adapter| adapter.snapshot(decoder.kind()));
    let snapshot =
        snapshot.map_err(|error| Refusal::invalid(crate::refusal::with_sources(&error)))?;
    Ok(PolicySnapshot::new(snapshot, 0))
}
