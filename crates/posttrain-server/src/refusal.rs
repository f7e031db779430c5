//! Why a request is not served, as a response.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use posttrain_rollout::{RequestError, ServiceError};
use posttrain_train::TrainError;
use serde_json::json;
use std::error::Error;

/// A status and words. The same body serves every API: Tinker's SDK shows `detail`, OpenAI's and
/// Anthropic's clients `error.message`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub status: StatusCode,
    pub detail: String,
}

impl Refusal {
    /// The client's mistake. Never 409: the SDK repeats those for minutes.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, detail: detail.into() }
    }

    /// A field that is not as it must be.
    pub fn field(field: &str, expected: &str, got: impl std::fmt::Display) -> Self {
        let got: String = got.to_string().chars().take(200).collect();
        Self::invalid(format!("`{field}`: expected {expected}, got {got}"))
    }

    pub fn unauthorized(detail: &str) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, detail: detail.into() }
    }

    pub fn forbidden(detail: &str) -> Self {
        Self { status: StatusCode::FORBIDDEN, detail: detail.into() }
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, detail: detail.into() }
    }

    pub fn gone(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::GONE, detail: detail.into() }
    }

    pub fn busy(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::TOO_MANY_REQUESTS, detail: detail.into() }
    }

    pub fn stopping() -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, detail: "the server is stopping".into() }
    }

    /// The server's own failure.
    pub fn server(error: &dyn Error) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, detail: with_sources(error) }
    }

    /// Whether it is the client's mistake.
    pub fn is_users(&self) -> bool {
        self.status.is_client_error()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        let body = json!({
            "type": "error",
            "detail": self.detail,
            "error": {
                "message": self.detail,
                "type": kind,
                "param": null,
                "code": self.status.as_u16(),
            },
        });
        (self.status, axum::Json(body)).into_response()
    }
}

impl From<TrainError> for Refusal {
    fn from(error: TrainError) -> Self {
        let users = matches!(
            error,
            TrainError::Config { .. }
                | TrainError::Datum { .. }
                | TrainError::Optim(_)
                | TrainError::NoGradient
                | TrainError::State { .. }
                | TrainError::Loss(_)
                | TrainError::Lora(posttrain_lora::LoraError::Config { .. })
        );
        match error {
            TrainError::QueueFull { .. } => Self::busy(error.to_string()),
            TrainError::ServiceClosed => Self::stopping(),
            _ if users => Self::invalid(with_sources(&error)),
            _ => Self::server(&error),
        }
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::EngineFailed { .. } => Self::server(&error),
            RequestError::Cancelled => Self::stopping(),
            _ => Self::invalid(error.to_string()),
        }
    }
}

impl From<ServiceError> for Refusal {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Closed => Self::stopping(),
            ServiceError::Full { .. } => Self::busy(error.to_string()),
            _ => Self::invalid(error.to_string()),
        }
    }
}

impl From<posttrain_model::ModelError> for Refusal {
    fn from(error: posttrain_model::ModelError) -> Self {
        match error {
            posttrain_model::ModelError::Template { .. }
            | posttrain_model::ModelError::Argument { .. } => Self::invalid(with_sources(&error)),
            _ => Self::server(&error),
        }
    }
}

impl From<posttrain_store::StoreError> for Refusal {
    fn from(error: posttrain_store::StoreError) -> Self {
        Self::server(&error)
    }
}

/// An error with what caused it, one after the other.
pub(crate) fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
