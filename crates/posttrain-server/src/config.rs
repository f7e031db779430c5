//! How a server works.

use crate::{Keys, ServerError};
use posttrain_recipes::traffic::TrafficConfig;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What a server is told before it starts.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The base model's name: what clients ask for, and the folder or name that they load the
    /// tokenizer by.
    pub name: String,
    /// Where sessions and checkpoints are kept.
    pub data: PathBuf,
    /// The keys that are taken; `None` takes every request as one owner's.
    pub keys: Option<Keys>,
    /// What clients may ask of it.
    pub limits: Limits,
    /// Whether training calls of several models go through the base together. What each comes to
    /// then depends on who else called, up to rounding; without, it is the same to the bit.
    pub share_passes: bool,
    /// A policy that learns from what it serves, beside everything else.
    pub learn: Option<TrafficConfig>,
}

impl ServerConfig {
    /// A server of a model of this name that keeps its checkpoints in `data`, for one owner.
    ///
    /// ```
    /// let config = posttrain_server::ServerConfig::new("smollm2", "data");
    /// assert!(config.keys.is_none() && config.validate().is_ok());
    /// ```
    pub fn new(name: impl Into<String>, data: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            data: data.into(),
            keys: None,
            limits: Limits::default(),
            share_passes: true,
            learn: None,
        }
    }

    /// Checks every field's range.
    ///
    /// # Errors
    /// [`ServerError::Config`] names the first field that is out of range.
    pub fn validate(&self) -> Result<(), ServerError> {
        ServerError::check("name", !self.name.is_empty(), "a name", "an empty one")?;
        if let Some(learn) = &self.learn {
            learn.validate()?;
        }
        self.limits.validate()
    }

    /// Checks that an address which others reach is served with keys alone.
    ///
    /// # Errors
    /// [`ServerError::OpenToAll`].
    ///
    /// ```
    /// let config = posttrain_server::ServerConfig::new("smollm2", "data");
    /// assert!(config.check_address("127.0.0.1:8000".parse().unwrap()).is_ok());
    /// assert!(config.check_address("0.0.0.0:8000".parse().unwrap()).is_err());
    /// ```
    pub fn check_address(&self, address: SocketAddr) -> Result<(), ServerError> {
        if address.ip().is_loopback() || self.keys.is_some() {
            Ok(())
        } else {
            Err(ServerError::OpenToAll { address })
        }
    }
}

/// What clients may ask of a server. Each bound is told in words to whoever meets it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Bytes of a request's body. The SDK cuts its calls at 5 MB, and sends a longer datum whole.
    pub body_bytes: usize,
    /// Connections at a time.
    pub connections: usize,
    /// Requests per second and key, in the long run; ten seconds' worth may come at once.
    pub requests_per_second: f64,
    /// Sessions that a key may have open.
    pub sessions: usize,
    /// How long a session lives without a request or a heartbeat (the SDK sends one every ten
    /// seconds). Its models and samplers are then freed.
    pub session_timeout: Duration,
    /// Models in training at a time, of all keys together.
    pub models: usize,
    /// Models in training of one key, on a server that has keys.
    pub models_per_key: usize,
    /// The largest rank of an adapter.
    pub rank: i64,
    /// Samplers of a session that are kept in memory; the one that was used longest ago makes room.
    pub samplers: usize,
    /// Samples that wait or run, and training calls that wait, at a time.
    pub pending: usize,
    /// Completions of one request.
    pub samples: usize,
    /// Prompt tokens whose keys and values are kept for requests that begin alike under the same
    /// policy; 0 keeps none.
    pub keep_tokens: usize,
    /// Prompt tokens that an engine reads between two decoding steps: for so long does a long prompt
    /// hold up those who are being answered.
    pub prefill_tokens: usize,
    /// Entries (positions times targets) of one training call.
    pub entries: usize,
    /// Bytes of results that nobody has fetched yet, or may fetch again.
    pub result_bytes: usize,
    /// Bytes of checkpoints of one key on the disk.
    pub disk_bytes: u64,
    /// How long a poll for a result is held before it is answered with "not yet". The SDK gives up
    /// after 45 s.
    pub poll: Duration,
}

impl Default for Limits {
    /// Enough for a few researchers on one machine.
    fn default() -> Self {
        Self {
            body_bytes: 64 << 20,
            connections: 4096,
            requests_per_second: 500.0,
            sessions: 1000,
            session_timeout: Duration::from_secs(15 * 60),
            models: 64,
            models_per_key: 32,
            rank: 512,
            samplers: 16,
            pending: 16_384,
            samples: 1024,
            keep_tokens: 8192,
            prefill_tokens: 256,
            entries: 8 << 20,
            result_bytes: 1 << 30,
            disk_bytes: 100 << 30,
            poll: Duration::from_secs(25),
        }
    }
}

impl Limits {
    /// Checks every field's range.
    ///
    /// # Errors
    /// [`ServerError::Config`] names the first field that is out of range.
    pub fn validate(&self) -> Result<(), ServerError> {
        let counts = [
            ("body_bytes", self.body_bytes),
            ("connections", self.connections),
            ("sessions", self.sessions),
            ("models", self.models),
            ("models_per_key", self.models_per_key),
            ("samplers", self.samplers),
            ("pending", self.pending),
            ("samples", self.samples),
            ("prefill_tokens", self.prefill_tokens),
            ("entries", self.entries),
            ("result_bytes", self.result_bytes),
        ];
        for (field, count) in counts {
            ServerError::check(field, count >= 1, "at least 1", &count)?;
        }

        let rate = self.requests_per_second;
        let fits = rate.is_finite() && rate > 0.0;
        ServerError::check("requests_per_second", fits, "finite and above 0", &rate)?;
        ServerError::check("rank", self.rank >= 1, "at least 1", &self.rank)?;
        let poll = self.poll.as_secs_f64();
        ServerError::check("poll", (0.01..=40.0).contains(&poll), "from 0.01 to 40 s", &poll)?;
        let timeout = self.session_timeout.as_secs_f64();
        ServerError::check("session_timeout", timeout > 0.0, "above 0 s", &timeout)
    }
}
