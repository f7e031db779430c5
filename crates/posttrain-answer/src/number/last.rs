//! The number that a text ends on, if it stands there as an answer.

use std::borrow::Cow;

use crate::number::Separators;
use crate::number::glyph::{THIN_SPACE, canonical};
use crate::number::numeral::{Numeral, numeral_at, starts_at, token_end};
use crate::number::quantity::{Quantity, Sign, is_currency, is_scale_like, may_touch, unit_after};
use crate::text::clause::is_denied;

/// Words after which a number is one of several, or an operand.
const ALWAYS_JOIN: [&str; 9] =
    ["or", "nor", "away", "plus", "minus", "times", "than", "versus", "vs"];
/// Words that join two numbers: `5 to 9`.
const JOIN_NUMBERS: [&str; 4] = ["to", "over", "by", "through"];

/// How far before an `and` another number makes a list of two, in bytes.
const LIST_BYTES: usize = 48;
/// The longest word that is taken for a unit before a minus, in bytes.
const UNIT_BYTES: usize = 16;

/// The last number of `text`, or `None` where it is an operand (`0 + 5`), a bound (`x > 5`), one of
/// two (`7 or 9`), denied (`not 12`) or badly written (`1,5`). An earlier number is never taken in
/// its place.
pub(crate) fn last_number(text: &str, separators: Separators) -> Option<Quantity> {
    let canon = canonical(text);
    let canon = with_marked_signs(&canon);
    let (sign, _, numeral) = answering_numeral(&canon)?;
    Quantity::of(&numeral, sign, unit_after(&canon[numeral.end..]), separators)
}

/// The text of the last number, and of a unit that may multiply it.
pub(crate) fn last_number_text(text: &str) -> Option<String> {
    let canon = canonical(text);
    let canon = with_marked_signs(&canon);
    let (_, start, numeral) = answering_numeral(&canon)?;
    let number = &canon[start..numeral.end];
    let unit = unit_after(&canon[numeral.end..]);
    Some(if is_scale_like(unit) { format!("{number} {unit}") } else { number.to_owned() })
}

/// Words after which `minus` is a sign: elsewhere it may take the number from what stands before.
const BEFORE_SIGNS: [&str; 14] = [
    "is",
    "are",
    "was",
    "were",
    "be",
    "equals",
    "equal",
    "to",
    "of",
    "at",
    "about",
    "answer",
    "exactly",
    "approximately",
];

/// `minus 5` and `negative 5` as `-5`, where the word is a sign and no operator. Linear.
pub(crate) fn with_marked_signs(text: &str) -> Cow<'_, str> {
    let lower = text.to_ascii_lowercase();
    let mut marked = String::new();
    let mut from = 0;
    let words = ["minus ", "negative "].into_iter().flat_map(|word| lower.match_indices(word));
    let mut words: Vec<_> = words.collect();
    words.sort_unstable();
    for (at, word) in words {
        let before = &lower[..at];
        let number = lower[at + word.len()..].trim_start_matches(' ');
        let digits = number.strip_prefix(['$', '€', '£', '.']).unwrap_or(number);
        if !digits.starts_with(|c: char| c.is_ascii_digit())
            || before.ends_with(|c: char| c.is_alphanumeric())
        {
            continue;
        }
        let near = before.trim_end();
        let last_word = near.rsplit(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
        let sign = match (last_word, word) {
            ("", _) => !near.ends_with(|c: char| c.is_ascii_digit() || ")]}%$°".contains(c)),
            (_, "negative ") => true,
            (last_word, _) => BEFORE_SIGNS.contains(&last_word),
        };
        if sign {
            marked.push_str(&text[from..at]);
            marked.push('-');
            from = lower.len() - number.len();
        }
    }
    if from == 0 {
        return Cow::Borrowed(text);
    }
    marked.push_str(&text[from..]);
    Cow::Owned(marked)
}

/// The last numeral with its sign and the place where they begin, if it stands there as an answer.
fn answering_numeral(canon: &str) -> Option<(Sign, usize, Numeral<'_>)> {
    let numeral = last_numeral(canon)?;
    let (sign, start) = sign_before(canon, numeral.start);
    let (before, after) = (&canon[..start], &canon[numeral.end..]);
    let answer = !is_operand(before, after)
        && !is_joined(before)
        && ends_well(after)
        && !is_denied(before, after);
    answer.then_some((sign, start, numeral))
}

/// The last numeral that is not part of a word (`H2O`) or of a unit (`cm^2`). Linear.
fn last_numeral(text: &str) -> Option<Numeral<'_>> {
    let (mut last, mut at) = (None, 0);
    while at < text.len() {
        if !starts_at(text, at) {
            at += 1;
        } else if is_in_word(&text[..at]) {
            at = token_end(text, at);
        } else {
            let numeral = numeral_at(text, at);
            at = numeral.end;
            last = Some(numeral);
        }
    }
    last
}

fn is_in_word(before: &str) -> bool {
    let base = before.strip_suffix(['-', '+']).unwrap_or(before);
    let exponent =
        base.strip_suffix('^').is_some_and(|base| base.ends_with(|c| joins_digits(c) || c == '°'));
    exponent || before.ends_with(|c| joins_digits(c) || c == '_')
}

/// Letters of scripts that separate words by spaces; in the others a number may touch a word.
fn joins_digits(c: char) -> bool {
    c.is_alphabetic() && (c as u32) < 0x0590
}

/// The sign and currency mark before a numeral, and where they begin.
fn sign_before(text: &str, start: usize) -> (Sign, usize) {
    let mut sign = Sign::default();
    let mut signed = false;
    let mut rest = &text[..start];
    while let Some(c) = rest.chars().next_back() {
        let left = &rest[..rest.len() - c.len_utf8()];
        match c {
            '-' | '+' if !signed && !left.ends_with(ends_operand) => {
                (signed, sign.negative) = (true, c == '-')
            }
            _ if is_currency(c) && sign.currency.is_none() => sign.currency = Some(c),
            ' ' if !signed && is_spaced_minus(left) => {}
            _ => break,
        }
        rest = left;
    }
    (sign, rest.len())
}

/// `= - 5`, where the spaced minus cannot be a dash.
fn is_spaced_minus(left: &str) -> bool {
    left.strip_suffix('-').is_some_and(|left| trim(left).ends_with('='))
}

/// Whether an operator joins the number to what stands on its left or right.
fn is_operand(before: &str, after: &str) -> bool {
    if before.ends_with('*') && after.starts_with('*') {
        return false;
    }
    let near = trim(before);
    let Some(operator) = near.chars().next_back() else { return continues(after) };
    let left = &near[..near.len() - operator.len_utf8()];
    let touching = left.len() + operator.len_utf8() == before.len();
    let operand = match operator {
        '+' | '×' | '÷' | '/' | '*' | '^' | '±' | '≤' | '≥' | '<' => {
            trim(left).ends_with(ends_operand)
        }
        '>' => !left.ends_with(['-', '=']) && trim(left).ends_with(ends_operand),
        '=' => left.ends_with(['<', '>', '!', '/']),
        '-' => ends_term(trim(left)),
        'x' | 'X' => trim(left).ends_with(|c: char| c.is_ascii_digit() || c == ')'),
        ':' => touching && left.ends_with(|c: char| c.is_ascii_digit()),
        // `f(5)`, but not `five (5)`.
        '(' => left.ends_with(ends_operand),
        '≠' | '√' | '\\' => true,
        _ => false,
    };
    operand || continues(after)
}

/// Whether an expression goes on after the number.
fn continues(after: &str) -> bool {
    let next = after.trim_start_matches([' ', THIN_SPACE]);
    let operator = next.starts_with(['+', '×', '÷', '=', '≠', '<', '>', '≤', '≥', '±']);
    let product =
        next.strip_prefix('*').is_some_and(|rest| trim_start(rest).starts_with(ends_operand));
    operator || product || after.starts_with(['^', '(', '\\', '_'])
}

/// Whether what touches the number is punctuation, a unit or a word of another script.
fn ends_well(after: &str) -> bool {
    if let Some(rest) = after.strip_prefix('/') {
        return rest.bytes().take(2).filter(u8::is_ascii_alphabetic).count() == 2;
    }
    let variable = matches!(unit_after(after), "x" | "X" | "y" | "Y" | "z" | "Z");
    !variable && may_touch(after)
}

/// Whether a word before the number makes it one of several.
fn is_joined(before: &str) -> bool {
    let near = trim(before);
    let letters = near.bytes().rev().take_while(u8::is_ascii_alphabetic).take(8).count();
    let (left, word) = near.split_at(near.len() - letters);
    let word = word.to_ascii_lowercase();
    let left = trim(left);
    // `divided by`, `increased by`.
    let divided = word == "by" && left.ends_with("ed");
    let numbers =
        JOIN_NUMBERS.contains(&word.as_str()) && left.ends_with(|c: char| c.is_ascii_digit());
    ALWAYS_JOIN.contains(&word.as_str())
        || divided
        || numbers
        || (word == "and" && lists_numbers(left))
}

/// Whether another number stands shortly before the `and`: `0 apples and 5 apples`, `1, 2, and 3`.
fn lists_numbers(left: &str) -> bool {
    let near = left.bytes().rev().take(LIST_BYTES).take_while(|byte| !b".!?;=\n".contains(byte));
    near.filter(u8::is_ascii_digit).count() > 0
}

/// The end of an operand of `+`: `3`, `x`, `)`.
fn ends_operand(c: char) -> bool {
    c.is_alphanumeric() || c == ')' || c == '%'
}

/// The end of an operand of `-`, which is also a dash after words: a number, one with a unit, a
/// bracket, a single letter.
fn ends_term(left: &str) -> bool {
    let letters = left.bytes().rev().take(UNIT_BYTES).take_while(u8::is_ascii_alphabetic).count();
    let without_unit = trim(&left[..left.len() - letters]);
    let letter = letters == 1 && !without_unit.ends_with(char::is_alphanumeric);
    letter || without_unit.ends_with(|c: char| c.is_ascii_digit()) || left.ends_with([')', '%'])
}

/// Without spaces at its end; a line's end stays, as what stands on another line is no operand.
fn trim(text: &str) -> &str {
    text.trim_end_matches([' ', '\t', THIN_SPACE])
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', THIN_SPACE])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_sign_where_it_takes_nothing_away() {
        let signed = [
            ("minus 5", "-5"),
            ("It is minus 5, or negative $3.", "It is -5, or -$3."),
            ("the answer: Negative  12", "the answer: -12"),
            ("a negative 7", "a -7"),
        ];
        for (text, expected) in signed {
            assert_eq!(with_marked_signs(text), expected);
        }
        for text in [
            "5 minus 3",
            "x minus 3",
            "five minus 3",
            "(a) minus 3",
            "minus five",
            "terminus 5",
            "negative numbers",
        ] {
            assert_eq!(with_marked_signs(text), text);
        }
    }
}
