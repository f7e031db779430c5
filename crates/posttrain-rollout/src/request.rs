//! What is to be sampled, and how.

use crate::{PolicySnapshot, RequestError};
use serde::{Deserialize, Serialize};

/// How tokens are drawn and when to stop.
///
/// Defaults: temperature 1 and no truncation, as policy gradients need (TRL's and Tinker's defaults
/// for RL); the length is TRL's `max_completion_length`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingParams {
    /// Tokens at most, 1 and up. The model's context is a bound as well.
    pub max_tokens: usize,
    /// Tokens at least: until then the tokens that would end the completion are kept as any other.
    pub min_tokens: usize,
    /// 0 is greedy; else logits are divided by it.
    pub temperature: f64,
    /// Keep the `k` most probable tokens.
    pub top_k: Option<usize>,
    /// Keep the smallest set of tokens with this probability together, in (0, 1].
    pub top_p: Option<f64>,
    /// Keep tokens at least this share as probable as the most probable one, in [0, 1].
    pub min_p: Option<f64>,
    /// Tokens that end a completion beside the model's own end tokens.
    pub stop_token_ids: Vec<i64>,
    /// Texts that end a completion; the text is cut before them, the tokens are kept.
    pub stop: Vec<String>,
    /// Seed of the request; each of its samples draws from its own stream.
    pub seed: u64,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            max_tokens: 512,
            min_tokens: 0,
            temperature: 1.0,
            top_k: None,
            top_p: None,
            min_p: None,
            stop_token_ids: Vec::new(),
            stop: Vec::new(),
            seed: 0,
        }
    }
}

impl SamplingParams {
    /// Takes the most probable token every time.
    #[must_use]
    pub fn greedy(self) -> Self {
        Self { temperature: 0.0, ..self }
    }

    /// Checks every field's range.
    ///
    /// # Errors
    /// [`RequestError::Params`] names the first field that is out of range.
    pub fn validate(&self) -> Result<(), RequestError> {
        let finite = self.temperature.is_finite() && self.temperature >= 0.0;
        check("max_tokens", self.max_tokens >= 1, "at least 1", &self.max_tokens)?;
        check(
            "min_tokens",
            self.min_tokens <= self.max_tokens,
            "at most max_tokens",
            &self.min_tokens,
        )?;
        check("temperature", finite, "finite and at least 0", &self.temperature)?;
        let top_k = self.top_k.unwrap_or(1);
        check("top_k", top_k >= 1, "at least 1", &top_k)?;
        let top_p = self.top_p.unwrap_or(1.0);
        check("top_p", top_p > 0.0 && top_p <= 1.0, "above 0 and at most 1", &top_p)?;
        let min_p = self.min_p.unwrap_or(0.0);
        check("min_p", (0.0..=1.0).contains(&min_p), "from 0 to 1", &min_p)?;
        let empty = self.stop.iter().any(String::is_empty);
        check("stop", !empty, "texts that are not empty", "an empty one")
    }
}

fn check(
    field: &'static str,
    ok: bool,
    expected: &'static str,
    got: &(impl ToString + ?Sized),
) -> Result<(), RequestError> {
    if ok { Ok(()) } else { Err(RequestError::Params { field, expected, got: got.to_string() }) }
}

/// A request's number: its place among those submitted to an engine, from 0.
pub type RequestId = usize;

/// A prompt and how many completions of it are wanted.
#[derive(Debug, Clone)]
pub struct Request {
    /// Token ids of the prompt.
    pub prompt: Vec<i64>,
    /// How many completions: the group's size.
    pub samples: usize,
    /// How they are drawn.
    pub params: SamplingParams,
    /// The policy to sample from; `None` is the base alone, as version 0.
    pub policy: Option<PolicySnapshot>,
    /// Among requests that wait, those of a higher priority get rows first; equal ones of a client
    /// in the order of their coming.
    pub priority: i32,
    /// Whose it is, by any number: rows are shared out evenly among the clients that want some, as
    /// max-min fairness has it. A client that wants more than its share has what others leave, and
    /// gives it back when they come; a sample whose row is taken goes on later from where it was.
    pub client: u64,
}

impl Request {
    /// One completion of a prompt by the base.
    #[must_use]
    pub fn new(prompt: Vec<i64>, params: SamplingParams) -> Self {
        Self { prompt, samples: 1, params, policy: None, priority: 0, client: 0 }
    }

    /// Asks for `samples` completions.
    #[must_use]
    pub fn samples(self, samples: usize) -> Self {
        Self { samples, ..self }
    }

    /// Samples from a policy, whose version the completions carry.
    #[must_use]
    pub fn policy(self, policy: impl Into<Option<PolicySnapshot>>) -> Self {
        Self { policy: policy.into(), ..self }
    }

    /// Shares rows as one of several clients.
    #[must_use]
    pub fn client(self, client: u64) -> Self {
        Self { client, ..self }
    }

    /// Waits with a priority other than 0.
    #[must_use]
    pub fn priority(self, priority: i32) -> Self {
        Self { priority, ..self }
    }
}
