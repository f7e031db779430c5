//! The way from a connection to a handler: limits, keys, routes.

use crate::app::App;
use crate::counters::prometheus;
use crate::keys::{Keys, Owner, owner};
use crate::refusal::Refusal;
use crate::{gateway, learn, openai, page, tinker};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

/// All routes of a server.
pub(crate) fn router(app: Arc<App>) -> Router {
    let body_bytes = app.config.limits.body_bytes;
    let keyed = Router::new()
        .nest("/api/v1", tinker::routes())
        .nest("/v1", openai::routes())
        .nest("/episodes", gateway::routes())
        .route("/metrics", get(metrics))
        .route("/page.json", get(page::state))
        .merge(learn::routes())
        .route_layer(from_fn_with_state(app.clone(), with_owner));
    Router::new()
        .route("/", get(|| async { Html(page::HTML) }))
        .route("/traffic", get(|| async { Html(learn::HTML) }))
        .route("/health", get(health))
        .merge(keyed)
        .fallback(nowhere)
        .layer(DefaultBodyLimit::max(body_bytes))
        .layer(from_fn_with_state(app.clone(), counted))
        .with_state(app)
}

async fn health(State(app): State<Arc<App>>) -> Response {
    if app.is_stopping() {
        return Refusal::stopping().into_response();
    }
    Json(json!({ "status": "ok", "model": app.config.name })).into_response()
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], prometheus(&app)).into_response()
}

async fn nowhere(uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(200).collect();
    Refusal::not_found(format!(
        "there is nothing at {path}: see /, /health, /metrics, /traffic, /v1, /episodes and /api/v1"
    ))
}

/// Finds whose request it is, and whether that owner may make another.
async fn with_owner(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let known = from_here(app.config.keys.as_ref(), request.headers())
        .and_then(|()| owner_of(&app, &request));
    let owner = match known {
        Ok(owner) => owner,
        Err(refusal) => return refusal.into_response(),
    };
    if let Err(refusal) = app.allow(&owner) {
        return refusal.into_response();
    }
    request.extensions_mut().insert(owner);
    next.run(request).await
}

/// By its key, or by the signature of an address that was given out for a key.
fn owner_of(app: &App, request: &Request) -> Result<Owner, Refusal> {
    match owner(app.config.keys.as_ref(), request.headers()) {
        Err(refusal) => app.signatures.owner(request.uri()).ok_or(refusal),
        known => known,
    }
}

/// A server without keys answers to this machine's programs, and to no page of another site that a
/// browser here has open: those give themselves away by `Origin`, or by a `Host` that is not
/// loopback.
fn from_here(keys: Option<&Keys>, headers: &HeaderMap) -> Result<(), Refusal> {
    if keys.is_some() {
        return Ok(());
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(HOST).unwrap_or_default();
    if !is_loopback(host) {
        return Err(Refusal::forbidden(
            "`Host` is not this machine's: a server without keys answers to it alone",
        ));
    }
    match text(ORIGIN) {
        Some(origin) if origin.strip_prefix("http://") != Some(host) => Err(Refusal::forbidden(
            "`Origin` is another site's: a server without keys answers to none",
        )),
        _ => Ok(()),
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// Counts a request once it is answered, and gives a refusal of axum's own the form of ours.
async fn counted(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or("none", MatchedPath::as_str).to_owned();
    let path: String = request.uri().path().chars().take(200).collect();
    let response = next.run(request).await;

    let status = response.status();
    app.counters.request(&route, status.as_u16(), started.elapsed());
    tracing::debug!("{path}: {status}");
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let detail = format!("{path}: not by this method");
        return Refusal::new(status, detail).into_response();
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        from_here(None, &headers).is_ok()
    }

    #[test]
    fn a_page_of_another_site_is_told_from_this_machines_programs() {
        for host in ["127.0.0.1:8000", "localhost:8000", "localhost", "[::1]:8000"] {
            assert!(allowed(host, None), "{host}");
            assert!(allowed(host, Some(&format!("http://{host}"))), "{host}");
        }
        assert!(!allowed("evil.example:8000", None));
        assert!(!allowed("127.0.0.1.evil.example", None));
        assert!(!allowed("127.0.0.1:8000", Some("http://evil.example")));
        assert!(!allowed("127.0.0.1:8000", Some("null")));
    }
}
