//! The HTTP client: JSON in, JSON or a stream of events out, with everything that can fail in
//! between.

mod clock;
mod config;
mod endpoint;
mod events;
pub(crate) mod exchange;
mod key;
mod rate;
mod replica;
mod retry;

use std::fmt;
use std::sync::Arc;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use reqwest::{Client, Proxy, Url, redirect};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use crate::{ChatError, Deadline};
use clock::Clock;
use config::seconds;
use exchange::{Exchange, Order, Outgoing, ReadExchange, ReadJson, ReadNothing, ReadText};
use key::{Secrets, basic_header};
use rate::RateLimit;
use replica::{Lease, Replicas};

pub use config::{BreakerConfig, Deadlines, JsonClientConfig, ProxyChoice};
pub use endpoint::Endpoint;
pub use events::Events;
pub use key::{KeyHeader, KeySource};
pub use retry::RetryConfig;

/// Posts JSON to one of several replicas, within limits, with retries and deadlines.
///
/// A call waits for its place among `in_flight` and for the rate limits, in turn; from then on the
/// total deadline runs. Each attempt goes to the least loaded replica in service. What is transient
/// ([`ChatError::is_transient`]) is tried again on another replica where there is one, after a
/// jittered pause, or after what `Retry-After` asks for; where that is longer than the call may
/// take, the error comes at once. Redirects are never followed. Dropping the future gives
/// everything back. Clones share their limits. TLS is rustls, with the system's certificates.
///
/// ```no_run
/// use posttrain_chat::client::{JsonClientConfig, KeySource};
/// use serde_json::json;
///
/// # async fn call() -> Result<(), posttrain_chat::ChatError> {
/// let config = JsonClientConfig::for_server("https://reward.example/v2")?;
/// let client = JsonClientConfig { api_key: KeySource::Environment("REWARD_KEY".into()), ..config }.build()?;
/// let answer = client.post("score", &json!({"response": "12"}), 0).await?;
/// assert!(answer["reward"].is_number());
/// # Ok::<(), posttrain_chat::ChatError>(())
/// # }
/// ```
#[derive(Clone)]
pub struct JsonClient {
    shared: Arc<Shared>,
}

struct Shared {
    config: JsonClientConfig,
    servers: Vec<Server>,
    replicas: Arc<Replicas>,
    slots: Arc<Semaphore>,
    requests: Option<RateLimit>,
    tokens: Option<RateLimit>,
    secrets: Secrets,
}

struct Server {
    client: Client,
    headers: HeaderMap,
}

impl JsonClient {
    pub(crate) fn new(config: JsonClientConfig) -> Result<Self, ChatError> {
        config.validate()?;
        let key = config.api_key.load()?;
        let key_header = key.as_ref().map(|key| config.key_header.build(key)).transpose()?;
        let (near, far) = (http_client(&config, true)?, http_client(&config, false)?);
        let server = |endpoint: &Endpoint| -> Result<Server, ChatError> {
            let mut headers = HeaderMap::from_iter([(
                CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            )]);
            headers.insert(
                USER_AGENT,
                HeaderValue::from_static(concat!("posttrain-chat/", env!("CARGO_PKG_VERSION"))),
            );
            headers.extend(key_header.clone());
            headers.extend(basic_header(endpoint)?);
            let client = if endpoint.is_loopback() { near.clone() } else { far.clone() };
            Ok(Server { client, headers })
        };
        let servers = config.endpoints.iter().map(server).collect::<Result<_, _>>()?;
        let names = config.endpoints.iter().map(Endpoint::to_string).collect();
        let mut addresses = config.endpoints.clone();
        addresses.extend(match &config.proxy {
            ProxyChoice::Through(proxy) => Some(proxy.clone()),
            _ => None,
        });
        let shared = Shared {
            servers,
            replicas: Replicas::new(names, &config.breaker),
            slots: Arc::new(Semaphore::new(config.in_flight)),
            requests: config.requests_per_minute.map(RateLimit::new),
            tokens: config.tokens_per_minute.map(RateLimit::new),
            secrets: Secrets::new(key.as_ref(), &addresses),
            config,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Posts `body` to `path` behind the endpoint's address, and reads the answer as JSON. `tokens`
    /// is how many the request is expected to use, for the limit of tokens a minute; see
    /// [`correct_tokens`](Self::correct_tokens).
    ///
    /// # Errors
    /// Of the last attempt: [`ChatError::Broken`], [`ChatError::TimedOut`], [`ChatError::Status`],
    /// [`ChatError::Redirected`], [`ChatError::TooLarge`], [`ChatError::InvalidJson`],
    /// [`ChatError::Unavailable`].
    ///
    /// ```
    /// use posttrain_chat::client::{JsonClientConfig, RetryConfig};
    /// use serde_json::json;
    ///
    /// let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    /// // Nobody listens on port 1.
    /// let config = JsonClientConfig::for_server("http://127.0.0.1:1")?;
    /// let config = JsonClientConfig { retry: RetryConfig { retries: 0, ..RetryConfig::default() }, ..config };
    /// let error = runtime.block_on(config.build()?.post("score", &json!({}), 0)).unwrap_err();
    /// assert_eq!(error.cause(), "broken_connection");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn post(&self, path: &str, body: &Value, tokens: u64) -> Result<Value, ChatError> {
        self.post_and_read(&Order::new(path, body, tokens), &ReadJson).await
    }

    /// Posts `body` to `path`, and reads the answer as text: for what a server confirms in words.
    ///
    /// # Errors
    /// Those of [`post`](Self::post) but [`ChatError::InvalidJson`].
    ///
    /// ```no_run
    /// # async fn call(client: posttrain_chat::client::JsonClient) -> Result<(), posttrain_chat::ChatError> {
    /// let body = serde_json::json!({"lora_name": "v1", "lora_path": "/adapters/v1"});
    /// println!("{}", client.post_text("load_lora_adapter", &body).await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn post_text(&self, path: &str, body: &Value) -> Result<String, ChatError> {
        self.post_and_read(&Order::new(path, body, 0), &ReadText).await
    }

    /// Posts `body` and opens the answer as a stream of server-sent events. Only what fails before
    /// the answer begins is tried again. The call keeps its place among `in_flight` until the
    /// [`Events`] are dropped.
    ///
    /// # Errors
    /// As in [`post`](Self::post), and later in the stream itself.
    ///
    /// ```no_run
    /// # async fn call(client: posttrain_chat::client::JsonClient) -> Result<(), posttrain_chat::ChatError> {
    /// let mut events = client.post_events("chat/completions", &serde_json::json!({"stream": true}), 0).await?;
    /// while let Some(data) = events.next().await {
    ///     println!("{}", data?);
    /// }
    /// # Ok::<(), posttrain_chat::ChatError>(())
    /// # }
    /// ```
    pub async fn post_events(
        &self,
        path: &str,
        body: &Value,
        tokens: u64,
    ) -> Result<Events, ChatError> {
        self.open_events(&Order::new(path, body, tokens)).await
    }

    /// Carries an order out, and reads the answer inside the attempt: what breaks there is tried
    /// again.
    pub(crate) async fn post_and_read<R: ReadExchange>(
        &self,
        order: &Order<'_>,
        reader: &R,
    ) -> Result<R::Output, ChatError> {
        let _slot = self.slot().await?;
        self.call(order, reader).await
    }

    pub(crate) async fn open_events(&self, order: &Order<'_>) -> Result<Events, ChatError> {
        let slot = self.slot().await?;
        let exchange = self.call(order, &ReadNothing).await?;
        Ok(Events::new(exchange, Some(slot)))
    }

    /// Corrects the limit of tokens a minute, once it is known how many were really used.
    ///
    /// ```
    /// let client = posttrain_chat::client::JsonClientConfig::for_server("http://localhost:8000/v1")?.build()?;
    /// client.correct_tokens(1000, 210);
    /// # Ok::<(), posttrain_chat::ChatError>(())
    /// ```
    pub fn correct_tokens(&self, expected: u64, used: u64) {
        if let Some(limit) = &self.shared.tokens {
            limit.correct(used as f64 - expected as f64);
        }
    }

    /// `text` with every secret of this client replaced, for messages that quote a server.
    ///
    /// ```
    /// let client = posttrain_chat::client::JsonClientConfig::for_server("http://host/v1?key=hunter2")?.build()?;
    /// assert_eq!(client.without_secrets("no user hunter2"), "no user [secret]");
    /// # Ok::<(), posttrain_chat::ChatError>(())
    /// ```
    #[must_use]
    pub fn without_secrets(&self, text: &str) -> String {
        self.shared.secrets.clear(text)
    }

    /// The beginning of what a server said, for an error.
    pub(crate) fn excerpt(&self, text: &str) -> String {
        self.shared.secrets.excerpt(text, 300)
    }

    /// The configuration, in which no secret is shown.
    ///
    /// ```
    /// let client = posttrain_chat::client::JsonClientConfig::for_server("http://localhost:8000/v1")?.build()?;
    /// assert_eq!(client.config().in_flight, 256);
    /// # Ok::<(), posttrain_chat::ChatError>(())
    /// ```
    #[must_use]
    pub fn config(&self) -> &JsonClientConfig {
        &self.shared.config
    }

    async fn slot(&self) -> Result<OwnedSemaphorePermit, ChatError> {
        let slot = Arc::clone(&self.shared.slots).acquire_owned().await;
        // The semaphore is never closed.
        slot.map_err(|_| self.unavailable())
    }

    /// Attempts until one succeeds, one fails for good, or time is up.
    async fn call<R: ReadExchange>(
        &self,
        order: &Order<'_>,
        reader: &R,
    ) -> Result<R::Output, ChatError> {
        self.admit(order.tokens).await;
        let end = Instant::now() + seconds(self.shared.config.deadlines.total_seconds);
        let (mut failed, mut last): (u32, Option<(ChatError, usize)>) = (0, None);
        loop {
            let avoid = last.as_ref().map(|(_, index)| *index);
            let Some(lease) = self.shared.replicas.lease(avoid, end).await else {
                return Err(last.map_or_else(|| self.unavailable(), |(error, _)| error));
            };
            let index = lease.index();
            let error = match self.attempt(lease, order, end, reader).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            failed += 1;
            let pause = self
                .shared
                .config
                .retry
                .pause(&error, failed)
                .filter(|_| !order.is_refused_by(&error));
            let Some(pause) = pause.filter(|pause| Instant::now() + *pause < end) else {
                return Err(error);
            };
            tracing::debug!(%error, failed, ?pause, "request is tried again");
            sleep(pause).await;
            // A retry is a request, too. Its wait counts, as it is the call's own doing.
            tokio::time::timeout_at(end, self.admit(order.tokens))
                .await
                .map_err(|_| self.late(index))?;
            last = Some((error, index));
        }
    }

    async fn attempt<R: ReadExchange>(
        &self,
        mut lease: Lease,
        order: &Order<'_>,
        end: Instant,
        reader: &R,
    ) -> Result<R::Output, ChatError> {
        let index = lease.index();
        let server = &self.shared.servers[index];
        let outgoing = Outgoing {
            client: &server.client,
            url: self.url(index, order.path),
            headers: server.headers.clone(),
            body: &order.body,
        };
        let clock = Clock::start(&self.shared.config.deadlines, end);
        let opened = outgoing.send(clock, lease.endpoint(), &self.shared.secrets).await;
        if opened.as_ref().is_err_and(|error| !order.is_refused_by(error)) {
            lease.report(&opened);
        }
        let exchange = Exchange {
            response: opened?,
            lease,
            clock,
            limit: self.shared.config.max_response_bytes,
            client: self.clone(),
        };
        reader.read(exchange).await
    }

    fn url(&self, index: usize, path: &str) -> Url {
        self.shared.config.endpoints[index].join(path)
    }

    async fn admit(&self, tokens: u64) {
        if let Some(limit) = &self.shared.requests {
            limit.take(1.0).await;
        }
        if let Some(limit) = &self.shared.tokens {
            limit.take(tokens as f64).await;
        }
    }

    fn unavailable(&self) -> ChatError {
        self.shared.replicas.unavailable(self.shared.config.deadlines.total_seconds)
    }

    fn late(&self, index: usize) -> ChatError {
        let seconds = self.shared.config.deadlines.total_seconds;
        ChatError::TimedOut {
            endpoint: self.shared.config.endpoints[index].to_string(),
            deadline: Deadline::Total,
            seconds,
        }
    }
}

impl fmt::Debug for JsonClient {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("JsonClient").field(&self.shared.config.endpoints).finish()
    }
}

/// For servers on this machine (`near`), which no proxy stands before, or elsewhere.
fn http_client(config: &JsonClientConfig, near: bool) -> Result<Client, ChatError> {
    // An application's own choice of provider, made earlier, stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let setup = |error: reqwest::Error| ChatError::Setup { source: Arc::new(error.without_url()) };
    let builder = Client::builder()
        .connect_timeout(seconds(config.deadlines.connect_seconds))
        .redirect(redirect::Policy::none())
        .default_headers(HeaderMap::from_iter([(
            ACCEPT,
            HeaderValue::from_static("application/json, text/event-stream"),
        )]));
    let builder = match &config.proxy {
        ProxyChoice::Through(proxy) => {
            builder.proxy(Proxy::all(proxy.as_url().clone()).map_err(setup)?)
        }
        ProxyChoice::Environment if !near => builder,
        _ => builder.no_proxy(),
    };
    builder.build().map_err(setup)
}
