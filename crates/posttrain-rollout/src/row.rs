//! One running sample: its randomness, its tokens so far, and when it ends.

use crate::policy::same_policy;
use crate::{
    Completion, FinishReason, PolicySnapshot, Recording, RequestError, RequestId, RolloutError,
    SamplingParams,
};
use posttrain_lora::AdapterView;
use posttrain_loss::RowSampling;
use posttrain_model::{RecordedToken, TextTokenizer};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::sync::Arc;

/// What all samples of a request share.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub request: RequestId,
    pub prompt: Vec<i64>,
    pub params: SamplingParams,
    pub policy: Option<PolicySnapshot>,
    pub priority: i32,
    pub client: u64,
}

impl Group {
    /// The adapter that samples; `None` is the base.
    pub fn adapter(&self) -> Option<&AdapterView> {
        self.policy.as_ref().map(|policy| &*policy.adapter)
    }

    /// The version that its tokens carry.
    pub fn version(&self) -> u64 {
        self.policy.as_ref().map_or(0, |policy| policy.version)
    }
}

/// Whether two groups are sampled by the same adapter: the same snapshot, not an equal one.
pub(crate) fn same_adapter(one: &Group, other: &Group) -> bool {
    same_policy(one.policy.as_ref(), other.policy.as_ref())
}

/// A sample that occupies a row of the cache.
#[derive(Debug)]
pub(crate) struct Row {
    pub group: Arc<Group>,
    pub sample: usize,
    rng: ChaCha8Rng,
    tokens: Vec<i64>,
    logprobs: Vec<f32>,
    versions: Vec<u64>,
    room: usize,
    recording: Option<Recording>,
    followed: bool,
}

/// Where a stop text begins in a completion's text.
#[derive(Clone, Copy)]
struct StopAt(usize);

impl Row {
    /// A sample before its first token, in a model whose context is `context` tokens.
    pub fn new(group: Arc<Group>, sample: usize, context: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(group.params.seed);
        rng.set_stream(sample as u64);
        let room = context - group.prompt.len();

        Self {
            group,
            sample,
            rng,
            tokens: Vec::new(),
            logprobs: Vec::new(),
            versions: Vec::new(),
            room,
            recording: None,
            followed: false,
        }
    }

    /// Records its activations from the prompt's on, where those are recorded.
    pub fn recording(self, prompt: Option<&Arc<[RecordedToken]>>) -> Self {
        let recording = prompt.map(|prompt| Recording {
            policy: self.group.policy.clone(),
            prompt: prompt.clone(),
            completion: Vec::new(),
        });
        Self { recording, ..self }
    }

    /// Goes on under another policy. What was recorded so far is of no use to it.
    pub fn follow(&mut self, group: Arc<Group>) {
        self.group = group;
        self.recording = None;
        self.followed = true;
    }

    /// Whether more than one policy has read its text.
    pub fn followed(&self) -> bool {
        self.followed
    }

    /// The text that the model has read: the prompt, and the sampled tokens but the last.
    pub fn text(&self) -> Vec<i64> {
        let read = self.tokens.len().saturating_sub(1);
        [&self.group.prompt, &self.tokens[..read]].concat()
    }

    /// Tokens that it has sampled.
    pub fn sampled(&self) -> usize {
        self.tokens.len()
    }

    /// Whether its activations are recorded.
    pub fn records(&self) -> bool {
        self.recording.is_some()
    }

    /// Takes the place of the latest token's activations. Without one, what there is so far is
    /// given up.
    pub fn record(&mut self, token: Option<RecordedToken>) {
        match (&mut self.recording, token) {
            (Some(recording), Some(token)) => recording.completion.push(token),
            _ => self.recording = None,
        }
    }

    /// The token that the model sees next, and its position.
    pub fn next_input(&self) -> (i64, i64) {
        let position = self.group.prompt.len() + self.tokens.len() - 1;
        (self.tokens.last().copied().unwrap_or_default(), position as i64)
    }

    /// How the next token is drawn. Advances the row's randomness.
    pub fn draw(&mut self) -> RowSampling {
        let params = &self.group.params;
        let uniform = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        RowSampling {
            temperature: params.temperature,
            top_k: params.top_k,
            top_p: params.top_p,
            min_p: params.min_p,
            uniform,
        }
    }

    /// Takes a drawn token; the completion if that ended it.
    pub fn push(
        &mut self,
        token: i64,
        logprob: f32,
        end_tokens: &[i64],
        tokenizer: Option<&TextTokenizer>,
    ) -> Result<Option<Completion>, RolloutError> {
        self.tokens.push(token);
        self.logprobs.push(logprob);
        self.versions.push(self.group.version());

        let params = &self.group.params;
        let may_end = self.tokens.len() > params.min_tokens;
        if may_end && (end_tokens.contains(&token) || params.stop_token_ids.contains(&token)) {
            return self.finish(FinishReason::Stop, None, tokenizer).map(Some);
        }
        if let Some(stop) = self.stop_text(tokenizer)?.filter(|_| may_end) {
            return self.finish(FinishReason::Stop, Some(stop), tokenizer).map(Some);
        }
        if self.tokens.len() >= params.max_tokens.min(self.room) {
            return self.finish(FinishReason::Length, None, tokenizer).map(Some);
        }
        Ok(None)
    }

    fn finish(
        &mut self,
        finish_reason: FinishReason,
        stop: Option<StopAt>,
        tokenizer: Option<&TextTokenizer>,
    ) -> Result<Completion, RolloutError> {
        let mut text = tokenizer.map_or(Ok(String::new()), |t| t.decode(&self.tokens))?;
        if let Some(StopAt(place)) = stop {
            text.truncate(place);
        }

        Ok(Completion {
            tokens: self.tokens.clone(),
            logprobs: std::mem::take(&mut self.logprobs),
            text,
            finish_reason,
            policy_version: self.versions.first().copied().unwrap_or_default(),
            token_versions: std::mem::take(&mut self.versions),
            recording: self.recording.take(),
        })
    }

    /// Looks for a stop text. Only the last tokens are decoded to see whether there is one, so that
    /// a long completion does not cost its length squared.
    fn stop_text(&self, tokenizer: Option<&TextTokenizer>) -> Result<Option<StopAt>, RolloutError> {
        let stop = &self.group.params.stop;
        let (Some(tokenizer), Some(longest)) = (tokenizer, stop.iter().map(String::len).max())
        else {
            return Ok(None);
        };
        let tail = self.tokens.len().saturating_sub(longest + 4);
        let recent = tokenizer.decode(&self.tokens[tail..])?;
        if !stop.iter().any(|s| recent.contains(s.as_str())) {
            return Ok(None);
        }
        let text = tokenizer.decode(&self.tokens)?;
        Ok(stop.iter().filter_map(|s| text.find(s.as_str())).min().map(StopAt))
    }
}

/// Checks a prompt against the model's vocabulary and context.
pub(crate) fn check_prompt(prompt: &[i64], vocab: i64, context: usize) -> Result<(), RequestError> {
    if prompt.is_empty() {
        return Err(RequestError::PromptEmpty);
    }
    if prompt.len() >= context {
        return Err(RequestError::PromptTooLong { tokens: prompt.len(), context });
    }
    match prompt.iter().position(|t| !(0..vocab).contains(t)) {
        Some(place) => Err(RequestError::UnknownToken { token: prompt[place], place, vocab }),
        None => Ok(()),
    }
}
