//! The page that a person looks at.

use crate::app::App;
use crate::keys::Owner;
use crate::tinker::Json200;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// The page: one file that fetches nothing but its own state.
pub(crate) const HTML: &str = include_str!("page.html");

/// What the page shows of an owner's sessions, models and checkpoints.
pub(crate) async fn state(State(app): State<Arc<App>>, owner: Owner) -> Json200 {
    let runs = app.checkpoints.runs(&owner);
    let checkpoints: Vec<Value> = runs
        .iter()
        .flat_map(|run| run.checkpoints.values())
        .map(|record| {
            json!({
                "path": record.path.to_string(),
                "run": record.path.run,
                "id": record.path.id(),
                "step": record.step,
                "bytes": record.bytes,
                "created": record.created,
                "expires": record.expires,
            })
        })
        .collect();

    let registry = app.registry();
    let sessions: Vec<Value> = registry
        .sessions
        .values()
        .filter(|session| session.owner == owner)
        .map(|session| {
            json!({
                "id": session.record.id,
                "name": session.record.display_name,
                "tags": session.record.tags,
                "sdk": session.record.sdk_version,
                "created": session.record.created,
                "silent_seconds": session.seen.elapsed().as_secs(),
                "finished": session.record.finished,
            })
        })
        .collect();
    let models: Vec<Value> = registry
        .models
        .values()
        .filter(|model| model.owner == owner)
        .map(|model| {
            let progress = model.progress.lock().unwrap_or_else(PoisonError::into_inner);
            json!({
                "id": model.id,
                "session": model.session,
                "rank": model.lora.rank,
                "steps": progress.steps,
                "waiting": model.waiting.load(Ordering::Relaxed),
                "failed": progress.failed,
                "history": progress.history,
            })
        })
        .collect();
    let samplers = registry.samplers.values().filter(|sampler| sampler.owner == owner).count();
    drop(registry);

    let sampling = app.sampling.stats();
    Json200(json!({
        "model": app.config.name,
        "uptime_seconds": app.started.elapsed().as_secs(),
        "sampled_tokens": app.counters.tokens(),
        "prompt_tokens": sampling.prompt_tokens,
        "kept_prompt_tokens": sampling.kept_tokens,
        "samples_pending": app.sampling.pending(),
        "results_pending": app.promises.pending(),
        "samplers": samplers,
        "sessions": sessions,
        "models": models,
        "checkpoints": checkpoints,
    }))
}
