//! A policy that learns from what it serves: what is said of completions, who is forgotten, and the
//! operator's page.

use crate::ServerError;
use crate::app::App;
use crate::keys::Owner;
use crate::refusal::{Refusal, with_sources};
use crate::request::Json;
use crate::tinker::Json200;
use axum::Router;
use axum::extract::{Path as UrlPath, Query, State};
use axum::routing::{delete, get, post};
use posttrain_model::TextModel;
use posttrain_recipes::RecipeError;
use posttrain_recipes::traffic::{
    Chosen, Feedback, FeedbackSource, HeldOut, Joined, Served, Traffic, TrafficConfig, TrafficState,
};
use posttrain_rollout::service::SamplingClient;
use posttrain_rollout::{Completion, SamplingParams};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// The operator's page: one file that fetches nothing but its own state.
pub(crate) const HTML: &str = include_str!("learn.html");

/// A policy that learns from what it serves, and the thread that does.
#[derive(Clone)]
pub(crate) struct Learning {
    pub traffic: Arc<Traffic>,
    learner: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Learning {
    /// Takes up the policy in `DATA/traffic`.
    pub fn start(
        model: &TextModel,
        client: SamplingClient,
        config: TrafficConfig,
        data: &Path,
    ) -> Result<Self, ServerError> {
        let held_out = HeldOut::open(&config.held_out)?;
        let folder = data.join("traffic");
        let (traffic, learner) = Traffic::start(model.clone(), client, held_out, config, &folder)?;
        let spawned = std::thread::Builder::new().name("learner".into()).spawn(|| learner.run());
        let learner =
            spawned.map_err(|source| ServerError::Io { path: "learner".into(), source })?;
        Ok(Self { traffic, learner: Arc::new(Mutex::new(Some(learner))) })
    }

    /// Has the learner end, and waits for it.
    pub fn end(&self) {
        self.traffic.stop();
        let learner = self.learner.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(learner) = learner {
            // Why it panicked, if it did, is on standard error.
            drop(learner.join());
        }
    }
}

/// A request that the policy answers, and what its client said of it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub chosen: Chosen,
    user: Option<String>,
    conversation: Option<String>,
    route: Option<String>,
}

impl Asked {
    /// Who answers a request with these fields: OpenAI's `user`, and `metadata`'s `conversation`
    /// and `route`.
    pub fn of(
        traffic: &Traffic,
        owner: &Owner,
        rest: &Map<String, Value>,
    ) -> Result<Self, Refusal> {
        let text = |field: &str, value: Option<&Value>| match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.len() <= 200 => Ok(Some(text.clone())),
            Some(other) => Err(Refusal::field(field, "a text of at most 200 bytes", other)),
        };
        let metadata = rest.get("metadata");
        let of_metadata = |name: &str| metadata.and_then(|metadata| metadata.get(name));
        let user = text("user", rest.get("user"))?.map(|user| user_of(owner, &user));
        let conversation = text("metadata.conversation", of_metadata("conversation"))?;
        let route = text("metadata.route", of_metadata("route"))?;

        let key = conversation.clone().or_else(|| user.clone());
        let key = key.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        Ok(Self { chosen: traffic.choose(&key), user, conversation, route })
    }
}

/// A user as one of an owner's: nobody deletes another owner's.
fn user_of(owner: &Owner, user: &str) -> String {
    format!("{}:{user}", owner.as_str())
}

/// A response whose completions are taken down.
#[derive(Clone)]
pub(crate) struct Captured {
    traffic: Arc<Traffic>,
    asked: Asked,
    id: String,
    /// Whether it has several completions, which then have numbers.
    several: bool,
}

impl Captured {
    /// The completions of the response `id`, where the policy that learns answers it.
    pub fn of(app: &App, asked: Option<&Asked>, id: &str, completions: usize) -> Option<Self> {
        let traffic = app.learning.as_ref()?.traffic.clone();
        Some(Self { traffic, asked: asked?.clone(), id: id.to_owned(), several: completions > 1 })
    }

    /// Takes a completion down. A disk that refuses keeps nobody from an answer.
    pub fn take(
        &self,
        app: &App,
        (prompt, params): (&[i64], &SamplingParams),
        index: usize,
        completion: &Completion,
    ) {
        let id = if self.several { format!("{}-{index}", self.id) } else { self.id.clone() };
        let Asked { chosen, user, conversation, route } = self.asked.clone();
        let served = Served {
            id,
            time: chrono::Utc::now().timestamp_millis() as f64 / 1000.0,
            user,
            conversation,
            route,
            version: completion.token_versions.first().copied().unwrap_or(chosen.version),
            propensity: chosen.propensity,
            temperature: params.temperature,
            prompt: prompt.to_vec(),
            tokens: completion.tokens.clone(),
            logprobs: completion.logprobs.clone(),
            versions: completion.token_versions.clone(),
            text: Some(completion.text.clone()),
        };
        let read = || app.model.tokenizer.decode_with_special(prompt).unwrap_or_default();
        if let Err(error) = self.traffic.capture(served, read) {
            tracing::warn!("a completion is served and not kept: {}", with_sources(&error));
        }
    }
}

/// Everything of a policy that learns.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/feedback", post(feedback))
        .route("/users/{user}", delete(forget))
        .route("/traffic/roll_back", post(roll_back))
        .route("/traffic/reinstate", post(reinstate))
        .route("/traffic.json", get(state))
}

fn traffic(app: &App) -> Result<Arc<Traffic>, Refusal> {
    let learning = app.learning.as_ref();
    let none = || Refusal::not_found("nothing is learned here: the server has no `--learn`");
    Ok(learning.ok_or_else(none)?.traffic.clone())
}

/// Refuses whoever may not say which version serves, or see how others' completions fared. Without
/// keys everybody is this machine's.
fn check_operator(app: &App, owner: &Owner) -> Result<(), Refusal> {
    match &app.config.keys {
        Some(keys) if !keys.is_operator(owner) => Err(Refusal::forbidden(
            "an operator's key is needed: a line `operator KEY` in the keys' file",
        )),
        _ => Ok(()),
    }
}

/// What is said of a completion, in one of three ways.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    id: String,
    #[serde(default)]
    score: Option<f64>,
    #[serde(default)]
    edit: Option<Edit>,
    #[serde(default)]
    follow_up: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Edit {
    Kept,
    Reverted,
}

/// Takes down what is said: it is in the log before it is acknowledged.
async fn feedback(
    State(app): State<Arc<App>>,
    Json(said): Json<Said>,
) -> Result<axum::Json<Value>, Refusal> {
    let traffic = traffic(&app)?;
    let id = said.id;
    let unknown =
        || Refusal::not_found(format!("`id`: there is no completion {id:?} that is kept"));
    let (source, value) = match (said.score, said.edit, said.follow_up) {
        (Some(score), None, None) => (FeedbackSource::Score, score),
        (None, Some(Edit::Kept), None) => (FeedbackSource::Edit, 1.0),
        (None, Some(Edit::Reverted), None) => (FeedbackSource::Edit, 0.0),
        (None, None, Some(text)) => {
            let value = traffic.read_follow_up(&id, &text).await.map_err(refusal)?;
            (FeedbackSource::FollowUp, value.ok_or_else(unknown)?)
        }
        _ => {
            return Err(Refusal::invalid(
                "expected one of `score`, `edit` and `follow_up` beside `id`",
            ));
        }
    };
    let time = chrono::Utc::now().timestamp_millis() as f64 / 1000.0;
    let feedback = Feedback { id: id.clone(), time, source, value };
    let joined = traffic.feedback(&feedback).map_err(refusal)?.ok_or_else(unknown)?;
    let learned = if joined == Joined::Waiting { "waiting" } else { "late" };
    Ok(axum::Json(json!({ "id": id, "value": value, "learned_from": learned })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whose {
    /// The owner whose user it is, as the log has it before the user's name: where an operator
    /// deletes for another key, which may be gone.
    #[serde(default)]
    owner: Option<String>,
}

/// Deletes what a user said and was answered.
async fn forget(
    State(app): State<Arc<App>>,
    owner: Owner,
    UrlPath(user): UrlPath<String>,
    Query(whose): Query<Whose>,
) -> Result<axum::Json<Value>, Refusal> {
    let traffic = traffic(&app)?;
    let user = match whose.owner {
        Some(other) => {
            check_operator(&app, &owner)?;
            user_of(&Owner::of_folder(&other), &user)
        }
        None => user_of(&owner, &user),
    };
    let forgotten = tokio::task::spawn_blocking(move || traffic.forget(&user)).await;
    let (deleted, versions) =
        forgotten.map_err(|error| Refusal::server(&error))?.map_err(refusal)?;
    Ok(axum::Json(json!({
        "completions": deleted.served,
        "feedback": deleted.feedback,
        "versions_that_had_learned_from_them": versions,
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RollBackRequest {
    reason: String,
}

/// Takes a version out of service.
async fn roll_back(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<RollBackRequest>,
) -> Result<axum::Json<Value>, Refusal> {
    let traffic = traffic(&app)?;
    check_operator(&app, &owner)?;
    let reason: String = request.reason.chars().take(500).collect();
    let back = tokio::task::spawn_blocking(move || traffic.roll_back(&reason)).await;
    let back = back.map_err(|error| Refusal::server(&error))?.map_err(refusal)?;
    Ok(axum::Json(json!({ "from": back.from, "to": back.to, "reason": back.reason })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reinstatement {
    version: u64,
    reason: String,
}

/// Puts a version into service again that the gate has passed.
async fn reinstate(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(request): Json<Reinstatement>,
) -> Result<axum::Json<Value>, Refusal> {
    let traffic = traffic(&app)?;
    check_operator(&app, &owner)?;
    let version = request.version;
    let reason: String = request.reason.chars().take(500).collect();
    let done = tokio::task::spawn_blocking(move || traffic.reinstate(version, &reason)).await;
    done.map_err(|error| Refusal::server(&error))?.map_err(refusal)?;
    Ok(axum::Json(json!({ "version": version })))
}

/// What the operator's page shows.
async fn state(State(app): State<Arc<App>>, owner: Owner) -> Result<Json200, Refusal> {
    let traffic = traffic(&app)?;
    check_operator(&app, &owner)?;
    let state: TrafficState = traffic.state();
    Ok(Json200(serde_json::to_value(state).map_err(|error| Refusal::server(&error))?))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refusal(error: RecipeError) -> Refusal {
    match &error {
        RecipeError::Config { .. } => Refusal::invalid(error.to_string()),
        other => Refusal::server(other),
    }
}
