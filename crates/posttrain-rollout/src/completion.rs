//! What sampling gives.

use crate::policy::same_policy;
use crate::{PolicySnapshot, RequestError, RequestId};
use posttrain_chat::FinishReason;
use posttrain_model::RecordedToken;
use std::sync::Arc;

/// One sampled text.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Its tokens, an end token included.
    pub tokens: Vec<i64>,
    /// Each token's log-probability in nats under the distribution that it was drawn from: after
    /// temperature and truncation, renormalized. For greedy sampling under the unscaled
    /// distribution.
    pub logprobs: Vec<f32>,
    /// The text without special tokens, cut before a stop text. Empty where the engine has no
    /// tokenizer.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The version of the policy that wrote its first token.
    pub policy_version: u64,
    /// The version that wrote each token: all of one, unless the policy was replaced while the
    /// completion was sampled ([`crate::Engine::replace_policy`]).
    pub token_versions: Vec<u64>,
    /// The activations that it was sampled from, where the engine records them
    /// ([`crate::EngineConfig::record_mib`]).
    pub recording: Option<Recording>,
}

/// Where the activations of a prompt and its completion are: all that a backward pass needs of the
/// model's forward pass.
#[derive(Debug, Clone)]
pub struct Recording {
    /// The policy that computed them; `None` is the base.
    pub policy: Option<PolicySnapshot>,
    /// The prompt's tokens, shared by its completions.
    pub prompt: Arc<[RecordedToken]>,
    /// The completion's tokens but the last, which the model never saw.
    pub completion: Vec<RecordedToken>,
}

/// Two recordings are equal if they point at the same passes of the same policy; activations are
/// not compared.
impl PartialEq for Recording {
    fn eq(&self, other: &Self) -> bool {
        same_policy(self.policy.as_ref(), other.policy.as_ref())
            && self.prompt == other.prompt
            && self.completion == other.completion
    }
}

/// A token as it is drawn, before its completion is finished.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampledToken {
    /// The request.
    pub request: RequestId,
    /// Which of the request's samples, from 0.
    pub sample: usize,
    /// The token's id.
    pub token: i64,
    /// Its log-probability, nats, as in [`Completion::logprobs`].
    pub logprob: f32,
    /// The version of the policy that drew it.
    pub policy_version: u64,
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
