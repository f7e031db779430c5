//! A reward on another machine, over HTTP.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use posttrain_chat::ChatError;
use posttrain_chat::client::{JsonClient, JsonClientConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::outside::batcher::{Batcher, SendBatch};
use crate::outside::wire::{Reply, Request};
use crate::{Reward, RewardError, Sample, Score};

/// How many samples share a request.
///
/// ```
/// use posttrain_reward::outside::Batching;
///
/// assert_eq!(Batching::default(), Batching::Single);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Batching {
    /// One: a failure costs one sample, and any web server will do.
    #[default]
    Single,
    /// Several that are scored at the same time, for a model that is faster on a batch. What fails
    /// fails for all of them.
    Batched {
        /// Samples of a request at most, at least 1.
        max_samples: usize,
        /// Seconds that the first sample waits for others, from 0 to 60.
        max_wait_seconds: f64,
    },
}

/// A reward behind an HTTP server.
///
/// # Contract
/// `POST ADDRESS/PATH` with JSON in and JSON out. A sample and a reply are those of
/// [`Subprocess`](crate::outside::SubprocessConfig):
///
/// ```text
/// single  in   {"request_id": "…", "id": "7", "domain": "law", "question": "…", "reference": "…", "response": "…",
///               "metadata": {…}}
///         out  {"reward": 0.5, "parts": {"style": 1.0}, "note": "…"}   or   {"error": "no such file"}
/// batch   in   {"request_id": "…", "samples": [{"id": "7", …}, …]}
///         out  {"results": [{"reward": 0.5}, {"error": "…"}, …]}       one for each sample, in order
/// ```
///
/// `reward` is a number from 0 to 1. A sample that cannot be scored has an `error`, which fails it
/// alone; a status other than 200 fails the request. `examples/remote_reward/server.py` is a server
/// in 60 lines.
///
/// # Failures
/// The client is [`posttrain_chat`]'s: limits, deadlines, replicas, and retries of what is
/// transient (statuses 408, 409, 429 and 5xx, broken connections). A sample gets one score,
/// whatever is retried. After a broken connection the server may see a request again: it then has
/// the same `request_id`, so that a server whose scoring costs money can answer from memory. Every
/// failure is an error with the client's cause (`http_429`, `timed_out`, …), never a zero.
///
/// Scoring needs a tokio runtime with its drivers enabled (`enable_all`).
///
/// ```
/// use posttrain_reward::{Reward, Sample};
/// use posttrain_reward::outside::RemoteConfig;
///
/// // Nobody listens on port 1.
/// let mut config = RemoteConfig::for_server("http://127.0.0.1:1")?;
/// config.client.retry.retries = 0;
/// let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// let error = runtime.block_on(config.build()?.score(&Sample::new("2 + 2?", "4", "4"))).unwrap_err();
/// assert_eq!(error.cause(), "broken_connection");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemoteConfig {
    /// What metrics and errors call the reward. Default: `remote`.
    pub name: String,
    /// What stands behind the server's address. Default: `score`.
    pub path: String,
    /// How many samples share a request. Default: one.
    pub batching: Batching,
    /// The servers, the key, the limits, the retries. No server by default.
    pub client: JsonClientConfig,
}

impl Default for RemoteConfig {
    fn default() -> Self {
        Self {
            name: "remote".to_owned(),
            path: "score".to_owned(),
            batching: Batching::default(),
            client: JsonClientConfig::default(),
        }
    }
}

impl RemoteConfig {
    /// The default configuration with one server.
    ///
    /// # Errors
    /// [`RewardError::Failed`] with the cause `invalid_config` where `endpoint` is not an address.
    ///
    /// ```
    /// use posttrain_reward::outside::RemoteConfig;
    ///
    /// assert!(RemoteConfig::for_server("http://localhost:8000")?.validate().is_ok());
    /// assert!(RemoteConfig::for_server("localhost").is_err());
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn for_server(endpoint: &str) -> Result<Self, RewardError> {
        let client =
            JsonClientConfig::for_server(endpoint).map_err(|error| failed("remote", &error))?;
        Ok(Self { client, ..Self::default() })
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`], or [`RewardError::Failed`] with what the client says of its
    /// own configuration.
    ///
    /// ```
    /// use posttrain_reward::outside::{Batching, RemoteConfig};
    ///
    /// assert!(RemoteConfig::default().validate().is_err(), "no server");
    /// let batching = Batching::Batched { max_samples: 0, max_wait_seconds: 0.01 };
    /// let config = RemoteConfig { batching, ..RemoteConfig::for_server("http://localhost:8000")? };
    /// assert!(config.validate().is_err());
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        let invalid =
            |field, got: String, expected| Err(RewardError::InvalidConfig { field, got, expected });
        match self.batching {
            Batching::Batched { max_samples: 0, .. } => {
                invalid("max_samples", "0".to_owned(), "at least 1")
            }
            Batching::Batched { max_wait_seconds, .. }
                if !(0.0..=60.0).contains(&max_wait_seconds) =>
            {
                invalid("max_wait_seconds", max_wait_seconds.to_string(), "from 0 to 60")
            }
            _ => self.client.validate().map_err(|error| failed(&self.name, &error)),
        }
    }

    /// The reward.
    ///
    /// # Errors
    /// As [`validate`](Self::validate), and [`RewardError::Failed`] where the key cannot be read.
    ///
    /// ```
    /// use posttrain_reward::Reward;
    /// use posttrain_reward::outside::RemoteConfig;
    ///
    /// assert_eq!(RemoteConfig::for_server("http://localhost:8000")?.build()?.name(), "remote");
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn build(self) -> Result<Remote, RewardError> {
        self.validate()?;
        let client = self.client.build().map_err(|error| failed(&self.name, &error))?;
        let server =
            Server { name: self.name.clone(), path: self.path, client, ids: RequestIds::new() };
        Ok(match self.batching {
            Batching::Single => Remote { name: self.name, way: Way::Single(server) },
            Batching::Batched { max_samples, max_wait_seconds } => {
                let wait = Duration::from_secs_f64(max_wait_seconds);
                Remote {
                    name: self.name,
                    way: Way::Batched(Batcher::new(max_samples, wait, server)),
                }
            }
        })
    }
}

/// The reward that [`RemoteConfig`] describes and builds.
///
/// ```
/// use posttrain_reward::outside::{Remote, RemoteConfig};
///
/// let reward: Remote = RemoteConfig::for_server("https://rewards.example/v1")?.build()?;
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
pub struct Remote {
    name: String,
    way: Way,
}

enum Way {
    Single(Server),
    Batched(Batcher<Value, Result<Score, RewardError>>),
}

impl Reward for Remote {
    fn name(&self) -> &str {
        &self.name
    }

    fn score<'a>(&'a self, sample: &'a Sample) -> BoxFuture<'a, Result<Score, RewardError>> {
        Box::pin(async move {
            let request = serde_json::to_value(Request::from(sample));
            let request =
                request.map_err(|error| RewardError::failed(&self.name, "request", error))?;
            match &self.way {
                Way::Single(server) => server.ask_one(request).await,
                Way::Batched(batch) => {
                    let cancelled = || RewardError::Cancelled { reward: self.name.clone() };
                    batch.ask(request).await.ok_or_else(cancelled)?
                }
            }
        })
    }
}

struct Server {
    name: String,
    path: String,
    client: JsonClient,
    ids: RequestIds,
}

impl Server {
    async fn ask_one(&self, mut request: Value) -> Result<Score, RewardError> {
        if let Value::Object(fields) = &mut request {
            fields.insert("request_id".to_owned(), self.ids.next().into());
        }
        let reply = self.post(&request).await?;
        self.read(&reply)
    }

    async fn ask_many(
        &self,
        samples: Vec<Value>,
    ) -> Result<Vec<Result<Score, RewardError>>, RewardError> {
        let count = samples.len();
        let reply = self.post(&json!({"request_id": self.ids.next(), "samples": samples})).await?;
        match reply.get("results").and_then(Value::as_array) {
            Some(results) if results.len() == count => {
                Ok(results.iter().map(|result| self.read(result)).collect())
            }
            Some(results) => {
                Err(self
                    .bad_reply(&reply, format!("{} results for {count} samples", results.len())))
            }
            None => Err(self.bad_reply(&reply, "no list `results`".to_owned())),
        }
    }

    async fn post(&self, body: &Value) -> Result<Value, RewardError> {
        self.client.post(&self.path, body, 0).await.map_err(|error| failed(&self.name, &error))
    }

    fn read(&self, reply: &Value) -> Result<Score, RewardError> {
        Reply::read(&self.name, reply).map_err(|error| self.without_secrets(error))
    }

    fn bad_reply(&self, reply: &Value, reason: String) -> RewardError {
        let reply = reply.to_string().chars().take(200).collect();
        self.without_secrets(RewardError::BadReply { reward: self.name.clone(), reply, reason })
    }

    /// A server may repeat what it was sent.
    fn without_secrets(&self, error: RewardError) -> RewardError {
        let clear = |text: String| self.client.without_secrets(&text);
        match error {
            RewardError::Reported { reward, message } => {
                RewardError::Reported { reward, message: clear(message) }
            }
            RewardError::BadReply { reward, reply, reason } => {
                RewardError::BadReply { reward, reply: clear(reply), reason: clear(reason) }
            }
            other => other,
        }
    }
}

impl SendBatch<Value, Result<Score, RewardError>> for Server {
    fn send(&self, samples: Vec<Value>) -> BoxFuture<'_, Vec<Result<Score, RewardError>>> {
        Box::pin(async move {
            let count = samples.len();
            self.ask_many(samples).await.unwrap_or_else(|error| vec![Err(error); count])
        })
    }
}

/// Names of requests, no two alike, in this process or another.
struct RequestIds {
    prefix: u64,
    count: AtomicU64,
}

impl RequestIds {
    fn new() -> Self {
        // The standard library's keys are random for each process, and differ from call to call.
        Self { prefix: RandomState::new().hash_one(std::process::id()), count: AtomicU64::new(0) }
    }

    fn next(&self) -> String {
        format!("{:016x}-{}", self.prefix, self.count.fetch_add(1, Ordering::Relaxed))
    }
}

fn failed(name: &str, error: &ChatError) -> RewardError {
    RewardError::failed(name, error.cause(), error.clone())
}
