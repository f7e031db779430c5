//! What handlers take of a request: its owner, and a body whose every field is known.

use crate::keys::Owner;
use crate::refusal::Refusal;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::time::Duration;

/// A JSON body. A field that is not known is refused by its name, as is any other content type: a
/// page of another site could send those.
pub(crate) struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        expect_type(&request, "application/json")?;
        let body = body(request, state).await?;
        let mut json = serde_json::Deserializer::from_slice(&body);
        let value = fields(&mut json)?;
        json.end().map_err(|error| Refusal::invalid(format!("the body: {error}")))?;
        Ok(Self(value))
    }
}

/// What is read of JSON; an error names its field.
pub(crate) fn fields<'de, T, D>(json: D) -> Result<T, Refusal>
where
    T: Deserialize<'de>,
    D: serde::Deserializer<'de, Error = serde_json::Error>,
{
    serde_path_to_error::deserialize(json).map_err(|error| match error.path().to_string() {
        none if none == "." => Refusal::invalid(format!("the body: {}", error.into_inner())),
        field => {
            let detail = format!("`{field}`: {}", error.into_inner());
            Refusal { field: Some(field), ..Refusal::invalid(detail) }
        }
    })
}

/// A protobuf body.
pub(crate) struct Protobuf(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Protobuf {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        expect_type(&request, "application/x-protobuf")?;
        Ok(Self(body(request, state).await?))
    }
}

fn expect_type(request: &Request, expected: &str) -> Result<(), Refusal> {
    if let Some(encoding) = request.headers().get("content-encoding") {
        let got = format!("{encoding:?}");
        return Err(Refusal::field("content-encoding", "none: bodies are not compressed", got));
    }
    let given = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = given.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(Refusal::field("content-type", expected, format!("{media:?}")))
}

/// How long a body may take to arrive.
const BODY: Duration = Duration::from_secs(60);

async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Refusal> {
    let read = tokio::time::timeout(BODY, Bytes::from_request(request, state)).await;
    let read = read.map_err(|_| {
        Refusal::invalid(format!("the body did not arrive within {} s", BODY.as_secs()))
    })?;
    read.map_err(|rejection| {
        let detail = format!("the body cannot be read: {}", rejection.body_text());
        Refusal::new(rejection.status(), detail)
    })
}

impl<S: Send + Sync> FromRequestParts<S> for Owner {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        // Put there before any handler is reached.
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Refusal::unauthorized("a key is needed"))
    }
}

/// A number that counts requests, models or samplers: never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sequence(pub i64);

impl<'de> Deserialize<'de> for Sequence {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        match number {
            0..=9_007_199_254_740_991 => Ok(Self(number)),
            _ => Err(serde::de::Error::custom(format!("expected a number from 0, got {number}"))),
        }
    }
}

/// What clients may say of their own in one place, written as JSON: it is kept in memory and told in
/// lists.
const METADATA_BYTES: usize = 16 << 10;

/// A client's own words, if they are not too many.
pub(crate) fn metadata(given: Option<Map<String, Value>>) -> Result<Map<String, Value>, Refusal> {
    let given = given.unwrap_or_default();
    let bytes = serde_json::to_string(&given).map_or(usize::MAX, |text| text.len());
    if bytes > METADATA_BYTES {
        let expected = format!("at most {METADATA_BYTES} bytes of JSON");
        return Err(Refusal::field("user_metadata", &expected, bytes));
    }
    Ok(given)
}
