//! The grammar of one number in canonical text: where it begins and ends, and what its pieces are.
//! Nothing is computed.

use crate::number::glyph::THIN_SPACE;

/// The pieces of a number, before any is converted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Form<'t> {
    /// `1,234.5`, `6.02e23`, `6.02 × 10^23`.
    Decimal { token: &'t str, exponent: Option<&'t str> },
    /// `3/4`, `1 1/2`.
    Fraction { whole: Option<&'t str>, over: &'t str, under: &'t str },
}

/// A number without its sign, at `start..end` of the text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Numeral<'t> {
    pub start: usize,
    pub end: usize,
    pub form: Form<'t>,
    /// The power of ten of a scale word: 6 for `12 million`.
    pub scale: u32,
    pub percent: bool,
}

/// Scale words and their powers of ten.
const SCALES: [(&str, u32); 5] =
    [("hundred", 2), ("thousand", 3), ("million", 6), ("billion", 9), ("trillion", 12)];

/// Whether a number may start at `at`: a digit, or a point before one.
pub(crate) fn starts_at(text: &str, at: usize) -> bool {
    let bytes = text.as_bytes();
    let digit = |index: usize| bytes.get(index).is_some_and(u8::is_ascii_digit);
    digit(at)
        || (bytes.get(at) == Some(&b'.')
            && digit(at + 1)
            && !(at > 0 && (digit(at - 1) || bytes[at - 1] == b'.')))
}

/// The number at `start`, which must satisfy [`starts_at`]. Takes as much text as can belong to it.
pub(crate) fn numeral_at(text: &str, start: usize) -> Numeral<'_> {
    let end = token_end(text, start);
    let token = &text[start..end];
    let (form, end) = mixed(text, token, end)
        .or_else(|| fraction(text, token, end))
        .or_else(|| scientific(text, token, end))
        .unwrap_or((Form::Decimal { token, exponent: None }, end));
    let (scale, end) = scale_word(text, end);
    let (percent, end) = percent_sign(text, end);
    Numeral { start, end, form, scale, percent }
}

/// The end of the longest run of digits and what may stand between digits of one number.
pub(crate) fn token_end(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let mut at = start;
    loop {
        at += digits(&text[at..]);
        let next = bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
        match bytes.get(at) {
            Some(b',' | b'.' | b'\'' | b'_') if next => at += 1,
            Some(_) if groups_by_space(&text[at..]) => at += THIN_SPACE.len_utf8(),
            _ => return at,
        }
    }
}

/// Whether a thin space and exactly three digits follow.
fn groups_by_space(rest: &str) -> bool {
    rest.strip_prefix(THIN_SPACE).is_some_and(|rest| {
        let group = rest.bytes().take(4).take_while(u8::is_ascii_digit).count();
        group == 3
    })
}

/// `1 1/2`: a whole number, a space, a proper fraction.
fn mixed<'t>(text: &'t str, whole: &'t str, end: usize) -> Option<(Form<'t>, usize)> {
    let gap = text[end..].chars().next().filter(|&c| c == ' ' || c == THIN_SPACE)?;
    let start = end + gap.len_utf8();
    let over = &text[start..start + digits(&text[start..])];
    let (Form::Fraction { under, .. }, end) = fraction(text, over, start + over.len())? else {
        return None;
    };
    let proper = is_integer(whole) && (over.len(), over) < (under.len(), under);
    proper.then_some((Form::Fraction { whole: Some(whole), over, under }, end))
}

/// `3/4`, with nothing around the stroke.
fn fraction<'t>(text: &'t str, over: &'t str, end: usize) -> Option<(Form<'t>, usize)> {
    let rest = text[end..].strip_prefix('/')?;
    let under = &rest[..digits(rest)];
    let valid = is_integer(over) && !under.is_empty() && token_end(rest, 0) == under.len();
    valid.then_some((Form::Fraction { whole: None, over, under }, end + 1 + under.len()))
}

/// `e23`, `E-7`, `× 10^23`, `x 10^-7`, `*10^(4)` without the parentheses.
fn scientific<'t>(text: &'t str, token: &'t str, end: usize) -> Option<(Form<'t>, usize)> {
    let rest = &text[end..];
    let exponent = rest.strip_prefix(['e', 'E']).or_else(|| {
        let rest = rest.trim_start_matches([' ', THIN_SPACE]).strip_prefix(['×', 'x', 'X', '*'])?;
        rest.trim_start_matches([' ', THIN_SPACE]).strip_prefix("10^")
    })?;
    let sign = usize::from(exponent.starts_with(['+', '-']));
    let length = sign + digits(&exponent[sign..]);
    let ends = length > sign && !exponent[length..].starts_with(|c: char| c.is_alphanumeric());
    let end = text.len() - exponent.len() + length;
    ends.then_some((Form::Decimal { token, exponent: Some(&exponent[..length]) }, end))
}

fn scale_word(text: &str, end: usize) -> (u32, usize) {
    let rest = text[end..].strip_prefix([' ', THIN_SPACE]).unwrap_or(&text[end..]);
    let word = word_at(rest);
    let scale = SCALES.iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
    scale.map_or((0, end), |&(_, power)| (power, text.len() - rest.len() + word.len()))
}

fn percent_sign(text: &str, end: usize) -> (bool, usize) {
    let rest = text[end..].trim_start_matches([' ', THIN_SPACE]);
    let after = text.len() - rest.len();
    match word_at(rest) {
        _ if rest.starts_with('%') => (true, after + 1),
        word if word.eq_ignore_ascii_case("percent") => (true, after + word.len()),
        word if word.eq_ignore_ascii_case("per")
            && rest.get(3..8).is_some_and(|next| next.eq_ignore_ascii_case(" cent")) =>
        {
            (true, after + 8)
        }
        _ => (false, end),
    }
}

/// The letters that `rest` begins with; none where they are too many for a word of interest.
fn word_at(rest: &str) -> &str {
    let length = rest.bytes().take(16).take_while(u8::is_ascii_alphabetic).count();
    if length == 16 { "" } else { &rest[..length] }
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

fn is_integer(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit())
}
