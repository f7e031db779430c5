//! Where in a response the answer is, and what it denotes.

use std::borrow::Cow;

use crate::extraction::boxed::last_boxes;
use crate::extraction::{Extraction, extract};
use crate::math::command::plain_word;
use crate::math::expression::Expr;
use crate::math::parser::parse;
use crate::math::token::Unread;
use crate::math::unit::is_unit;
use crate::math::value::{Amount, Value};
use crate::number::Separators;
use crate::number::last::{last_number, with_marked_signs};
use crate::number::quantity::Quantity;
use crate::text::clause::is_denied;

/// An answer that was found, and what it denotes.
pub(crate) struct Answer<'t> {
    pub text: Cow<'t, str>,
    pub by: Extraction,
    pub value: Result<Value, Unread>,
}

/// The answer that the first way in `order` finds. `None` where none finds anything, or a box that
/// never closes takes it back.
pub(crate) fn find<'t>(
    text: &'t str,
    order: &[Extraction],
    separators: Separators,
) -> Option<Answer<'t>> {
    for &by in order {
        if by.takes_back(text) {
            return None;
        }

        let found = match by {
            Extraction::Boxed => joined_boxes(text),
            _ => extract(text, &[by]).map(|(found, _)| found),
        };
        if let Some(text) = found {
            let value = if by.delimits() {
                delimited(&text, separators)
            } else {
                in_prose(&text, separators)
            };
            return Some(Answer { text, by, value });
        }
    }

    None
}

/// The boxes of one answer, joined by commas.
fn joined_boxes(text: &str) -> Option<Cow<'_, str>> {
    match last_boxes(text).as_slice() {
        [] => None,
        [only] => Some(Cow::Borrowed(*only)),
        several => Some(Cow::Owned(several.join(", "))),
    }
}

/// What a reference denotes: all of it, or what it marks as the answer where it is a solution.
pub(crate) fn reference(text: &str, separators: Separators) -> Result<Value, Unread> {
    if !last_boxes(text).is_empty() || Extraction::Boxed.takes_back(text) {
        return find(text, &[Extraction::Boxed], separators)
            .map_or(Err(Unread::Syntax), |answer| answer.value);
    }

    let marked = find(text, &[Extraction::Hashes, Extraction::Phrase], separators)
        .map(|answer| answer.value);
    if let Some(Ok(value)) = marked {
        return Ok(value);
    }

    if is_prose(text) {
        in_prose(text, separators).or_else(|error| words(text).ok_or(error))
    } else {
        parse(text, separators)
    }
}

/// The whole of a marked text; what it says in formulas, where it has words around them.
fn delimited(text: &str, separators: Separators) -> Result<Value, Unread> {
    parse(text, separators).or_else(|error| match last_formulas(text) {
        Some(formulas) => parse(&formulas.text, separators),
        None => Err(error),
    })
}

/// The answer that a text ends on: its last formula or number, or the mathematics after its last
/// word.
fn in_prose(text: &str, separators: Separators) -> Result<Value, Unread> {
    if let Some(formulas) = last_formulas(text) {
        let after = &text[formulas.end..];
        if !after.contains(|c: char| c.is_ascii_digit()) {
            if is_denied(&text[..formulas.start], after) {
                return Err(Unread::Syntax);
            }
            return parse(&formulas.text, separators).map(|value| marked(value, after));
        }
        return after_words(after, separators);
    }
    after_words(text, separators)
}

/// Plain text: what stands after the last word, or the last number.
fn after_words(text: &str, separators: Separators) -> Result<Value, Unread> {
    let text = &*with_marked_signs(text);
    let start = last_word_end(text);
    let (before, tail) = text.split_at(start);
    // `5m` and `12 m²` are quantities here, where in a formula they are products.
    if let Some(number) = Quantity::parse(tail, separators).filter(|number| !number.unit.is_empty())
    {
        return if is_denied(before, "") { Err(Unread::Syntax) } else { Ok(quantity(&number)) };
    }
    if tail.contains(|c: char| c.is_alphanumeric() || "\\∞∅".contains(c))
        && !is_denied(before, tail)
    {
        let value = parse(tail, separators);
        if value.is_ok() {
            return value;
        }
    }
    last_number(text, separators).map(|number| quantity(&number)).ok_or(Unread::Syntax)
}

fn quantity(number: &Quantity) -> Value {
    let unit = number.currency.map_or(number.unit.clone(), |currency| currency.to_string());
    let value = number.number.rational().clone();
    let decimal = !value.is_integer() && number.fraction.is_none();
    Value::Amount(Amount { expr: Expr::Number(value), decimal, percent: number.percent, unit })
}

/// A percent sign after a formula belongs to it.
fn marked(value: Value, after: &str) -> Value {
    let word = after.trim_start().trim_start_matches('\\');
    let percent = word.starts_with('%')
        || word.split(|c: char| !c.is_ascii_alphabetic()).next().and_then(plain_word)
            == Some(crate::math::token::Token::Percent);
    match value {
        Value::Amount(amount) if percent && !amount.percent => {
            Value::Amount(Amount { percent, ..amount })
        }
        other => other,
    }
}

/// Short words that no formula has.
const WORDS: [&str; 16] = [
    "it", "is", "we", "so", "to", "of", "in", "be", "as", "an", "the", "are", "was", "for", "get",
    "has",
];
/// Short words that may also be a product of variables.
const PRODUCTS: [&str; 12] =
    ["by", "at", "on", "if", "he", "she", "its", "but", "now", "our", "you", "had"];

/// A few words as they are: an answer that is no mathematics.
fn words(text: &str) -> Option<Value> {
    let text = text.trim();
    let words = text.split_whitespace().count();
    let plain =
        text.chars().all(|c| c.is_alphanumeric() || c.is_whitespace() || "'’-.,()".contains(c));
    (plain && (1..=12).contains(&words)).then(|| Value::Text(text.to_owned()))
}

/// Formulas that stand together at a text's end: `$1$, $2$ and $3$`.
struct Formulas {
    text: String,
    start: usize,
    end: usize,
}

/// The last formula, and those before it from which only commas, `and` and `or` part it.
fn last_formulas(text: &str) -> Option<Formulas> {
    let spans = formulas(text);
    let (&last, before) = spans.split_last()?;
    let mut joined = vec![last];
    for &span in before.iter().rev() {
        let next = joined[joined.len() - 1];
        let gap = text[span.outer.1..next.outer.0]
            .trim_matches(|c: char| c.is_whitespace() || c == ',' || c == ';');
        if !gap.is_empty() && !gap.eq_ignore_ascii_case("and") && !gap.eq_ignore_ascii_case("or") {
            break;
        }
        joined.push(span);
    }
    let start = joined[joined.len() - 1].outer.0;
    let or = text[start..].contains(" or ");
    let inner: Vec<&str> = joined
        .iter()
        .rev()
        .map(|span| text[span.inner.0..span.inner.1].trim_end_matches(['.', ',']))
        .collect();
    Some(Formulas { text: inner.join(if or { " or " } else { ", " }), start, end: last.outer.1 })
}

/// Where a formula is, with its marks and without.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Span {
    outer: (usize, usize),
    inner: (usize, usize),
}

/// All of `$…$`, `$$…$$`, `\(…\)` and `\[…\]`. One pass.
fn formulas(text: &str) -> Vec<Span> {
    let bytes = text.as_bytes();
    let (mut spans, mut open, mut at) = (Vec::new(), None::<(usize, usize, &str)>, 0);
    while at < bytes.len() {
        let mark = mark_at(&text.as_bytes()[at..]);
        let length = mark.map_or(1 + usize::from(bytes[at] == b'\\'), str::len);
        match (open, mark) {
            (Some((outer, inner, close)), Some(mark))
                if mark == close && closes(bytes, at, mark) =>
            {
                spans.extend(
                    (at > inner)
                        .then_some(Span { outer: (outer, at + length), inner: (inner, at) }),
                );
                open = None;
            }
            (None, Some(mark)) => open = closing(mark).map(|close| (at, at + length, close)),
            // A line's end closes what was no formula: a dollar sign.
            (Some((.., "$")), _) if bytes[at] == b'\n' => open = None,
            _ => {}
        }
        at += length;
    }
    spans
}

fn mark_at(rest: &[u8]) -> Option<&'static str> {
    ["$$", "$", "\\(", "\\)", "\\[", "\\]"]
        .into_iter()
        .find(|mark| rest.starts_with(mark.as_bytes()))
}

fn closing(mark: &str) -> Option<&'static str> {
    match mark {
        "$$" => Some("$$"),
        "$" => Some("$"),
        "\\(" => Some("\\)"),
        "\\[" => Some("\\]"),
        _ => None,
    }
}

/// A dollar sign with a digit behind it is a currency: `costs $5 and $6`.
fn closes(bytes: &[u8], at: usize, mark: &str) -> bool {
    mark != "$" || !bytes.get(at + 1).is_some_and(u8::is_ascii_digit)
}

/// Whether a text has words that are no mathematics, outside of LaTeX.
fn is_prose(text: &str) -> bool {
    last_word_end(text) > 0
}

/// The end of the last word that is no mathematics: no function, unit, variable or argument of a
/// command.
fn last_word_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut end, mut at, mut depth) = (0, 0, 0usize);
    let mut after_digit = false;
    while at < bytes.len() {
        let c = bytes[at];
        match c {
            b'\\' => {
                let name =
                    bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
                at += 1 + name.max(1);
                after_digit = false;
                continue;
            }
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ if c.is_ascii_alphabetic() => {
                let length = bytes[at..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_alphabetic() || **byte == b'\'')
                    .count();
                let word = &text[at..at + length];
                let unit = after_digit && (word.len() > 3 || is_unit(word));
                if depth == 0 && !unit && is_word(word, &text[..at], &text[at + length..]) {
                    end = at + length;
                    // `H2O` is one word.
                    end +=
                        bytes[end..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
                    (at, after_digit) = (end, false);
                    continue;
                }
                at += length;
                after_digit = after_digit && unit;
                continue;
            }
            _ => {}
        }
        // A unit may follow a number, and another word that unit.
        after_digit = c.is_ascii_digit()
            || (after_digit && matches!(c, b' ' | b'/' | b'^' | b'}' | b'$' | b','));
        at += 1;
    }
    // A colon or full stop belongs to the words before it.
    let marks = text[end..].bytes().take_while(|byte| *byte == b':' || *byte == b'*').count();
    if end == 0 { 0 } else { end + marks }
}

/// Whether letters are a word of a sentence, rather than a function, a variable or a product of
/// them.
fn is_word(word: &str, before: &str, after: &str) -> bool {
    let operator = |c: char| "^_=(+-*/".contains(c);
    let touches = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit() || operator(c));
    let apart = !touches(before.chars().next_back()) && !touches(after.chars().next());
    let is = |known: &[&str]| known.iter().any(|known| word.eq_ignore_ascii_case(known));
    match word.len() {
        2 | 3 if is(&WORDS) => apart,
        // `by` is a word in `rises by 5`, and b·y in `ax + by = 5`.
        2 | 3 if is(&PRODUCTS) => {
            let operator = |c: Option<char>| c.is_some_and(operator);
            apart
                && !operator(before.trim_end().chars().next_back())
                && !operator(after.trim_start().chars().next())
        }
        1..=3 => false,
        _ => plain_word(word).is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::{formulas, last_formulas, last_word_end};

    #[test]
    fn formulas_are_found() {
        let all = |text: &str| {
            formulas(text)
                .iter()
                .map(|span| text[span.inner.0..span.inner.1].to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(all(r"$a$ \(b\) \[c\] $$d$$"), ["a", "b", "c", "d"]);
        assert_eq!(all(r"it costs \$5, so $x = \$5$"), [r"x = \$5"]);
        assert!(all("costs $5 and $6").is_empty());
        assert!(all("costs $5\nor $6").is_empty());
        assert!(all(r"\(a").is_empty() && all("$").is_empty() && all("\\").is_empty());
    }

    #[test]
    fn neighbors_are_one_answer() {
        let joined = |text: &str| last_formulas(text).map(|formulas| formulas.text);
        assert_eq!(joined("$1$, $2$ and $3$.").as_deref(), Some("1, 2, 3"));
        assert_eq!(joined("$x=1$ or $x=2$").as_deref(), Some("x=1 or x=2"));
        assert_eq!(joined("$1$ is wrong, $2$ right").as_deref(), Some("2"));
    }

    #[test]
    fn words_end() {
        let tail = |text: &'static str| &text[last_word_end(text)..];
        assert_eq!(tail("It is 9"), " 9");
        assert_eq!(tail("Since x = 3 we have x^2 = 9"), " x^2 = 9");
        assert_eq!(tail(r"The probability is \frac{1}{2}"), r" \frac{1}{2}");
        assert_eq!(tail("It costs 12 dollars"), " 12 dollars");
        assert_eq!(tail("sin(x) + 2"), "sin(x) + 2");
        assert_eq!(tail(r"\text{no words} 2"), r"\text{no words} 2");
        assert_eq!(tail("Answer: 5"), " 5");
    }
}
