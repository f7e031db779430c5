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
    /// The field that is not as it must be, where it is one.
    pub field: Option<String>,
}

impl Refusal {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), field: None }
    }

    /// The client's mistake. Never 409: the SDK repeats those for minutes.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// A field that is not as it must be.
    pub fn field(field: &str, expected: &str, got: impl std::fmt::Display) -> Self {
        let got: String = got.to_string().chars().take(200).collect();
        let detail = format!("`{field}`: expected {expected}, got {got}");
        Self { field: Some(field.to_owned()), ..Self::invalid(detail) }
    }

    pub fn unauthorized(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    pub fn forbidden(detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub fn gone(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, detail)
    }

    pub fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, detail)
    }

    pub fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping")
    }

    /// The server's own failure.
    pub fn server(error: &dyn Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, with_sources(error))
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
                "param": self.field,
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
            RequestError::Params { field, .. } => {
                Self { field: Some(field.into()), ..Self::invalid(error.to_string()) }
            }
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
