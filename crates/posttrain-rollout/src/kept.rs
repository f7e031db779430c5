//! Texts whose keys and values are kept for prompts that begin like them: the next turn of a
//! conversation, another question behind the same system message.

use crate::RolloutError;
use crate::prefill::Prompt;
use crate::row::Group;
use crate::shared_prefix::{SHARED_TOKENS, shared_tokens};
use posttrain_kernel::{KeyValues, SharedText};
use posttrain_lora::AdapterView;
use posttrain_model::{Decoder, TextCache};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

/// A text that has been read, with its keys and values.
#[derive(Debug)]
struct KeptText {
    tokens: Vec<i64>,
    reader: Reader,
    cache: TextCache,
}

/// The policy that read a text. It is not kept alive for the text's sake.
#[derive(Debug)]
enum Reader {
    Base,
    Adapter(Weak<AdapterView>),
}

impl Reader {
    fn of(group: &Group) -> Self {
        match &group.policy {
            Some(policy) => Self::Adapter(Arc::downgrade(&policy.adapter)),
            None => Self::Base,
        }
    }

    /// Whether a group is sampled by it.
    fn reads(&self, group: &Group) -> bool {
        match (self, &group.policy) {
            (Self::Base, None) => true,
            (Self::Adapter(kept), Some(policy)) => {
                std::ptr::eq(kept.as_ptr(), Arc::as_ptr(&policy.adapter))
            }
            _ => false,
        }
    }

    /// Whether nobody can sample by it any more.
    fn is_gone(&self) -> bool {
        matches!(self, Self::Adapter(kept) if kept.strong_count() == 0)
    }
}

/// The latest texts, as many as their budget allows.
#[derive(Debug)]
pub(crate) struct KeptTexts {
    /// Tokens that may be kept in all.
    budget: usize,
    /// The least recently used first.
    texts: VecDeque<KeptText>,
    held: Held,
}

impl KeptTexts {
    /// Nothing yet, within a budget of tokens; 0 keeps nothing.
    pub fn new(budget: usize) -> Self {
        Self { budget, texts: VecDeque::new(), held: Held::default() }
    }

    /// Whether a text of so many tokens could be kept.
    pub fn takes(&self, tokens: usize) -> bool {
        tokens >= SHARED_TOKENS && tokens <= self.budget
    }

    /// Keeps a text that a group's policy has read, in the place of what it begins with, and lets go
    /// of the oldest that it leaves no room for.
    pub fn keep(&mut self, group: &Group, tokens: Vec<i64>, cache: TextCache) {
        let longer = |text: &KeptText| text.reader.reads(group) && text.tokens.starts_with(&tokens);
        if let Some(place) = self.texts.iter().position(longer) {
            self.touch(place);
            return;
        }

        self.forget(|text| text.reader.reads(group) && tokens.starts_with(&text.tokens));
        // Its parts may be the beginnings of longer ones.
        let cache = match cache {
            TextCache::Native(text) if stored(&text) > self.budget => {
                TextCache::Native(text.to_size())
            }
            cache => cache,
        };
        self.push(KeptText { tokens, reader: Reader::of(group), cache });
    }

    /// A group's prompt behind the longest beginning that is kept, if there is one worth it. A
    /// token of its own is left to every prompt, whose logits are its first.
    pub fn prompt(&mut self, model: &Decoder, group: &Arc<Group>) -> Result<Prompt, RolloutError> {
        self.forget(|text| text.reader.is_gone());

        let mut longest = (0, 0);
        for (place, text) in self.texts.iter().enumerate() {
            if text.reader.reads(group) {
                let shared = shared_tokens(&text.tokens, &group.prompt);
                longest = longest.max((shared.min(group.prompt.len() - 1), place));
            }
        }

        let (shared, place) = longest;
        if shared < SHARED_TOKENS {
            return Ok(Prompt { group: group.clone(), read: TextCache::empty(model) });
        }
        let read = self.texts[place].cache.beginning(shared)?;
        let whole = shared == self.texts[place].tokens.len();
        self.touch(place);
        if !whole {
            // Where it had to be cut off by copying, that is done once for all prompts to come.
            let tokens = group.prompt[..shared].to_vec();
            self.push(KeptText { tokens, reader: Reader::of(group), cache: read.clone() });
        }
        Ok(Prompt { group: group.clone(), read })
    }

    fn push(&mut self, text: KeptText) {
        self.held.add(&text);
        self.texts.push_back(text);
        while self.held.tokens > self.budget && self.texts.len() > 1 {
            if let Some(oldest) = self.texts.pop_front() {
                self.held.remove(&oldest);
            }
        }
    }

    /// Lets go of some texts.
    fn forget(&mut self, which: impl Fn(&KeptText) -> bool) {
        let held = &mut self.held;
        self.texts.retain(|text| {
            let goes = which(text);
            if goes {
                held.remove(text);
            }
            !goes
        });
    }

    /// Makes a text the last to go.
    fn touch(&mut self, place: usize) {
        if let Some(text) = self.texts.remove(place) {
            self.texts.push_back(text);
        }
    }
}

/// How many tokens' keys and values texts hold: what several share counts once.
#[derive(Debug, Default)]
struct Held {
    tokens: usize,
    /// How many texts have a part, by its address.
    owners: HashMap<usize, usize>,
}

impl Held {
    fn add(&mut self, text: &KeptText) {
        let TextCache::Native(parts) = &text.cache else {
            self.tokens += text.tokens.len();
            return;
        };
        for part in parts.parts() {
            let owners = self.owners.entry(address(part)).or_default();
            *owners += 1;
            if *owners == 1 {
                self.tokens += part.tokens();
            }
        }
    }

    fn remove(&mut self, text: &KeptText) {
        let TextCache::Native(parts) = &text.cache else {
            self.tokens -= text.tokens.len();
            return;
        };
        for part in parts.parts() {
            let place = address(part);
            if let Some(owners) = self.owners.get_mut(&place) {
                *owners -= 1;
                if *owners == 0 {
                    self.owners.remove(&place);
                    self.tokens -= part.tokens();
                }
            }
        }
    }
}

/// Tokens whose keys and values a text's parts hold, its own or not.
fn stored(text: &SharedText) -> usize {
    text.parts().map(KeyValues::tokens).sum()
}

fn address(part: &KeyValues) -> usize {
    std::ptr::from_ref(part).addr()
}
