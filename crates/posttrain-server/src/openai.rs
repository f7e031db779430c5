//! OpenAI's API, under `/v1`, with vLLM's two endpoints for adapters and Anthropic's for messages.

mod adapters;
mod chat;
mod completions;
mod job;
mod logprobs;
mod stream;
mod text;
mod tools;

use crate::anthropic;
use crate::app::App;
use axum::Router;
use axum::routing::{get, post};
use std::sync::Arc;

pub(crate) use adapters::models;
pub(crate) use chat::{ChatRequest, Dialect, answer};
pub(crate) use job::check_stops;

/// Everything under `/v1`.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/models", get(adapters::models))
        .route("/models/{*name}", get(adapters::model))
        .route("/chat/completions", post(chat::complete))
        .route("/completions", post(completions::complete))
        .route("/messages", post(anthropic::messages))
        .route("/load_lora_adapter", post(adapters::load))
        .route("/unload_lora_adapter", post(adapters::unload))
}
