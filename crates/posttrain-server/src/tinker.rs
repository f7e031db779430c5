//! Tinker's API, under `/api/v1`, as its SDK speaks it.

mod datum;
mod fields;
mod loss;
mod models;
mod rest;
mod sampling;
mod sessions;
mod training;
mod weights;
mod wire;

use crate::app::App;
use axum::Router;
use axum::routing::{delete, get, post, put};
use std::sync::Arc;

pub(crate) use datum::check_tokens;
pub(crate) use models::revived;
pub(crate) use sampling::{Scored, policy_of_path, score};
pub(crate) use sessions::Json200;
pub(crate) use weights::load_adapter;

/// Everything under `/api/v1`.
pub(crate) fn routes() -> Router<Arc<App>> {
    let checkpoint = "/training_runs/{run}/checkpoints/{kind}/{name}";
    Router::new()
        .route("/healthz", get(sessions::healthz))
        .route("/client/config", post(sessions::config))
        .route("/client/dynamic_config", post(sessions::config))
        .route("/get_server_capabilities", get(sessions::capabilities))
        .route("/create_session", post(sessions::create))
        .route("/session_heartbeat", post(sessions::heartbeat))
        .route("/sessions/{id}/finish", post(sessions::finish))
        .route("/telemetry", post(sessions::telemetry))
        .route("/retrieve_future", post(sessions::retrieve))
        .route("/create_model", post(models::create))
        .route("/get_info", post(models::info))
        .route("/unload_model", post(models::unload))
        .route("/forward_backward", post(training::forward_backward))
        .route("/optim_step", post(training::optim_step))
        .route("/save_weights", post(weights::save))
        .route("/save_weights_for_sampler", post(weights::save_for_sampler))
        .route("/save_weights_external", post(weights::save_external))
        .route("/load_weights", post(weights::load))
        .route("/weights_info", post(weights::info))
        .route("/create_sampling_session", post(sampling::create))
        .route("/samplers/{id}", get(sampling::info))
        .route("/asample", post(sampling::sample))
        .route("/training_runs", get(rest::runs))
        .route("/training_runs/{run}", get(rest::run))
        .route("/training_runs/{run}/checkpoints", get(rest::run_checkpoints))
        .route(checkpoint, delete(rest::delete))
        .route(&format!("{checkpoint}/ttl"), put(rest::ttl))
        .route(&format!("{checkpoint}/archive"), get(rest::archive))
        .route(&format!("{checkpoint}/external_weights_urls"), get(rest::urls))
        .route(&format!("{checkpoint}/files/{{file}}"), get(rest::file))
        .route("/checkpoints", get(rest::checkpoints))
        .route("/sessions", get(rest::sessions))
        .route("/sessions/{id}", get(rest::session))
        .route("/sessions/search", post(rest::search))
        .route("/{*path}", axum::routing::any(rest::unserved))
}
