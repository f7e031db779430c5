//! What a model wrote in training, as `samples.jsonl` has it.

use crate::rollout::{ScoredCompletion, ScoredGroup};
use posttrain_model::TextTokenizer;
use posttrain_rollout::FinishReason;
use serde::{Deserialize, Serialize};

/// A line of `samples.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleLine {
    /// The step, from 1.
    pub step: u64,
    /// The example's id.
    pub id: String,
    /// The question.
    pub question: String,
    /// The reference answer.
    pub answer: String,
    /// What the model wrote.
    pub completion: String,
    /// How it ended.
    pub finish_reason: FinishReason,
    /// Its reward, where it has one.
    pub reward: Option<f64>,
    /// What it was worth beside the others of its group.
    pub advantage: f32,
    /// Why it has no reward.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// Its tokens.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tokens: Vec<SampledToken>,
}

/// A token of a completion: its text, and how much likelier the trainer held it than the sampler
/// had, as a ratio of probabilities; none where it was not trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampledToken(pub String, pub Option<f32>);

impl SampleLine {
    /// A completion of a group, with the trainer's log-probabilities of its tokens, of which there
    /// may be none.
    pub(crate) fn new(
        step: u64,
        group: &ScoredGroup,
        scored: &ScoredCompletion,
        advantage: f32,
        (tokenizer, logprobs): (&TextTokenizer, &[f32]),
    ) -> Self {
        let completion = &scored.completion;
        let ratio = |at: usize| Some((logprobs.get(at)? - completion.logprobs.get(at)?).exp());
        let token = |(at, token): (usize, &i64)| {
            let text = tokenizer.decode_with_special(&[*token]).unwrap_or_default();
            SampledToken(text, ratio(at))
        };
        Self {
            step,
            id: group.example.id.clone(),
            question: group.example.question.clone(),
            answer: group.example.answer.clone(),
            completion: completion.text.clone(),
            finish_reason: completion.finish_reason,
            reward: scored.score.as_ref().ok().map(|score| score.value()),
            advantage,
            error: scored.score.as_ref().err().map(|failure| failure.report.clone()),
            tokens: completion.tokens.iter().enumerate().map(token).collect(),
        }
    }
}
