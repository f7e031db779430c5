//! Configuration of the HTTP client: addresses, key, limits, deadlines.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::ChatError;
use crate::client::{Endpoint, JsonClient, KeyHeader, KeySource, RetryConfig};

/// Seconds of a deadline at most: a day.
const LONGEST_SECONDS: f64 = 86_400.0;

/// How long the parts of a call may take, in seconds, each more than 0 and at most a day.
///
/// ```
/// use posttrain_chat::client::Deadlines;
///
/// let deadlines = Deadlines::default();
/// assert_eq!((deadlines.connect_seconds, deadlines.total_seconds), (5.0, 600.0));
/// assert!(Deadlines { read_seconds: 0.0, ..deadlines }.validate().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deadlines {
    /// Until a connection stands.
    pub connect_seconds: f64,
    /// Without a byte. A server that answers in one piece sends none while it generates.
    pub read_seconds: f64,
    /// One attempt, from sending to the last byte: the end of a server that trickles.
    pub attempt_seconds: f64,
    /// A call with all its attempts and pauses, from when the limits let it begin.
    pub total_seconds: f64,
}

impl Default for Deadlines {
    /// Connect and total are the timeouts of
    /// [openai-python](https://github.com/openai/openai-python/blob/main/src/openai/_constants.py)
    /// (5 and 600 s); read and attempt, 120 and 240 s, are this crate's choice, which leaves time
    /// for another attempt.
    fn default() -> Self {
        Self {
            connect_seconds: 5.0,
            read_seconds: 120.0,
            attempt_seconds: 240.0,
            total_seconds: 600.0,
        }
    }
}

impl Deadlines {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`ChatError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// use posttrain_chat::client::Deadlines;
    ///
    /// let error = Deadlines { total_seconds: f64::NAN, ..Deadlines::default() }.validate().unwrap_err();
    /// assert!(error.to_string().contains("deadlines.total_seconds"));
    /// ```
    pub fn validate(&self) -> Result<(), ChatError> {
        let named = [
            ("deadlines.connect_seconds", self.connect_seconds),
            ("deadlines.read_seconds", self.read_seconds),
            ("deadlines.attempt_seconds", self.attempt_seconds),
            ("deadlines.total_seconds", self.total_seconds),
        ];
        named
            .into_iter()
            .try_for_each(|(field, seconds)| positive_seconds(field, seconds).map(|_| ()))
    }
}

/// When a replica that fails is left alone, and for how long.
///
/// ```
/// assert_eq!(posttrain_chat::client::BreakerConfig::default().failures, 5);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Failures in a row (broken connections, deadlines, 5xx, answers that are not JSON) that take
    /// a replica out of service, at least 1. The default, 5, is Envoy's
    /// `outlier_detection.consecutive_5xx`.
    pub failures: u32,
    /// Seconds out of service, more than 0, after which one request probes it. The default, 5, is
    /// this crate's choice.
    pub pause_seconds: f64,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failures: 5, pause_seconds: 5.0 }
    }
}

/// Which proxy requests go through.
///
/// ```
/// assert_eq!(posttrain_chat::client::ProxyChoice::default(), posttrain_chat::client::ProxyChoice::Environment);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProxyChoice {
    /// What `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say; never for this machine's
    /// own servers.
    #[default]
    Environment,
    /// None.
    Direct,
    /// This one, whose user and password are not shown.
    Through(Endpoint),
}

/// Configuration of a [`JsonClient`].
///
/// ```
/// use posttrain_chat::client::{JsonClientConfig, KeySource};
///
/// let config: JsonClientConfig = toml::from_str(r#"
///     endpoints = ["http://gpu-1:8000/v1", "http://gpu-2:8000/v1"]
///     api_key = { file = "/run/secrets/judge" }
///     in_flight = 64
///     deadlines = { read_seconds = 30 }
/// "#)?;
/// config.validate()?;
/// assert_eq!((config.in_flight, config.retry.retries), (64, 5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JsonClientConfig {
    /// The replicas' base addresses, at least one; all serve the same. None by default.
    pub endpoints: Vec<Endpoint>,
    /// Where the API key comes from; none by default.
    pub api_key: KeySource,
    /// How the key is sent; by default as a bearer token.
    pub key_header: KeyHeader,
    /// Calls at the same time over all replicas, at least 1; others wait in turn. The default, 256,
    /// is what one replica batches (vLLM's `max_num_seqs`).
    pub in_flight: usize,
    /// Requests a minute, retries included, more than 0; no limit by default.
    pub requests_per_minute: Option<f64>,
    /// Tokens a minute, more than 0; no limit by default.
    pub tokens_per_minute: Option<f64>,
    /// How long a call may take.
    pub deadlines: Deadlines,
    /// When a request is sent again.
    pub retry: RetryConfig,
    /// When a replica is left alone.
    pub breaker: BreakerConfig,
    /// Bytes of an answer at most, at least 1. The default, 16 MiB, is this crate's choice: an
    /// answer of 100,000 tokens with log-probabilities fits.
    pub max_response_bytes: usize,
    /// The proxy; by default what the environment says.
    pub proxy: ProxyChoice,
}

impl Default for JsonClientConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            api_key: KeySource::None,
            key_header: KeyHeader::Bearer,
            in_flight: 256,
            requests_per_minute: None,
            tokens_per_minute: None,
            deadlines: Deadlines::default(),
            retry: RetryConfig::default(),
            breaker: BreakerConfig::default(),
            max_response_bytes: 16 << 20,
            proxy: ProxyChoice::Environment,
        }
    }
}

impl JsonClientConfig {
    /// The defaults for one server without a key.
    ///
    /// # Errors
    /// [`ChatError::InvalidConfig`] where `endpoint` is not an address.
    ///
    /// ```
    /// let config = posttrain_chat::client::JsonClientConfig::for_server("http://localhost:8000/v1")?;
    /// assert_eq!(config.endpoints[0].to_string(), "http://localhost:8000/v1");
    /// # Ok::<(), posttrain_chat::ChatError>(())
    /// ```
    pub fn for_server(endpoint: &str) -> Result<Self, ChatError> {
        Ok(Self { endpoints: vec![endpoint.parse()?], ..Self::default() })
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`ChatError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// use posttrain_chat::client::JsonClientConfig;
    ///
    /// assert!(JsonClientConfig::default().validate().unwrap_err().to_string().contains("endpoints"));
    /// ```
    pub fn validate(&self) -> Result<(), ChatError> {
        if self.endpoints.is_empty() {
            return Err(ChatError::invalid_config(
                "endpoints",
                "empty",
                "the address of at least one server",
            ));
        }
        if self.api_key != KeySource::None
            && self.endpoints.iter().any(|endpoint| endpoint.user().is_some())
        {
            let expected =
                "no API key where an endpoint has a user name: both are sent as `Authorization`";
            return Err(ChatError::invalid_config("api_key", "set", expected));
        }
        if !(1..=Semaphore::MAX_PERMITS).contains(&self.in_flight) {
            return Err(ChatError::invalid_config("in_flight", self.in_flight, "at least 1"));
        }
        if self.max_response_bytes == 0 {
            return Err(ChatError::invalid_config("max_response_bytes", 0, "at least 1"));
        }
        if self.breaker.failures == 0 {
            return Err(ChatError::invalid_config("breaker.failures", 0, "at least 1"));
        }
        positive_seconds("breaker.pause_seconds", self.breaker.pause_seconds)?;
        rate("requests_per_minute", self.requests_per_minute)?;
        rate("tokens_per_minute", self.tokens_per_minute)?;
        self.deadlines.validate()?;
        self.retry.validate()
    }

    /// A client of this configuration; the key is fetched here.
    ///
    /// # Errors
    /// [`ChatError::InvalidConfig`]; [`ChatError::NoKey`]; [`ChatError::Setup`].
    ///
    /// ```
    /// let client = posttrain_chat::client::JsonClientConfig::for_server("http://localhost:8000/v1")?.build()?;
    /// assert_eq!(format!("{client:?}"), "JsonClient([Endpoint(http://localhost:8000/v1)])");
    /// # Ok::<(), posttrain_chat::ChatError>(())
    /// ```
    pub fn build(self) -> Result<JsonClient, ChatError> {
        JsonClient::new(self)
    }
}

fn rate(field: &str, limit: Option<f64>) -> Result<(), ChatError> {
    match limit {
        // A billionth a minute is a unit in two thousand years.
        Some(limit) if !(1e-9..=1e12).contains(&limit) => Err(ChatError::invalid_config(
            field,
            limit,
            "a number more than 0 (at least a billionth)",
        )),
        _ => Ok(()),
    }
}

fn positive_seconds(field: &str, value: f64) -> Result<Duration, ChatError> {
    let expected = "more than 0 and at most 86400 seconds";
    let fits = value > 0.0 && value <= LONGEST_SECONDS && !seconds(value).is_zero();
    fits.then(|| seconds(value)).ok_or_else(|| ChatError::invalid_config(field, value, expected))
}

/// Like [`positive_seconds`], with 0 allowed.
pub(crate) fn pause_seconds(field: &str, value: f64) -> Result<Duration, ChatError> {
    let fits = (0.0..=LONGEST_SECONDS).contains(&value);
    fits.then(|| seconds(value))
        .ok_or_else(|| ChatError::invalid_config(field, value, "from 0 to 86400 seconds"))
}

/// A number of seconds as a duration: 0 for what is none, a day for what is longer.
pub(crate) fn seconds(value: f64) -> Duration {
    // Not `min`, which takes the other number for one that is none.
    let bounded = if value > LONGEST_SECONDS { LONGEST_SECONDS } else { value };
    Duration::try_from_secs_f64(bounded).unwrap_or_default()
}
