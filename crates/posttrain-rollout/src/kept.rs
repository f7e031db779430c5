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
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A text that has been read, with its keys and values.
#[derive(Debug)]
struct KeptText {
    tokens: Vec<i64>,
    reader: Reader,
    cache: TextCache,
}

/// The policy that read a text. It is not kept alive for the text's sake.
#[derive(Debug, Clone)]
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

    /// Whether two are one policy.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Base, Self::Base) => true,
            (Self::Adapter(one), Self::Adapter(other)) => one.ptr_eq(other),
            _ => false,
        }
    }

    /// Whether nobody can sample by it any more.
    fn is_gone(&self) -> bool {
        matches!(self, Self::Adapter(kept) if kept.strong_count() == 0)
    }
}

/// The latest texts, as many as their budget allows. Clones share them: what one engine of a service
/// has read, the others need not read.
#[derive(Debug, Clone)]
pub(crate) struct KeptTexts {
    /// Tokens that may be kept in all.
    budget: usize,
    texts: Arc<Mutex<Texts>>,
}

impl KeptTexts {
    /// Nothing yet, within a budget of tokens; 0 keeps nothing.
    pub fn new(budget: usize) -> Self {
        let (texts, gone) = (VecDeque::new(), Vec::new());
        let texts = Texts { budget, texts, held: Held::default(), gone };
        Self { budget, texts: Arc::new(Mutex::new(texts)) }
    }

    /// Whether a text of so many tokens could be kept.
    pub fn takes(&self, tokens: usize) -> bool {
        tokens >= SHARED_TOKENS && tokens <= self.budget
    }

    /// Keeps a text that a group's policy has read, in the place of what it begins with, and lets go
    /// of the oldest that it leaves no room for.
    pub fn keep(&self, group: &Group, tokens: Vec<i64>, cache: TextCache) {
        // Its parts may be the beginnings of longer ones.
        let cache = match cache {
            TextCache::Native(text) if stored(&text) > self.budget => {
                TextCache::Native(text.to_size())
            }
            cache => cache,
        };
        let text = KeptText { tokens, reader: Reader::of(group), cache };
        self.change(|texts| texts.keep(text));
    }

    /// A group's prompt behind the longest beginning that is kept, if there is one worth it. A
    /// token of its own is left to every prompt, whose logits are its first.
    pub fn prompt(&self, model: &Decoder, group: &Arc<Group>) -> Result<Prompt, RolloutError> {
        let reader = Reader::of(group);
        let longest = match self.budget {
            0 => None,
            _ => self.change(|texts| texts.longest(&reader, &group.prompt)),
        };
        let Some(Longest { cache, shared, whole }) = longest else {
            return Ok(Prompt::behind(group.clone(), TextCache::empty(model)));
        };

        let read = cache.beginning(shared)?;
        if !whole {
            // Where it had to be cut off by copying, that is done once for all prompts to come.
            let tokens = group.prompt[..shared].to_vec();
            let text = KeptText { tokens, reader, cache: read.clone() };
            self.change(|texts| texts.keep_beginning(text));
        }
        Ok(Prompt::behind(group.clone(), read))
    }

    /// Keeps nothing of what is there.
    pub fn clear(&self) {
        self.change(|texts| texts.forget(|_| true));
    }

    /// Works on the texts. What is let go is freed behind the lock: it can be much.
    fn change<R>(&self, work: impl FnOnce(&mut Texts) -> R) -> R {
        // A text is there whole or not at all, whoever panicked.
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut texts);
        let gone = std::mem::take(&mut texts.gone);
        drop(texts);
        drop(gone);
        result
    }
}

/// The text that shares most with a prompt.
struct Longest {
    cache: TextCache,
    /// Tokens.
    shared: usize,
    /// Whether that is all of it.
    whole: bool,
}

#[derive(Debug)]
struct Texts {
    budget: usize,
    /// The least recently used first.
    texts: VecDeque<KeptText>,
    held: Held,
    /// What is no longer kept, and not freed yet.
    gone: Vec<KeptText>,
}

impl Texts {
    fn keep(&mut self, new: KeptText) {
        let longer =
            |text: &KeptText| text.reader.is(&new.reader) && text.tokens.starts_with(&new.tokens);
        if let Some(place) = self.texts.iter().position(longer) {
            self.touch(place);
            return;
        }

        self.forget(|text| text.reader.is(&new.reader) && new.tokens.starts_with(&text.tokens));
        self.push(new);
    }

    /// Keeps what others begin with, beside them.
    fn keep_beginning(&mut self, new: KeptText) {
        let same = |text: &KeptText| text.reader.is(&new.reader) && text.tokens == new.tokens;
        if !self.texts.iter().any(same) {
            self.push(new);
        }
    }

    /// Of what a reader has read, the text that shares most with a prompt, one that is all shared
    /// before others.
    fn longest(&mut self, reader: &Reader, prompt: &[i64]) -> Option<Longest> {
        self.forget(|text| text.reader.is_gone());

        let mut longest = (SHARED_TOKENS, false, None);
        for (place, text) in self.texts.iter().enumerate() {
            if text.reader.is(reader) {
                let shared = shared_tokens(&text.tokens, prompt).min(prompt.len() - 1);
                longest = longest.max((shared, shared == text.tokens.len(), Some(place)));
            }
        }

        let (shared, whole, place) = longest;
        let cache = self.texts[place?].cache.clone();
        self.touch(place?);
        Some(Longest { cache, shared, whole })
    }

    fn push(&mut self, text: KeptText) {
        self.held.add(&text);
        self.texts.push_back(text);
        while self.held.tokens > self.budget && self.texts.len() > 1 {
            if let Some(oldest) = self.texts.pop_front() {
                self.held.remove(&oldest);
                self.gone.push(oldest);
            }
        }
    }

    /// Lets go of some texts.
    fn forget(&mut self, which: impl Fn(&KeptText) -> bool) {
        if !self.texts.iter().any(&which) {
            return;
        }
        let (gone, left): (VecDeque<_>, _) =
            std::mem::take(&mut self.texts).into_iter().partition(which);
        gone.iter().for_each(|text| self.held.remove(text));
        self.texts = left;
        self.gone.extend(gone);
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
