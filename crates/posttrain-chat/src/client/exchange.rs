//! One attempt: a request to one replica, and its answer within the deadlines and bounds.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use reqwest::header::HeaderMap;
use reqwest::{Client, Response, Url};
use serde_json::Value;

use crate::client::JsonClient;
use crate::client::clock::Clock;
use crate::client::key::Secrets;
use crate::client::replica::Lease;
use crate::client::retry::retry_after;
use crate::{ChatError, Deadline};

/// Bytes of an error's answer that are read, and characters of it that are shown.
const ERROR_BYTES: usize = 16_384;
const ERROR_CHARACTERS: usize = 500;

/// What is to be posted.
pub(crate) struct Order<'a> {
    /// Behind the endpoint's address.
    pub path: &'a str,
    pub body: Bytes,
    /// Tokens that it is expected to use.
    pub tokens: u64,
    /// A field that not every server knows.
    pub unknown: Option<&'static str>,
}

impl<'a> Order<'a> {
    pub(crate) fn new(path: &'a str, body: &Value, tokens: u64) -> Self {
        Self { path, body: Bytes::from(body.to_string()), tokens, unknown: None }
    }

    pub(crate) fn is_refused_by(&self, error: &ChatError) -> bool {
        refuses(self.unknown, error)
    }
}

/// Whether a server fails because it does not know `field`: by a status that says so, or by any
/// that names it.
pub(crate) fn refuses(field: Option<&str>, error: &ChatError) -> bool {
    match (field, error) {
        (Some(_), ChatError::Status { status: 400 | 422 | 501, .. }) => true,
        (Some(field), ChatError::Status { body, .. }) => body.contains(field),
        _ => false,
    }
}

/// A request, ready to be sent.
pub(crate) struct Outgoing<'a> {
    pub client: &'a Client,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: &'a Bytes,
}

/// An answer whose status is a success, and whose body is yet to be read.
pub(crate) struct Exchange {
    pub response: Response,
    pub lease: Lease,
    pub clock: Clock,
    /// Bytes that may still be read.
    pub limit: usize,
    pub client: JsonClient,
}

/// What is done with an answer inside its attempt.
pub(crate) trait ReadExchange: Sync {
    type Output: Send;

    fn read(
        &self,
        exchange: Exchange,
    ) -> impl Future<Output = Result<Self::Output, ChatError>> + Send;
}

/// Reads the whole body as JSON.
pub(crate) struct ReadJson;

impl ReadExchange for ReadJson {
    type Output = Value;

    async fn read(&self, mut exchange: Exchange) -> Result<Value, ChatError> {
        let outcome = exchange.json().await;
        exchange.lease.report(&outcome);
        outcome
    }
}

/// Reads the whole body as text.
pub(crate) struct ReadText;

impl ReadExchange for ReadText {
    type Output = String;

    async fn read(&self, mut exchange: Exchange) -> Result<String, ChatError> {
        let outcome = exchange.body().await.map(|body| String::from_utf8_lossy(&body).into_owned());
        exchange.lease.report(&outcome);
        outcome
    }
}

/// Leaves the body to be read by others.
pub(crate) struct ReadNothing;

impl ReadExchange for ReadNothing {
    type Output = Exchange;

    async fn read(&self, exchange: Exchange) -> Result<Exchange, ChatError> {
        Ok(exchange)
    }
}

impl Outgoing<'_> {
    /// Sends it and waits for the answer's beginning. A status that is no success is an error.
    pub(crate) async fn send(
        self,
        clock: Clock,
        endpoint: &str,
        secrets: &Secrets,
    ) -> Result<Response, ChatError> {
        let request = self.client.post(self.url).headers(self.headers).body(self.body.clone());
        let response = clock.bound(endpoint, request.send()).await?;
        let mut response = response.map_err(|error| broken(endpoint, &clock, error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status.is_redirection() {
            return Err(ChatError::Redirected {
                endpoint: endpoint.to_owned(),
                status: status.as_u16(),
            });
        }
        let retry_after = retry_after(response.headers());
        let text = beginning(&mut response, clock, endpoint).await;
        let body = secrets.excerpt(&text, ERROR_CHARACTERS);
        Err(ChatError::Status {
            endpoint: endpoint.to_owned(),
            status: status.as_u16(),
            body,
            retry_after,
        })
    }
}

/// What can be had of an error's text; that it breaks off does not matter.
async fn beginning(response: &mut Response, clock: Clock, endpoint: &str) -> String {
    let mut bytes = BytesMut::new();
    while bytes.len() < ERROR_BYTES {
        match clock.bound(endpoint, response.chunk()).await {
            Ok(Ok(Some(chunk))) => bytes.extend_from_slice(&chunk),
            _ => break,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Exchange {
    /// The next piece of the body.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ChatError> {
        let endpoint = self.lease.endpoint();
        let chunk = self.clock.bound(endpoint, self.response.chunk()).await?;
        let Some(chunk) = chunk.map_err(|error| broken(endpoint, &self.clock, error))? else {
            return Ok(None);
        };
        self.limit = self.limit.checked_sub(chunk.len()).ok_or_else(|| self.too_large())?;
        Ok(Some(chunk))
    }

    /// The whole body.
    async fn body(&mut self) -> Result<BytesMut, ChatError> {
        if self.response.content_length().is_some_and(|length| length > self.limit as u64) {
            return Err(self.too_large());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// The whole body as JSON.
    async fn json(&mut self) -> Result<Value, ChatError> {
        let body = self.body().await?;
        serde_json::from_slice(&body).map_err(|source| ChatError::InvalidJson {
            endpoint: self.lease.endpoint().to_owned(),
            body: self.client.excerpt(&String::from_utf8_lossy(&body)),
            source: Arc::new(source),
        })
    }

    fn too_large(&self) -> ChatError {
        let limit = self.client.config().max_response_bytes;
        ChatError::TooLarge { endpoint: self.lease.endpoint().to_owned(), limit }
    }
}

/// A failure below HTTP. The address is taken off, since it may carry secrets; `endpoint` is the
/// address without them.
fn broken(endpoint: &str, clock: &Clock, error: reqwest::Error) -> ChatError {
    let endpoint = endpoint.to_owned();
    // The time to connect is the only one that reqwest itself is given.
    if error.is_timeout() {
        return ChatError::TimedOut {
            endpoint,
            deadline: Deadline::Connect,
            seconds: clock.connect_seconds(),
        };
    }
    ChatError::Broken { endpoint, source: Arc::new(error.without_url()) }
}
