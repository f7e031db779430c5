//! What sampling gives.

use crate::{RequestError, RequestId};
use posttrain_model::RecordedToken;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it, or a stop text did.
    Stop,
    /// It reached `max_tokens` or the model's context: it was cut.
    Length,
}

/// One sampled text.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Its tokens, an end token included.
    pub tokens: Vec<i64>,
    /// Each token's log-probability in nats under the distribution that it was drawn from: after temperature and
    /// truncation, renormalised. For greedy sampling under the unscaled distribution.
    pub logprobs: Vec<f32>,
    /// The text without special tokens, cut before a stop text. Empty where the engine has no tokenizer.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The policy that wrote it.
    pub policy_version: u64,
    /// The activations that it was sampled from, where the engine records them ([`crate::EngineConfig::record_mib`]).
    pub recording: Option<Recording>,
}

/// Where the activations of a prompt and its completion are: all that a backward pass needs of the model's forward pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// The policy that computed them.
    pub policy_version: u64,
    /// The prompt's tokens, shared by its completions.
    pub prompt: Arc<[RecordedToken]>,
    /// The completion's tokens but the last, which the model never saw.
    pub completion: Vec<RecordedToken>,
}

/// A completion, or the reason why its request was refused, as it comes out of the engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The request.
    pub request: RequestId,
    /// Which of the request's samples, from 0. A refused request has one outcome, sample 0.
    pub sample: usize,
    /// What came of it.
    pub result: Result<Completion, RequestError>,
}
