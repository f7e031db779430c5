//! Sessions, heartbeats, capabilities, results.

use crate::app::{App, Session};
use crate::checkpoints::SessionRecord;
use crate::keys::Owner;
use crate::promises::{Outcome, try_again};
use crate::refusal::Refusal;
use crate::request::{Json, metadata};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Instant;

pub(crate) async fn healthz() -> Json200 {
    Json200(json!({ "status": "ok" }))
}

/// A JSON answer.
pub(crate) struct Json200(pub Value);

impl IntoResponse for Json200 {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigRequest {
    #[serde(default)]
    sdk_version: Option<String>,
}

/// The SDK's flags: its own defaults, and no others.
pub(crate) async fn config(Json(request): Json<ConfigRequest>) -> Json200 {
    tracing::debug!("a client of SDK {}", request.sdk_version.unwrap_or_default());
    Json200(json!({}))
}

pub(crate) async fn capabilities(State(app): State<Arc<App>>) -> Json200 {
    Json200(json!({
        "supported_models": [{
            "model_name": app.config.name,
            "max_context_length": app.context(),
            "trainable": true,
            "sampleable": true,
        }],
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateSession {
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    user_metadata: Option<Map<String, Value>>,
    #[serde(default)]
    sdk_version: String,
    #[serde(default)]
    project_id: Option<String>,
    #[serde(default)]
    display_name: Option<String>,
    #[serde(default, rename = "type")]
    _type: IgnoredAny,
}

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<CreateSession>,
) -> Result<Json200, Refusal> {
    let id = uuid::Uuid::new_v4().to_string();
    let record = SessionRecord {
        id: id.clone(),
        owner: owner.as_str().into(),
        created: Utc::now(),
        sdk_version: shortened(&request.sdk_version),
        tags: request.tags.iter().take(32).map(|tag| shortened(tag)).collect(),
        display_name: request.display_name.as_deref().map(shortened),
        user_metadata: metadata(request.user_metadata)?,
        finished: None,
    };

    add(&app, Session { owner, record, seen: Instant::now() })?;
    app.write_sessions();

    let mut answer = json!({ "type": "create_session", "session_id": id });
    if request.project_id.is_some() {
        answer["warning_message"] =
            json!("this server has no projects: `project_id` changes nothing");
    }
    Ok(Json200(answer))
}

/// Takes a session in, as far as its owner may have another.
fn add(app: &App, session: Session) -> Result<(), Refusal> {
    let mut registry = app.registry();
    let own = registry.sessions.values().filter(|other| other.owner == session.owner);
    let open = own.filter(|other| other.record.finished.is_none()).count();
    let most = app.config.limits.sessions;
    if open >= most {
        return Err(Refusal::invalid(format!(
            "{most} sessions of this key are open, as many as it may have: finish some, or wait until they end"
        )));
    }
    registry.sessions.insert(session.record.id.clone(), session);
    Ok(())
}

/// A name that a page can show.
fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Heartbeat {
    session_id: String,
    #[serde(default, rename = "type")]
    _type: IgnoredAny,
}

pub(crate) async fn heartbeat(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<Heartbeat>,
) -> Result<Json200, Refusal> {
    app.session(&owner, &request.session_id)?;
    Ok(Json200(json!({ "type": "session_heartbeat" })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Finish {
    reason: FinishReason,
    #[serde(default)]
    detail: Option<String>,
}

#[derive(Deserialize)]
struct FinishReason {
    #[serde(rename = "type")]
    word: String,
}

pub(crate) async fn finish(
    State(app): State<Arc<App>>,
    owner: Owner,
    Path(id): Path<String>,
    Json(request): Json<Finish>,
) -> Result<StatusCode, Refusal> {
    app.session(&owner, &id)?;
    if let Some(detail) = request.detail {
        tracing::info!("session {id} is finished: {}", shortened(&detail));
    }
    if let Some(session) = app.registry().sessions.get_mut(&id) {
        session.record.finished = Some(shortened(&request.reason.word));
    }
    app.free(&id);
    app.write_sessions();
    Ok(StatusCode::NO_CONTENT)
}

/// The SDK's telemetry is taken and dropped.
pub(crate) async fn telemetry(Json(_): Json<IgnoredAny>) -> Json200 {
    Json200(json!({ "status": "accepted" }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retrieve {
    request_id: String,
    /// A result is always sent whole.
    #[serde(default, rename = "allow_metadata_only")]
    _allow_metadata_only: bool,
}

pub(crate) async fn retrieve(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<Retrieve>,
) -> Result<Response, Refusal> {
    let request_id = request.request_id;
    let waited = app.promises.wait(&request_id, &owner, app.config.limits.poll).await?;
    let Some(outcome) = waited else {
        return Ok(
            (StatusCode::REQUEST_TIMEOUT, axum::Json(try_again(&request_id))).into_response()
        );
    };
    Ok(match &*outcome {
        Outcome::Json(value) => axum::Json(value).into_response(),
        Outcome::Proto(bytes) => {
            ([(CONTENT_TYPE, "application/x-protobuf")], bytes.clone()).into_response()
        }
        // A job that failed is no failed request to the SDK: it repeats those.
        Outcome::Failed(refusal) => {
            let category = if refusal.is_users() { "user" } else { "server" };
            axum::Json(json!({ "error": refusal.detail, "category": category })).into_response()
        }
    })
}
