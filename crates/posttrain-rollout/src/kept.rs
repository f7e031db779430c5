//! Texts whose keys and values are kept after their end, for prompts that go on from them: the
//! turns of a conversation.

use crate::RolloutError;
use crate::cache::PromptCache;
use crate::continued::continue_text;
use crate::policy::same_policy;
use crate::prefill::Prefix;
use crate::row::Group;
use crate::{PolicySnapshot, SamplingStats};
use posttrain_model::{Decoder, ModelError};
use std::collections::VecDeque;

/// A text that has been read, with its keys and values.
#[derive(Debug)]
struct KeptText {
    tokens: Vec<i64>,
    policy: Option<PolicySnapshot>,
    cache: PromptCache,
}

/// The latest texts, as many as their budget allows.
#[derive(Debug)]
pub(crate) struct KeptTexts {
    /// Tokens that may be kept in all.
    budget: usize,
    used: usize,
    /// The least recently used first.
    texts: VecDeque<KeptText>,
}

impl KeptTexts {
    /// Nothing yet, within a budget of tokens; 0 keeps nothing.
    pub fn new(budget: usize) -> Self {
        Self { budget, used: 0, texts: VecDeque::new() }
    }

    /// Whether a text of so many tokens could be kept.
    pub fn takes(&self, tokens: usize) -> bool {
        tokens > 0 && tokens <= self.budget
    }

    /// Keeps a text, and lets go of the oldest that it leaves no room for.
    pub fn keep(&mut self, tokens: Vec<i64>, policy: Option<PolicySnapshot>, cache: PromptCache) {
        self.used += tokens.len();
        self.texts.push_back(KeptText { tokens, policy, cache });
        while self.used > self.budget {
            let Some(oldest) = self.texts.pop_front() else { return };
            self.used -= oldest.tokens.len();
        }
    }

    /// Computes a prompt behind the longest kept text that it begins with, if there is any. A token
    /// of its own is left to every prompt, whose logits are its first.
    pub fn prefix(
        &mut self,
        model: &Decoder,
        group: &Group,
        stats: &mut SamplingStats,
    ) -> Result<Option<Prefix>, RolloutError> {
        let begins = |text: &KeptText| {
            group.prompt.len() > text.tokens.len()
                && group.prompt.starts_with(&text.tokens)
                && same_policy(group.policy.as_ref(), text.policy.as_ref())
        };
        let candidates = self.texts.iter().enumerate().filter(|(_, text)| begins(text));
        let Some((place, _)) = candidates.max_by_key(|(_, text)| text.tokens.len()) else {
            return Ok(None);
        };

        // Used now, so that it is the last to go.
        let Some(text) = self.texts.remove(place) else { return Ok(None) };
        let rest = &group.prompt[text.tokens.len()..];
        let prefix = continue_text(model, &text.cache, text.tokens.len(), rest, group.adapter());
        self.texts.push_back(text);

        let (cache, logits) = prefix.map_err(|error: ModelError| RolloutError::from(error))?;
        stats.prompt_tokens += rest.len();
        stats.kept_tokens += group.prompt.len() - rest.len();
        Ok(Some(Prefix { cache, logits, recorded: None }))
    }
}
