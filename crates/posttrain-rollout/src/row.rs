//! One running sample: its randomness, its tokens so far, and when it ends.

use crate::{Completion, FinishReason, Recording, RequestError, RequestId, RolloutError, SamplingParams};
use posttrain_lora::AdapterView;
use posttrain_loss::RowSampling;
use posttrain_model::{RecordedToken, TextTokenizer};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::rc::Rc;
use std::sync::Arc;

/// What all samples of a request share.
#[derive(Debug)]
pub(crate) struct Group {
    pub request: RequestId,
    pub prompt: Vec<i64>,
    pub params: SamplingParams,
    pub adapter: Option<Rc<AdapterView>>,
    pub policy_version: u64,
}

/// Whether two groups are sampled by the same adapter: the same snapshot, not an equal one.
pub(crate) fn same_adapter(one: &Group, other: &Group) -> bool {
    match (&one.adapter, &other.adapter) {
        (Some(one), Some(other)) => Rc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// A sample that occupies a row of the cache.
#[derive(Debug)]
pub(crate) struct Row {
    pub group: Rc<Group>,
    pub sample: usize,
    rng: ChaCha8Rng,
    tokens: Vec<i64>,
    logprobs: Vec<f32>,
    room: usize,
    recording: Option<Recording>,
}

/// Where a stop text begins in a completion's text.
struct StopAt(usize);

impl Row {
    /// A sample before its first token, in a model whose context is `context` tokens.
    pub fn new(group: Rc<Group>, sample: usize, context: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(group.params.seed);
        rng.set_stream(sample as u64);
        let room = context - group.prompt.len();
        Self { group, sample, rng, tokens: Vec::new(), logprobs: Vec::new(), room, recording: None }
    }

    /// The same, its activations recorded from the prompt's on, where those are.
    pub fn recording(self, prompt: Option<&Arc<[RecordedToken]>>) -> Self {
        let policy_version = self.group.policy_version;
        let begun = |prompt: &Arc<[RecordedToken]>| Recording {
            policy_version,
            prompt: prompt.clone(),
            completion: Vec::new(),
        };
        Self { recording: prompt.map(begun), ..self }
    }

    /// Whether its activations are recorded.
    pub fn records(&self) -> bool {
        self.recording.is_some()
    }

    /// Takes the place of the latest token's activations. Without one, what there is so far is given up.
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
        let (tokens, logprobs) = (std::mem::take(&mut self.tokens), std::mem::take(&mut self.logprobs));
        let (policy_version, recording) = (self.group.policy_version, self.recording.take());
        Ok(Completion { tokens, logprobs, text, finish_reason, policy_version, recording })
    }

    /// Looks for a stop text. Only the last tokens are decoded to see whether there is one, so that a long completion
    /// does not cost its length squared.
    fn stop_text(&self, tokenizer: Option<&TextTokenizer>) -> Result<Option<StopAt>, RolloutError> {
        let stop = &self.group.params.stop;
        let (Some(tokenizer), Some(longest)) = (tokenizer, stop.iter().map(String::len).max()) else {
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
