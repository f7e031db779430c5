//! The options of a question, and which of them a text chooses.

use crate::choice::mention::{MAX_OPTIONS, Mention, index, leading, letter, marked, mentions};
use crate::text::Normalizer;
use crate::text::clause::is_denied;
use crate::text::ending::ends_on;

/// What stands between a choice and one that it is set against: `B, not C`.
const CONTRASTS: [&str; 8] =
    ["not", "and not", "rather than", "instead of", "而不是", "不是", "而非", "不选"];
/// The most letters of a phrase that denies some and gives one.
const MAX_CORRECTED: usize = 8;
/// What stands between two letters that are given together.
const JOINS: [&str; 11] =
    ["", "or", "and", "nor", "and/or", "or maybe", "or option", "或", "或者", "和", "及"];

/// The texts of a question's options, in the order of their letters.
///
/// ```
/// use posttrain_answer::choice::Options;
///
/// let options = Options::in_question("Capital of France?\nA) London\nB) Paris");
/// assert_eq!(options.texts(), ["London", "Paris"]);
/// assert!(Options::new((0..27).map(|number| number.to_string())).is_none());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    texts: Vec<String>,
}

impl Options {
    /// Options A, B, … with these texts; `None` where there are none, or more than 26.
    ///
    /// ```
    /// use posttrain_answer::choice::Options;
    ///
    /// assert_eq!(Options::new(["4", "5"]).unwrap().texts().len(), 2);
    /// ```
    pub fn new(texts: impl IntoIterator<Item = impl Into<String>>) -> Option<Self> {
        let texts: Vec<String> = texts.into_iter().take(MAX_OPTIONS + 1).map(Into::into).collect();

        (1..=MAX_OPTIONS).contains(&texts.len()).then_some(Self { texts })
    }

    /// The lines of a question that begin with `A)`, `(A)`, `A.` or `A:`, then `B)`, …; the last
    /// such run counts. [`unknown`](Self::unknown) where there are none. Linear.
    ///
    /// ```
    /// use posttrain_answer::choice::Options;
    ///
    /// assert_eq!(Options::in_question("2 + 2?\n(A) 4\n(B) 5").texts(), ["4", "5"]);
    /// ```
    #[must_use]
    pub fn in_question(question: &str) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for line in question.lines() {
            let Some((index, rest)) = marked(line.trim_start()) else { continue };
            if index == 0 {
                texts.clear();
            }
            if index == texts.len() {
                texts.push(rest.trim().to_owned());
            }
        }

        Self { texts }
    }

    /// Options whose texts are not known: letters are compared alone.
    ///
    /// ```
    /// assert!(posttrain_answer::choice::Options::unknown().texts().is_empty());
    /// ```
    #[must_use]
    pub fn unknown() -> Self {
        Self::default()
    }

    /// The texts, in the order of their letters; empty where they are not known.
    ///
    /// ```
    /// assert!(posttrain_answer::choice::Options::in_question("2 + 2?").texts().is_empty());
    /// ```
    #[must_use]
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// The letter of the option that a text names, by its letter or its text.
    ///
    /// ```
    /// use posttrain_answer::{choice::Options, text::Normalizer};
    ///
    /// let options = Options::new(["London", "Paris"]).unwrap();
    /// assert_eq!(options.letter_of("paris", &Normalizer::default()), Some('B'));
    /// assert_eq!(options.letter_of("C", &Normalizer::default()), None);
    /// ```
    pub fn letter_of(&self, text: &str, normalizer: &Normalizer) -> Option<char> {
        self.whole(text, normalizer).map(letter)
    }

    fn count(&self) -> usize {
        if self.texts.is_empty() { MAX_OPTIONS } else { self.texts.len() }
    }

    /// The option that the whole of a text is: `B`, `(B)`, `b`, `B) Paris`, `Paris`.
    pub(super) fn whole(&self, text: &str, normalizer: &Normalizer) -> Option<usize> {
        let plain = plain(text);
        let trimmed =
            plain.trim_matches(|c: char| c.is_whitespace() || "*_`.:()[]\"'。".contains(c));

        let mut letters = trimmed.chars();
        if let (Some(only), None) = (letters.next(), letters.next()) {
            return index(only.to_ascii_uppercase()).filter(|index| *index < self.count());
        }

        if let Some((index, rest)) = marked(plain.trim().trim_start_matches('*')) {
            let alone = !rest.trim_end().contains('\n')
                && mentions(rest).is_empty()
                && !is_denied("", rest);
            let chosen = alone && index < self.count() && self.agrees(index, rest, normalizer);
            return chosen.then_some(index);
        }

        self.only(|option| normalizer.matches(trimmed, option))
    }

    /// The option that a phrase begins with, or gives in the place of one that it denies.
    pub(super) fn first(&self, phrase: &str, normalizer: &Normalizer) -> Option<usize> {
        let phrase = plain(phrase);
        let mut mentions = mentions(&phrase);

        if let Some(lead) = leading(&phrase) {
            // A lower-case letter is a mention here, where it stands behind the cue, and so is one
            // that is joined to it.
            if !mentions.contains(&lead) {
                mentions.insert(0, lead);
                mentions.extend(joined_lower_case(&phrase, lead));
            }
            return self.chosen(&phrase, lead, &mentions, normalizer);
        }

        match mentions.as_slice() {
            [] => self.only(|option| ends_on(&phrase, option, normalizer)),
            [first, ..] if mentions.len() <= MAX_CORRECTED && is_denied_at(&phrase, *first) => {
                let mut given = mentions.iter().filter(|mention| !is_denied_at(&phrase, **mention));
                let correction = *given.next()?;
                if given.next().is_some() {
                    return None;
                }
                self.chosen(&phrase, correction, &mentions, normalizer)
            }
            _ => self.only(|option| ends_on(&phrase, option, normalizer)),
        }
    }

    /// The option that a text ends on.
    pub(super) fn last(&self, text: &str, normalizer: &Normalizer) -> Option<usize> {
        if let Some(index) = self.whole(text, normalizer) {
            return Some(index);
        }

        let text = plain(text);
        let mentions = mentions(&text);
        match mentions.as_slice() {
            [] => self.only(|option| ends_on(&text, option, normalizer)),
            // `B, not C`: the last one is only what the choice is set against.
            [before @ .., given, last] if is_contrast(&text[given.end..last.at]) => {
                let earlier = [before, &[*given]].concat();
                self.chosen(&text[..last.at], *given, &earlier, normalizer)
            }
            [.., last] => self.chosen(&text, *last, &mentions, normalizer),
        }
    }

    /// The mention's option, if it is the only one there and is not denied.
    fn chosen(
        &self,
        text: &str,
        mention: Mention,
        all: &[Mention],
        normalizer: &Normalizer,
    ) -> Option<usize> {
        let line = text[mention.end..].lines().next().unwrap_or("");

        let alone = !all.iter().any(|other| are_joined(text, mention, *other));
        let meant = alone && !is_denied_at(text, mention) && mention.index < self.count();
        let consistent = meant && self.agrees(mention.index, line, normalizer);

        (consistent && !self.is_recited(text, mention, all, normalizer)).then_some(mention.index)
    }

    /// Whether a mention is the end of a list of options with their texts: the question said again,
    /// not answered.
    fn is_recited(
        &self,
        text: &str,
        mention: Mention,
        all: &[Mention],
        normalizer: &Normalizer,
    ) -> bool {
        let Some(previous) = all.iter().rev().find(|other| other.at < mention.at) else {
            return false;
        };

        let says = |index: usize, part: &str| {
            let part = part.trim_matches(|c: char| c.is_whitespace() || "()[]*,;".contains(c));
            self.texts.get(index).is_some_and(|option| normalizer.matches(part, option))
        };

        previous.index + 1 == mention.index
            && says(previous.index, &text[previous.end..mention.at])
            && says(mention.index, text[mention.end..].lines().next().unwrap_or(""))
    }

    /// Whether what stands behind a letter is not another option's text.
    fn agrees(&self, index: usize, rest: &str, normalizer: &Normalizer) -> bool {
        let rest = rest.trim();
        let mut others = self.texts.iter().enumerate().filter(|(other, _)| *other != index);

        rest.is_empty() || !others.any(|(_, text)| normalizer.matches(rest, text))
    }

    /// The option that alone satisfies `is`.
    fn only(&self, is: impl Fn(&str) -> bool) -> Option<usize> {
        let mut found =
            self.texts.iter().enumerate().filter(|(_, text)| is(text)).map(|(index, _)| index);
        let first = found.next();

        first.filter(|_| found.next().is_none())
    }
}

/// Whether the clause around a mention denies it.
fn is_denied_at(text: &str, mention: Mention) -> bool {
    let line = text[mention.end..].lines().next().unwrap_or("");

    is_denied(&text[..mention.at], line)
}

/// The lower-case letter that is given together with one before it: `b` in `c or b`.
fn joined_lower_case(text: &str, lead: Mention) -> Option<Mention> {
    let rest = &text[lead.end..];
    let word = rest.split(|c: char| !c.is_alphanumeric()).find(|word| !word.is_empty())?;
    if !JOINS.contains(&word.to_ascii_lowercase().as_str()) {
        return None;
    }

    let after = lead.end + (word.as_ptr() as usize - rest.as_ptr() as usize) + word.len();
    leading(&text[after..]).map(|other| Mention {
        at: after + other.at,
        end: after + other.end,
        ..other
    })
}

/// Whether two mentions are given together: `A or B`.
fn are_joined(text: &str, mention: Mention, other: Mention) -> bool {
    if other.index == mention.index {
        return false;
    }

    let gap = if other.at < mention.at {
        &text[other.end..mention.at]
    } else {
        &text[mention.end..other.at]
    };
    let gap = gap.trim_matches(|c: char| !c.is_alphanumeric());
    gap.len() <= 16 && JOINS.contains(&gap.to_ascii_lowercase().as_str())
}

/// Whether what stands between two letters sets the first against the second.
fn is_contrast(gap: &str) -> bool {
    let gap = gap.trim_matches(|c: char| !c.is_alphanumeric());

    gap.len() <= 16 && CONTRASTS.contains(&gap.to_ascii_lowercase().as_str())
}

/// A text without LaTeX's commands around letters and words (`\text{(B)}`, `\mathbf{B}`),
/// full-width signs as ASCII.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;

    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => rest = rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()),
            '{' | '}' | '$' => {}
            '！'..='～' => plain.extend(char::from_u32(c as u32 - 0xFEE0)),
            _ => plain.push(c),
        }
    }
    plain
}
