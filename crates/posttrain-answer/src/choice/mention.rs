//! Letters that stand as a choice.

use crate::text::joins_words;

/// The most options: A to Z.
pub(super) const MAX_OPTIONS: usize = 26;
/// Words before a letter that make it a choice, `A` included.
const LEADS: [&str; 10] =
    ["is", "option", "choice", "answer", "be", "choose", "pick", "select", "letter", "options"];
/// Words before a letter that make it a choice also in lower case.
const CUES: [&str; 7] = ["option", "choice", "letter", "choose", "pick", "select", "options"];
/// Signs before a letter that make it a choice, in scripts without blanks.
const LEADS_WITHOUT_BLANKS: [&str; 8] = ["选", "選", "选项", "選項", "是", "为", "為", "答案"];
/// Words that an option may be called by, before its letter.
pub(super) const NOUNS: [&str; 3] = ["option", "choice", "letter"];
/// Words after `The answer is A` that speak about the choice.
const REASONS: [&str; 7] = ["because", "since", "as", "which", "due", "given", "based"];
/// How far before a letter its lead is looked for, in bytes.
const NEAR: usize = 32;

/// A letter that stands as a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mention {
    pub(super) index: usize,
    /// Where the letter is.
    pub(super) at: usize,
    /// Where its mark ends: behind `(B)`, `B.`.
    pub(super) end: usize,
}

/// The letters of a text that stand as a choice, in its order.
pub(super) fn mentions(text: &str) -> Vec<Mention> {
    text.char_indices().filter_map(|(at, letter)| mention(text, at, letter)).collect()
}

/// The mention at a letter that stands alone; an `A` or `I` in a sentence is a word, and so is a
/// lower-case letter that nothing makes a choice.
fn mention(text: &str, at: usize, letter: char) -> Option<Mention> {
    let index = index(letter.to_ascii_uppercase())?;
    if !stands_alone(text, at) {
        return None;
    }

    let before = &text[..at];
    let after = &text[at + 1..];
    let mark = mark_length(after);
    let mention = Mention { index, at, end: at + 1 + mark };

    let bracketed = before.ends_with(['(', '[', '*']) && mark > 0;
    if letter.is_ascii_lowercase() {
        // `f(c)` is no choice. What stands before a bracket, which is of one byte.
        let argument = bracketed && before[..before.len() - 1].ends_with(joins_words);
        let cued = near_word(before).is_some_and(|word| is_one_of(word, &CUES));
        return ((bracketed && !argument) || (cued && !goes_on(letter, after))).then_some(mention);
    }

    let joined = after.starts_with(" or ") || after.starts_with(" and ");
    let led = is_led(before) && !goes_on(letter, after);
    let sure = bracketed || joined || mark > 0 || ends(after) || led;
    // `A cat`, `I think`: letters that are words need more than standing alone.
    let plain = !is_word(letter) && !after.starts_with(" .");

    (sure || plain).then_some(mention)
}

/// The letter that a phrase begins with, in either case: `c`, `option c`, `(C)`, `C because`.
pub(super) fn leading(phrase: &str) -> Option<Mention> {
    let mut at = phrase.find(char::is_alphanumeric)?;
    for noun in NOUNS {
        let rest = &phrase[at..];
        if rest.get(..noun.len()).is_some_and(|word| word.eq_ignore_ascii_case(noun)) {
            at += noun.len();
            at += phrase[at..].find(char::is_alphanumeric)?;
        }
    }

    let letter = phrase[at..].chars().next()?;
    let index = index(letter.to_ascii_uppercase())?;
    let after = &phrase[at + 1..];
    let reason = after.split_whitespace().next().is_some_and(|word| is_one_of(word, &REASONS));
    let word = goes_on(letter, after) && !(reason && letter.is_ascii_uppercase());

    (stands_alone(phrase, at) && !word).then(|| Mention {
        index,
        at,
        end: at + 1 + mark_length(after),
    })
}

/// Whether no other letter or sign makes the letter at `at` a part of a word or formula.
fn stands_alone(text: &str, at: usize) -> bool {
    let apart = |c: Option<char>| c.is_none_or(|c| !joins_words(c) && !"'’-^_=+".contains(c));

    apart(text[..at].chars().next_back()) && apart(text[at + 1..].chars().next())
}

/// The bytes of the sign that closes an option's letter.
fn mark_length(after: &str) -> usize {
    if after.starts_with([')', '.', ':', ']', '*']) { 1 } else { 0 }
}

/// Whether a text, or a part of it, ends behind a letter.
fn ends(after: &str) -> bool {
    let next = after.trim_start_matches(['.', ')', '*', ':', ' ']).chars().next();

    next.is_none_or(|c| "\n,;。、".contains(c))
}

/// Whether what stands before a letter makes it a choice.
fn is_led(before: &str) -> bool {
    let near =
        crate::response::ending(before, NEAR).trim_end_matches(|c: char| !c.is_alphanumeric());

    near_word(before).is_some_and(|word| is_one_of(word, &LEADS))
        || LEADS_WITHOUT_BLANKS.iter().any(|lead| near.ends_with(lead))
}

/// The word before a letter, if it is a short one.
fn near_word(before: &str) -> Option<&str> {
    let near =
        crate::response::ending(before, NEAR).trim_end_matches(|c: char| !c.is_alphanumeric());

    near.rsplit(|c: char| !c.is_alphanumeric()).next()
}

/// Whether a letter that is also a word is followed by the rest of its sentence.
fn goes_on(letter: char, after: &str) -> bool {
    is_word(letter)
        && after.strip_prefix(' ').is_some_and(|rest| rest.starts_with(|c: char| c.is_lowercase()))
}

/// `A` and `I` are words of English, too.
fn is_word(letter: char) -> bool {
    matches!(letter.to_ascii_uppercase(), 'A' | 'I')
}

fn is_one_of(word: &str, words: &[&str]) -> bool {
    words.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// The letter that a line begins with as an option's mark, `A)`, `(A)`, `A.` or `A:`, and what
/// follows.
pub(super) fn marked(line: &str) -> Option<(usize, &str)> {
    let open = line.strip_prefix('(');
    let rest = open.unwrap_or(line);
    let index = rest.chars().next().and_then(index)?;
    let rest = &rest[1..];
    let rest = match open {
        Some(_) => rest.strip_prefix(')')?,
        None => rest.strip_prefix([')', '.', ':'])?,
    };

    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then_some((index, rest))
}

pub(super) fn index(letter: char) -> Option<usize> {
    letter.is_ascii_uppercase().then(|| letter as usize - 'A' as usize)
}

pub(super) fn letter(index: usize) -> char {
    char::from(b'A' + u8::try_from(index.min(MAX_OPTIONS - 1)).unwrap_or(0))
}
