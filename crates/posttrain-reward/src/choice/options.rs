//! The options of a question, and which of them a text chooses.

use serde_json::Value;

use crate::Normaliser;
use crate::choice::mention::{MAX_OPTIONS, Mention, index, letter, marked, mentions};
use crate::clause::is_denied;
use crate::final_phrase::ends_on;

pub(super) fn from_metadata(value: &Value) -> Option<Vec<String>> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let texts: Vec<String> = match value {
        Value::Array(texts) => texts.iter().map(text).collect::<Option<_>>()?,
        Value::Object(texts) => {
            let by_letter = |index| texts.get(&letter(index).to_string()).and_then(text);
            (0..texts.len().min(MAX_OPTIONS + 1)).map(by_letter).collect::<Option<_>>()?
        }
        _ => return None,
    };
    (1..=MAX_OPTIONS).contains(&texts.len()).then_some(texts)
}

/// The lines that begin with A, B, … in this order; the last such run counts.
pub(super) fn from_question(question: &str) -> Vec<String> {
    let mut options: Vec<String> = Vec::new();
    for line in question.lines() {
        let Some((index, rest)) = marked(line.trim_start()) else { continue };
        if index == 0 {
            options.clear();
        }
        if index == options.len() {
            options.push(rest.trim().to_owned());
        }
    }
    options
}

pub(super) struct Options<'n> {
    pub(super) texts: Vec<String>,
    pub(super) normaliser: &'n Normaliser,
}

impl Options<'_> {
    fn count(&self) -> usize {
        if self.texts.is_empty() { MAX_OPTIONS } else { self.texts.len() }
    }

    /// The option that the whole of a text is: `B`, `(B)`, `b`, `B) Paris`, `Paris`.
    pub(super) fn whole(&self, text: &str) -> Option<usize> {
        let plain = plain(text);
        let trimmed = plain.trim_matches(|c: char| c.is_whitespace() || "*_`.:()[]\"'".contains(c));
        let mut letters = trimmed.chars();
        if let (Some(only), None) = (letters.next(), letters.next()) {
            return index(only.to_ascii_uppercase()).filter(|index| *index < self.count());
        }
        if let Some((index, rest)) = marked(plain.trim().trim_start_matches('*')) {
            let alone = !rest.trim_end().contains('\n') && mentions(rest).is_empty() && !is_denied("", rest);
            return Some(index).filter(|&index| alone && index < self.count() && self.agrees(index, rest));
        }
        self.only(|option| self.normaliser.matches(trimmed, option))
    }

    /// The option that a phrase begins with.
    pub(super) fn first(&self, phrase: &str) -> Option<usize> {
        let phrase = plain(phrase);
        let mentions = mentions(&phrase);
        let lead = mentions.first().filter(|mention| {
            let before = phrase[..mention.at].trim_start_matches(|c: char| !c.is_alphanumeric());
            let words = before.split_whitespace().map(str::to_ascii_lowercase);
            words.into_iter().all(|word| matches!(word.as_str(), "option" | "choice" | "letter"))
        });
        match lead {
            Some(mention) => self.chosen(&phrase, *mention, &mentions),
            None => self.only(|option| ends_on(&phrase, option, self.normaliser)),
        }
    }

    /// The option that a text ends on.
    pub(super) fn last(&self, text: &str) -> Option<usize> {
        if let Some(index) = self.whole(text) {
            return Some(index);
        }
        let text = plain(text);
        let mentions = mentions(&text);
        match mentions.last() {
            Some(mention) => self.chosen(&text, *mention, &mentions),
            None => self.only(|option| ends_on(&text, option, self.normaliser)),
        }
    }

    /// The mention's option, if it is the only one there and is not denied.
    fn chosen(&self, text: &str, mention: Mention, all: &[Mention]) -> Option<usize> {
        let (before, after) = (&text[..mention.at], &text[mention.end..]);
        let joins = |gap: &str| {
            let gap = gap.trim_matches(|c: char| !c.is_alphanumeric()).to_ascii_lowercase();
            gap.is_empty() || matches!(gap.as_str(), "or" | "and" | "nor" | "and/or" | "or maybe" | "or option")
        };
        let joined = all.iter().any(|other| {
            other.index != mention.index
                && if other.at < mention.at {
                    joins(&text[other.end..mention.at])
                } else {
                    joins(&text[mention.end..other.at])
                }
        });
        let line = after.lines().next().unwrap_or("");
        let denied = is_denied(before, line);
        let chosen = !joined && !denied && mention.index < self.count() && self.agrees(mention.index, line);
        (chosen && !self.recited(text, mention, all)).then_some(mention.index)
    }

    /// Whether a mention is the end of a list of options with their texts: the question said again, not answered.
    fn recited(&self, text: &str, mention: Mention, all: &[Mention]) -> bool {
        let Some(previous) = all.iter().rev().find(|other| other.at < mention.at) else { return false };
        let said = |index: usize, part: &str| {
            let part = part.trim_matches(|c: char| c.is_whitespace() || "()[]*,;".contains(c));
            self.texts.get(index).is_some_and(|option| self.normaliser.matches(part, option))
        };
        previous.index + 1 == mention.index
            && said(previous.index, &text[previous.end..mention.at])
            && said(mention.index, text[mention.end..].lines().next().unwrap_or(""))
    }

    /// Whether what stands behind a letter is not another option's text.
    fn agrees(&self, index: usize, rest: &str) -> bool {
        let others = self.texts.iter().enumerate().filter(|(other, _)| *other != index);
        let rest = rest.trim();
        rest.is_empty() || !others.into_iter().any(|(_, text)| self.normaliser.matches(rest, text))
    }

    /// The option that alone satisfies `is`.
    fn only(&self, is: impl Fn(&str) -> bool) -> Option<usize> {
        let mut found = self.texts.iter().enumerate().filter(|(_, text)| is(text)).map(|(index, _)| index);
        let first = found.next();
        first.filter(|_| found.next().is_none())
    }
}

/// A text without LaTeX's commands around letters and words: `\text{(B)}`, `\mathbf{B}`.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '{', '}', '$']) {
        plain.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if text.as_bytes()[text.len() - rest.len() - 1] == b'\\' {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        }
    }
    plain + rest
}
