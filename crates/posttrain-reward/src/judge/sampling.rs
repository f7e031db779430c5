//! How judges draw their answers, and where verdicts come from.

use posttrain_chat::{ChatRequest, Message, ResponseFormat};
use serde::{Deserialize, Serialize};

use crate::RewardError;

/// How a judge's answers are drawn.
///
/// ```
/// assert_eq!(posttrain_reward::judge::JudgeSampling::default().temperature, 0.0);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JudgeSampling {
    /// From 0 to 2; more than 0 where there are several votes, which would all be the same. The
    /// default, 0, is that of [MT-Bench's
    /// judge](https://github.com/lm-sys/FastChat/blob/main/fastchat/llm_judge/common.py).
    pub temperature: f64,
    /// The smallest set of tokens with this probability together; the server's choice if none,
    /// which is the default.
    pub top_p: Option<f64>,
    /// Tokens of an answer at most, thinking included, at least 1. The default, 2048, is that of
    /// MT-Bench's judge.
    pub max_tokens: u32,
    /// The first vote's seed; the others count on from it. 0 by default.
    pub seed: u64,
}

impl Default for JudgeSampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_p: None, max_tokens: 2048, seed: 0 }
    }
}

impl JudgeSampling {
    pub(crate) fn request(
        &self,
        messages: Vec<Message>,
        format: ResponseFormat,
        vote: usize,
    ) -> ChatRequest {
        ChatRequest {
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            seed: Some(self.seed.wrapping_add(vote as u64)),
            format,
            ..ChatRequest::new(messages)
        }
    }

    pub(crate) fn validate(&self, votes: usize) -> Result<(), RewardError> {
        if !(1..=1000).contains(&votes) {
            let (field, expected) = ("votes", "from 1 to 1000");
            return Err(RewardError::InvalidConfig { field, got: votes.to_string(), expected });
        }
        if votes > 1 && self.temperature <= 0.0 {
            let (field, expected) =
                ("sampling.temperature", "more than 0 where there are several votes");
            return Err(RewardError::InvalidConfig {
                field,
                got: self.temperature.to_string(),
                expected,
            });
        }
        let probe = self.request(vec![Message::user("?")], ResponseFormat::Text, 0);
        probe.validate().map_err(|error| RewardError::InvalidConfig {
            field: "sampling",
            got: error.to_string(),
            expected: "what a chat request may have",
        })
    }
}

/// What a verdict depends on beside the sample: a judge's score without it cannot be reproduced or
/// compared.
///
/// ```
/// use posttrain_chat::{ChatRequest, ChatResponse, from_fn};
/// use posttrain_reward::judge::JudgeConfig;
///
/// let model = from_fn("stub", async |_: ChatRequest| Ok(ChatResponse::from_text("")));
/// let judge = JudgeConfig::default().build(std::sync::Arc::new(model))?;
/// assert_eq!((judge.provenance().model.as_str(), judge.provenance().votes), ("stub", 1));
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JudgeProvenance {
    /// The model's name.
    pub model: String,
    /// Its server and settings ([`ChatModel::identity`](posttrain_chat::ChatModel::identity)).
    pub identity: String,
    /// The beginning of the SHA-256 of the prompt, instructions and criteria included.
    pub prompt: String,
    /// How answers are drawn.
    pub sampling: JudgeSampling,
    /// Votes a verdict.
    pub votes: usize,
}

impl JudgeProvenance {
    /// In few words, for a score's note.
    pub(crate) fn brief(&self) -> String {
        let JudgeSampling { temperature, top_p, max_tokens, seed } = &self.sampling;
        let top_p = top_p.map(|top_p| format!(", top-p {top_p}")).unwrap_or_default();
        let Self { model, prompt, .. } = self;
        format!(
            "{model}, prompt {prompt}, T {temperature}{top_p}, {max_tokens} tokens, seed {seed}"
        )
    }
}
