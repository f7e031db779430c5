//! A gateway for agent programs that nobody here wrote: each episode has an address of its own that
//! speaks OpenAI's protocol and Anthropic's, and what was sampled there is kept token for token, for a trainer.

use crate::anthropic::{self, MessagesRequest};
use crate::app::App;
use crate::keys::Owner;
use crate::openai::{ChatRequest, Dialect, answer, models};
use crate::refusal::{Refusal, with_sources};
use crate::request::Json;
use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::response::Response;
use axum::routing::{get, post};
use posttrain_chat::{Message, Tool, ToolFormat};
use posttrain_environment::{Capture, CapturedCall, Trajectory};
use posttrain_rollout::Completion;
use posttrain_store::{JsonLog, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Episodes that are open at a time, at most.
const OPEN: usize = 4096;

/// Everything under `/episodes`.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", post(open))
        .route("/{id}", get(read).delete(give_up))
        .route("/{id}/reward", post(reward))
        .route("/{id}/v1/models", get(models))
        .route("/{id}/v1/chat/completions", post(complete))
        .route("/{id}/v1/messages", post(say))
}

/// The episodes that are open.
#[derive(Default)]
pub(crate) struct Episodes {
    open: Mutex<HashMap<(Owner, String), Arc<Episode>>>,
    /// What each owner's episodes came to.
    logs: Mutex<HashMap<Owner, JsonLog<Line>>>,
}

/// An agent program's episode.
pub(crate) struct Episode {
    id: String,
    capture: Mutex<Capture>,
    used: Mutex<Instant>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of these is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Episode {
    /// Puts a conversation to the model, behind what was sampled of it.
    pub fn prepare(
        &self,
        app: &App,
        messages: Vec<Message>,
        tools: Vec<Tool>,
    ) -> Result<CapturedCall, Refusal> {
        *locked(&self.used) = Instant::now();
        let call = locked(&self.capture).prepare(&app.model, ToolFormat::Hermes, (messages, tools));
        call.map_err(|error| Refusal::invalid(with_sources(&error)))
    }

    /// Takes down what was sampled, and the message that the program was sent.
    pub fn record(&self, call: CapturedCall, completion: &Completion, message: Value) {
        // The message was made here, from a message's fields.
        let message = serde_json::from_value(message)
            .unwrap_or_else(|_| Message::assistant(completion.text.as_str()));
        locked(&self.capture).record(call, completion, message);
        *locked(&self.used) = Instant::now();
    }
}

impl Episodes {
    fn find(&self, owner: &Owner, id: &str) -> Result<Arc<Episode>, Refusal> {
        let found = locked(&self.open).get(&(owner.clone(), id.to_owned())).cloned();
        found.ok_or_else(|| Refusal::not_found(format!("there is no open episode {id}")))
    }

    fn take(&self, owner: &Owner, id: &str) -> Result<Arc<Episode>, Refusal> {
        let taken = locked(&self.open).remove(&(owner.clone(), id.to_owned()));
        taken.ok_or_else(|| Refusal::not_found(format!("there is no open episode {id}")))
    }

    /// Writes an episode down, behind the others of its owner.
    fn write(&self, folder: &Path, owner: &Owner, line: &Line) -> Result<(), StoreError> {
        let mut logs = locked(&self.logs);
        let log = match logs.entry(owner.clone()) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => {
                let path = folder.join(format!("{}.jsonl", owner.as_str()));
                place.insert(JsonLog::open(&path, |_| true)?.0)
            }
        };
        log.append(line)
    }

    /// Gives up episodes that nobody has called for long.
    pub fn sweep(&self, timeout: Duration) {
        locked(&self.open).retain(|_, episode| {
            let open = locked(&episode.used).elapsed() < timeout;
            if !open {
                tracing::info!("episode {}: no call for {} s", episode.id, timeout.as_secs());
            }
            open
        });
    }
}

/// What opens an episode.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Opening {
    /// Whose episode it is, where several policies act.
    #[serde(default)]
    role: Option<String>,
}

async fn open(
    State(app): State<Arc<App>>,
    owner: Owner,
    Json(opening): Json<Opening>,
) -> Result<axum::Json<Value>, Refusal> {
    if app.is_stopping() {
        return Err(Refusal::stopping());
    }
    let id = uuid::Uuid::new_v4().simple().to_string();
    let role = opening.role.unwrap_or_else(|| "policy".into());
    if role.len() > 200 {
        return Err(Refusal::field("role", "at most 200 bytes", role.len()));
    }
    let episode = Episode {
        id: id.clone(),
        capture: Mutex::new(Capture::new(role)),
        used: Mutex::new(Instant::now()),
    };
    let mut open = locked(&app.episodes.open);
    if open.keys().filter(|(whose, _)| *whose == owner).count() >= OPEN {
        return Err(Refusal::busy(format!("{OPEN} episodes are open: reward or delete some")));
    }
    open.insert((owner, id.clone()), Arc::new(episode));
    Ok(axum::Json(json!({ "id": id, "path": format!("/episodes/{id}/v1") })))
}

async fn complete(
    State(app): State<Arc<App>>,
    owner: Owner,
    UrlPath(id): UrlPath<String>,
    Json(request): Json<ChatRequest>,
) -> Result<Response, Refusal> {
    let episode = app.episodes.find(&owner, &id)?;
    answer(&app, &owner, request, Some(episode), Dialect::OpenAi).await
}

async fn say(
    State(app): State<Arc<App>>,
    owner: Owner,
    UrlPath(id): UrlPath<String>,
    Json(request): Json<MessagesRequest>,
) -> Result<Response, Refusal> {
    let episode = app.episodes.find(&owner, &id)?;
    anthropic::say(&app, &owner, request, Some(episode)).await
}

async fn read(
    State(app): State<Arc<App>>,
    owner: Owner,
    UrlPath(id): UrlPath<String>,
) -> Result<axum::Json<Trajectory>, Refusal> {
    let episode = app.episodes.find(&owner, &id)?;
    let trajectory = locked(&episode.capture).trajectory().clone();
    Ok(axum::Json(trajectory))
}

async fn give_up(
    State(app): State<Arc<App>>,
    owner: Owner,
    UrlPath(id): UrlPath<String>,
) -> Result<axum::Json<Value>, Refusal> {
    app.episodes.take(&owner, &id)?;
    Ok(axum::Json(json!({ "id": id, "deleted": true })))
}

/// What an episode earned.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reward {
    reward: f64,
}

/// A line of an owner's `episodes.jsonl`.
#[derive(Serialize, Deserialize)]
struct Line {
    id: String,
    trajectory: Trajectory,
}

/// Ends an episode: it is on the disk before it is acknowledged.
async fn reward(
    State(app): State<Arc<App>>,
    owner: Owner,
    UrlPath(id): UrlPath<String>,
    Json(Reward { reward }): Json<Reward>,
) -> Result<axum::Json<Trajectory>, Refusal> {
    if !reward.is_finite() {
        return Err(Refusal::field("reward", "a finite number", reward));
    }
    // Whoever is rewarded twice at a time is rewarded once.
    let episode = app.episodes.take(&owner, &id)?;
    let trajectory = locked(&episode.capture).trajectory().clone();
    let line = Line { id, trajectory: Trajectory { end_reward: reward, ..trajectory } };

    let folder = app.config.data.join("episodes");
    if let Err(error) = app.episodes.write(&folder, &owner, &line) {
        locked(&app.episodes.open).insert((owner, line.id), episode);
        return Err(Refusal::server(&error));
    }
    Ok(axum::Json(line.trajectory))
}
