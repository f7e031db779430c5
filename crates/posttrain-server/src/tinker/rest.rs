//! Training runs, checkpoints and sessions, looked at and tidied up.

use super::sessions::Json200;
use super::weights::expiry;
use crate::app::App;
use crate::checkpoints::{CheckpointKind, CheckpointPath, CheckpointRecord, Run, SessionRecord};
use crate::keys::Owner;
use crate::refusal::Refusal;
use crate::request::Json;
use crate::signatures::GOOD;
use axum::extract::{OriginalUri, Path, Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{TimeDelta, Utc};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A part of a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    offset: usize,
    /// What belongs to a key is all that it may see, so the two are one.
    #[serde(default, rename = "access_scope")]
    _scope: Option<Scope>,
    #[serde(default)]
    project_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Scope {
    Owned,
    Accessible,
}

impl Page {
    /// The items of this page, and how the SDK is told where it stands.
    fn of<T>(&self, all: Vec<T>, usual: usize) -> Result<(Vec<T>, Value), Refusal> {
        if self.project_id.is_some() {
            return Err(Refusal::field("project_id", "none: this server has no projects", "one"));
        }
        let limit = self.limit.unwrap_or(usual).min(1000);
        let cursor = json!({ "offset": self.offset, "limit": limit, "total_count": all.len() });
        let items = all.into_iter().skip(self.offset).take(limit).collect();
        Ok((items, cursor))
    }
}

/// The parameters of an address, of which each has to be known.
type PageQuery = Result<Query<Page>, axum::extract::rejection::QueryRejection>;

fn page(query: PageQuery) -> Result<Page, Refusal> {
    query.map(|Query(page)| page).map_err(|error| Refusal::invalid(error.body_text()))
}

pub(crate) async fn runs(
    State(app): State<Arc<App>>,
    owner: Owner,
    query: PageQuery,
) -> Result<Json200, Refusal> {
    let (runs, cursor) = page(query)?.of(app.checkpoints.runs(&owner), 20)?;
    let runs: Vec<Value> = runs.iter().map(|run| run_json(&owner, run)).collect();
    Ok(Json200(json!({ "training_runs": runs, "cursor": cursor })))
}

pub(crate) async fn run(
    State(app): State<Arc<App>>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Json200, Refusal> {
    let run = app.checkpoints.run(&owner, &id).ok_or_else(|| no_run(&id))?;
    Ok(Json200(run_json(&owner, &run)))
}

fn no_run(id: &str) -> Refusal {
    Refusal::not_found(format!("there is no training run {id}"))
}

fn run_json(owner: &Owner, run: &Run) -> Value {
    let last = |kind: CheckpointKind| {
        let own = run.checkpoints.values().filter(|record| record.path.kind == kind);
        own.max_by_key(|record| record.created).map(checkpoint_json)
    };
    json!({
        "training_run_id": run.record.id,
        "base_model": run.record.base_model,
        "model_owner": owner.as_str(),
        "is_lora": true,
        "lora_rank": run.record.lora.rank,
        "corrupted": false,
        "last_request_time": run.record.last_request,
        "last_checkpoint": last(CheckpointKind::Weights),
        "last_sampler_checkpoint": last(CheckpointKind::SamplerWeights),
        "user_metadata": texts(&run.record.user_metadata),
    })
}

fn checkpoint_json(record: &CheckpointRecord) -> Value {
    json!({
        "checkpoint_id": record.path.id(),
        "checkpoint_type": record.path.kind.word(),
        "time": record.created,
        "tinker_path": record.path.to_string(),
        "size_bytes": record.bytes,
        "public": false,
        "user_metadata": texts(&record.user_metadata),
        "expires_at": record.expires,
    })
}

/// Metadata as the SDK reads it back: texts alone.
fn texts(metadata: &Map<String, Value>) -> Option<Map<String, Value>> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let texts = metadata.iter().map(|(name, value)| (name.clone(), Value::String(text(value))));
    (!metadata.is_empty()).then(|| texts.collect())
}

pub(crate) async fn run_checkpoints(
    State(app): State<Arc<App>>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Json200, Refusal> {
    let run = app.checkpoints.run(&owner, &id).ok_or_else(|| no_run(&id))?;
    let all: Vec<Value> = run.checkpoints.values().map(checkpoint_json).collect();
    Ok(Json200(json!({ "checkpoints": all, "cursor": null })))
}

pub(crate) async fn checkpoints(
    State(app): State<Arc<App>>,
    owner: Owner,
    query: PageQuery,
) -> Result<Json200, Refusal> {
    let runs = app.checkpoints.runs(&owner);
    let mut all: Vec<&CheckpointRecord> =
        runs.iter().flat_map(|run| run.checkpoints.values()).collect();
    all.sort_by_key(|record| std::cmp::Reverse(record.created));
    let (all, cursor) = page(query)?.of(all, 100)?;
    let all: Vec<Value> = all.into_iter().map(checkpoint_json).collect();
    Ok(Json200(json!({ "checkpoints": all, "cursor": cursor })))
}

/// A checkpoint's place in an address.
#[derive(Deserialize)]
pub(crate) struct OfCheckpoint {
    run: String,
    kind: String,
    name: String,
}

impl OfCheckpoint {
    fn path(&self) -> Result<CheckpointPath, Refusal> {
        format!("tinker://{}/{}/{}", self.run, self.kind, self.name).parse()
    }
}

pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    owner: Owner,
    Path(of): Path<OfCheckpoint>,
) -> Result<StatusCode, Refusal> {
    let path = of.path()?;
    app.checkpoints.delete(&owner, &path)?;
    app.registry().loaded.remove(&(owner, path.to_string()));
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ttl {
    ttl_seconds: Option<i64>,
}

pub(crate) async fn ttl(
    State(app): State<Arc<App>>,
    owner: Owner,
    Path(of): Path<OfCheckpoint>,
    Json(request): Json<Ttl>,
) -> Result<StatusCode, Refusal> {
    let expires = request.ttl_seconds.map(expiry).transpose()?;
    app.checkpoints.expire(&owner, &of.path()?, expires)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The checkpoint's adapter as a tar of a PEFT folder.
pub(crate) async fn archive(
    State(app): State<Arc<App>>,
    owner: Owner,
    Path(of): Path<OfCheckpoint>,
) -> Result<Response, Refusal> {
    let path = of.path()?;
    app.checkpoints.get(&owner, &path)?;
    let folder = app.checkpoints.adapter(&owner, &path);
    let name = path.name.clone();
    let packed = tokio::task::spawn_blocking(move || {
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_dir_all(&name, &folder)?;
        tar.into_inner()
    });
    let packed = packed.await.map_err(|error| Refusal::server(&error))?;
    let packed = packed.map_err(|error| Refusal::server(&error))?;

    let disposition = format!("attachment; filename=\"{}.tar\"", path.name.replace(':', "_"));
    let headers =
        [(CONTENT_TYPE, "application/x-tar".to_owned()), (CONTENT_DISPOSITION, disposition)];
    Ok((headers, packed).into_response())
}

/// The files of a checkpoint's PEFT folder, each with an address.
pub(crate) async fn urls(
    State(app): State<Arc<App>>,
    owner: Owner,
    Path(of): Path<OfCheckpoint>,
    headers: HeaderMap,
) -> Result<Json200, Refusal> {
    let path = of.path()?;
    app.checkpoints.get(&owner, &path)?;
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let base = format!("/api/v1/training_runs/{}/checkpoints/{}/files", path.run, path.id());
    let mut urls = HashMap::new();
    for name in FILES {
        let signed = app.signatures.sign(&format!("{base}/{name}"), &owner);
        urls.insert(name, format!("http://{host}{signed}"));
    }
    let expires = Utc::now() + TimeDelta::seconds(GOOD.as_secs() as i64);
    Ok(Json200(json!({ "urls": urls, "expires": expires })))
}

/// The files of a PEFT folder.
const FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// A file's place in an address.
#[derive(Deserialize)]
pub(crate) struct OfFile {
    run: String,
    kind: String,
    name: String,
    file: String,
}

pub(crate) async fn file(
    State(app): State<Arc<App>>,
    owner: Owner,
    Path(of): Path<OfFile>,
) -> Result<Response, Refusal> {
    let OfFile { run, kind, name, file } = of;
    let path = OfCheckpoint { run, kind, name }.path()?;
    app.checkpoints.get(&owner, &path)?;
    if !FILES.contains(&file.as_str()) {
        return Err(Refusal::not_found(format!("a PEFT folder has {}", FILES.join(" and "))));
    }
    let from: PathBuf = app.checkpoints.adapter(&owner, &path).join(&file);
    let read = tokio::task::spawn_blocking(move || std::fs::read(from)).await;
    let bytes = read.map_err(|error| Refusal::server(&error))?;
    let bytes = bytes.map_err(|error| Refusal::server(&error))?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

pub(crate) async fn sessions(
    State(app): State<Arc<App>>,
    owner: Owner,
    query: PageQuery,
) -> Result<Json200, Refusal> {
    let ids: Vec<String> = own_sessions(&app, &owner).into_iter().map(|record| record.id).collect();
    let (ids, _) = page(query)?.of(ids, 20)?;
    Ok(Json200(json!({ "sessions": ids })))
}

/// An owner's sessions, the newest first.
fn own_sessions(app: &App, owner: &Owner) -> Vec<SessionRecord> {
    let registry = app.registry();
    let own = registry.sessions.values().filter(|session| session.owner == *owner);
    let mut records: Vec<SessionRecord> = own.map(|session| session.record.clone()).collect();
    records.sort_by_key(|record| std::cmp::Reverse(record.created));
    records
}

pub(crate) async fn session(
    State(app): State<Arc<App>>,
    owner: Owner,
    Path(id): Path<String>,
) -> Result<Json200, Refusal> {
    let record = own_sessions(&app, &owner).into_iter().find(|record| record.id == id);
    let record = record.ok_or_else(|| Refusal::not_found(format!("there is no session {id}")))?;
    let runs = app.checkpoints.runs(&owner).into_iter().filter(|run| run.record.session == id);
    let runs: Vec<String> = runs.map(|run| run.record.id).collect();
    let registry = app.registry();
    let samplers: Vec<&String> = registry
        .samplers
        .iter()
        .filter(|(_, sampler)| sampler.session == id)
        .map(|(id, _)| id)
        .collect();
    Ok(Json200(json!({
        "training_run_ids": runs,
        "sampler_ids": samplers,
        "user_metadata": texts(&record.user_metadata),
        "display_name": record.display_name,
    })))
}

/// What is looked for among one's own sessions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Search {
    #[serde(default)]
    session_id: Option<String>,
    #[serde(default)]
    project_ids: Option<Vec<String>>,
    #[serde(default)]
    user_metadata: HashMap<String, String>,
    #[serde(default)]
    display_name: Option<String>,
    /// One's own: there are no others to be seen.
    #[serde(default, rename = "owner")]
    _owner: serde::de::IgnoredAny,
    #[serde(default)]
    statuses: Option<Vec<Status>>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    cursor: Option<Value>,
}

#[derive(Deserialize)]
struct Status {
    #[serde(rename = "type")]
    word: String,
}

pub(crate) async fn search(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(search): Json<Search>,
) -> Result<Json200, Refusal> {
    if search.project_ids.is_some() {
        return Err(Refusal::field("project_ids", "none: this server has no projects", "some"));
    }
    let offset =
        search.cursor.as_ref().and_then(|cursor| cursor.get("offset")).and_then(Value::as_u64);
    let offset = offset.unwrap_or_default() as usize;
    let limit = search.limit.unwrap_or(50).clamp(1, 200);
    let runs = app.checkpoints.runs(&owner);

    let found = own_sessions(&app, &owner).into_iter().filter(|record| search.matches(record));
    let found: Vec<SessionRecord> = found.skip(offset).take(limit + 1).collect();
    let more = found.len() > limit;
    let summaries: Vec<Value> =
        found.iter().take(limit).map(|record| summary(&owner, record, &runs)).collect();
    let cursor = more.then(|| json!({ "offset": offset + limit }));
    Ok(Json200(json!({ "sessions": summaries, "next_cursor": cursor })))
}

impl Search {
    fn matches(&self, record: &SessionRecord) -> bool {
        let id = self.session_id.as_ref().map(|id| *id == record.id);
        let name = self.display_name.as_ref().map(|wanted| {
            let own = record.display_name.as_deref().unwrap_or_default().to_lowercase();
            wanted.to_lowercase().split_whitespace().all(|word| own.contains(word))
        });
        let named = match (id, name) {
            (None, None) => true,
            (id, name) => id == Some(true) || name == Some(true),
        };
        let labelled = self.user_metadata.iter().all(|(key, value)| {
            record.user_metadata.get(key).and_then(Value::as_str) == Some(value)
        });
        let status = if record.finished.is_some() { "client_finished" } else { "active" };
        let in_status = self
            .statuses
            .as_ref()
            .is_none_or(|statuses| statuses.iter().any(|own| own.word == status));
        named && labelled && in_status
    }
}

fn summary(owner: &Owner, record: &SessionRecord, runs: &[Run]) -> Value {
    let own = runs.iter().filter(|run| run.record.session == record.id);
    let checkpoints: Vec<&CheckpointRecord> =
        own.flat_map(|run| run.checkpoints.values()).collect();
    let status = match &record.finished {
        Some(reason) => json!({ "type": "client_finished", "reason": { "type": reason } }),
        None => json!({ "type": "active" }),
    };
    json!({
        "session_id": record.id,
        "created_at": record.created,
        "owner": owner.as_str(),
        "project_id": "none",
        "status": status,
        "checkpoints_count": checkpoints.len(),
        "display_name": record.display_name,
        "user_metadata": texts(&record.user_metadata),
        "checkpoint_storage_bytes": checkpoints.iter().map(|record| record.bytes).sum::<u64>(),
    })
}

/// What the hosted service has beside, and this server has not.
pub(crate) async fn unserved(method: Method, OriginalUri(uri): OriginalUri) -> Refusal {
    let path: String = uri.path().chars().take(200).collect();
    Refusal::not_found(format!(
        "{method} {path}: this server has no such endpoint (no projects, no accounts, no billing, no public checkpoints)"
    ))
}
