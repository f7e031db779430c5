//! Sampling by servers elsewhere: vLLM's and SGLang's, which take adapters while they run.
//!
//! A policy is written as a PEFT folder and loaded by every server under a name of its own, which is
//! never used for another one. After each load a server has to prove that it serves it: what it
//! says of a few tokens is compared with what this process computes. Requests go to the server with
//! the fewest; what one held that died is asked of another.

mod pool;
mod proof;
mod server;
mod wire;

pub(crate) use pool::{RemoteGroup, RemoteSampler};

use crate::RecipeError;
use posttrain_chat::client::{Deadlines, Endpoint, JsonClientConfig, KeySource, RetryConfig};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use wire::Dialect;

/// Where completions are sampled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum SamplerConfig {
    /// In this process, by the engine.
    Local {},
    /// By vLLM servers of the same base, started with `--enable-lora`, `--max-lora-rank` of the run's
    /// rank or more, `--max-loras` 2 or more, `--logprobs-mode processed_logprobs`, and
    /// `VLLM_ALLOW_RUNTIME_LORA_UPDATING=1`. Their addresses end with `/v1`.
    Vllm(ServersConfig),
    /// By SGLang servers of the same base, started with `--enable-lora`, `--max-lora-rank` of the
    /// run's rank or more, and `--lora-target-modules all`, and without
    /// `--enable-deterministic-inference`, by which a group's samples would all be one. Their
    /// addresses end with the port. They draw by no seed of ours.
    Sglang(ServersConfig),
}

/// Servers that sample for a run.
///
/// ```
/// use posttrain_recipes::SamplerConfig;
///
/// let config: SamplerConfig = serde_json::from_value(serde_json::json!({
///     "kind": "vllm",
///     "urls": ["http://gpu-1:8000/v1", "http://gpu-2:8000/v1"],
///     "adapters": "/shared/adapters",
/// }))?;
/// assert!(matches!(config, SamplerConfig::Vllm(servers) if servers.urls.len() == 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServersConfig {
    /// The servers' addresses, at least one.
    pub urls: Vec<String>,
    /// Where their key comes from.
    pub api_key: KeySource,
    /// The folder that policies are written to, which the servers can read under the same path; by
    /// default one of this machine's own for temporary files.
    pub adapters: Option<PathBuf>,
    /// Requests at a time for each server, each of which is a group, 1 and up.
    pub in_flight: usize,
    /// Seconds that a group may take, more than 0.
    pub seconds: f64,
    /// Seconds for which no server may be of use before the run gives up, more than 0: servers are
    /// started again meanwhile.
    pub patience_seconds: f64,
    /// How far a server's log-probabilities may be from this process's, in nats, by their root mean
    /// square; more than 0. In f32 they differ by 1e-4, in bf16 by some 0.02.
    pub tolerance: f64,
}

impl Default for ServersConfig {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            api_key: KeySource::default(),
            adapters: None,
            in_flight: 64,
            seconds: 600.0,
            patience_seconds: 600.0,
            tolerance: 0.1,
        }
    }
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self::Local {}
    }
}

impl SamplerConfig {
    /// Whether this process samples.
    #[must_use]
    pub fn is_local(&self) -> bool {
        *self == Self::default()
    }

    /// The servers and what they speak, if there are any.
    fn servers(&self) -> Option<(&ServersConfig, Dialect)> {
        match self {
            Self::Local {} => None,
            Self::Vllm(servers) => Some((servers, Dialect::Vllm)),
            Self::Sglang(servers) => Some((servers, Dialect::Sglang)),
        }
    }

    /// Checks every field's range.
    ///
    /// # Errors
    /// [`RecipeError::Config`] names the first that is out of range, [`RecipeError::Chat`] an
    /// address that is none.
    pub fn validate(&self) -> Result<(), RecipeError> {
        let Some((config, _)) = self.servers() else { return Ok(()) };
        let none = config.urls.is_empty();
        RecipeError::check("sampler.urls", !none, "the address of at least one server", "none")?;
        RecipeError::check_counts(&[("sampler.in_flight", config.in_flight as u64)])?;
        let positive = [
            ("sampler.seconds", config.seconds),
            ("sampler.patience_seconds", config.patience_seconds),
            ("sampler.tolerance", config.tolerance),
        ];
        for (field, value) in positive {
            let fits = value.is_finite() && value > 0.0;
            RecipeError::check(field, fits, "finite and above 0", &value)?;
        }
        for url in &config.urls {
            let fits = url.parse::<Endpoint>().is_ok();
            let expected = "addresses such as http://127.0.0.1:8000/v1";
            // An address may hold a password.
            RecipeError::check("sampler.urls", fits, expected, "one that is none")?;
            config.client(url)?.validate()?;
        }
        Ok(())
    }
}

impl ServersConfig {
    /// The client of one server. It does not try again: another server may be free.
    fn client(&self, url: &str) -> Result<JsonClientConfig, RecipeError> {
        let seconds = self.seconds;
        Ok(JsonClientConfig {
            api_key: self.api_key.clone(),
            in_flight: self.in_flight,
            retry: RetryConfig { retries: 0, ..RetryConfig::default() },
            deadlines: Deadlines {
                read_seconds: seconds,
                attempt_seconds: seconds,
                total_seconds: seconds,
                ..Deadlines::default()
            },
            ..JsonClientConfig::for_server(url)?
        })
    }
}
