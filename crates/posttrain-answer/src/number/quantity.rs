//! A number as an answer writes it: with a sign, a currency mark, a percent sign, a unit.

use crate::number::glyph::canonical;
use crate::number::numeral::{Form, Numeral, numeral_at, starts_at};
use crate::number::{Number, Separators, is_reduced};

/// The longest text that can be one quantity: [`MAX_DIGITS`](crate::number::MAX_DIGITS) digits,
/// grouped, and a unit.
const MAX_BYTES: usize = 2048;
/// The longest unit, in bytes and in words.
const MAX_UNIT: (usize, usize) = (48, 3);

const CURRENCIES: [char; 10] = ['$', '€', '£', '¥', '₹', '₽', '₩', '₺', '₫', '₦'];
/// Words after a number that multiply it, by a factor that is not settled (`k` is also kilo, `M`
/// also molar).
const SCALE_LIKE: [&str; 18] = [
    "k",
    "M",
    "B",
    "bn",
    "mn",
    "mln",
    "tn",
    "dozen",
    "dozens",
    "score",
    "lakh",
    "crore",
    "hundreds",
    "thousands",
    "millions",
    "billions",
    "trillions",
    "gross",
];
/// Single letters that are a unit where they touch the number; others are variables (`5x`).
const LETTER_UNITS: &str = "mgstlLJNWVAKhdCFTH";
/// Words that make what follows a number a statement, not a unit.
const NOT_UNITS: [&str; 15] =
    ["is", "are", "was", "were", "not", "no", "or", "and", "but", "to", "than", "x", "X", "y", "z"];

/// A number and what is written around it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Quantity {
    /// The number as written: 75 for `75%`.
    pub number: Number,
    pub percent: bool,
    pub currency: Option<char>,
    /// Without surrounding white space; empty where there is none.
    pub unit: String,
    /// The terms, where it is written as a fraction without a whole part.
    pub fraction: Option<(String, String)>,
}

impl Quantity {
    /// The quantity that the whole of `text` is (`x = -$1,200.50`, `12 apples`, `**5**`), or
    /// `None`.
    pub fn parse(text: &str, separators: Separators) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let canon = canonical(text);
        let text = undecorated(right_hand_side(&canon)?);
        let (sign, rest) = sign_and_currency(text);
        if !starts_at(rest, 0) {
            return None;
        }
        let numeral = numeral_at(rest, 0);
        let after = &rest[numeral.end..];
        is_unit(after).then(|| Self::of(&numeral, sign, after.trim(), separators))?
    }

    /// A numeral with its sign and the unit after it, or `None` where the numeral has no value.
    pub fn of(numeral: &Numeral, sign: Sign, unit: &str, separators: Separators) -> Option<Self> {
        let value = Number::of(numeral, separators)?;
        let number = if sign.negative { value.negated() } else { value };
        let trailing = unit.chars().next().filter(|c| CURRENCIES.contains(c));
        let unit = unit.trim_start_matches(CURRENCIES).trim_end_matches('.').to_owned();
        let fraction = match numeral.form {
            Form::Fraction { whole: None, over, under } => {
                Some((over.to_owned(), under.to_owned()))
            }
            _ => None,
        };
        Some(Self {
            number,
            percent: numeral.percent,
            currency: sign.currency.or(trailing),
            unit,
            fraction,
        })
    }

    /// The number, a percentage as its hundredth.
    pub fn value(&self) -> Number {
        if self.percent { self.number.hundredth() } else { self.number.clone() }
    }

    /// Whether it is a fraction that can be reduced, `6/8` or `12/4`: an unfinished calculation.
    pub fn is_unreduced(&self) -> bool {
        self.fraction.as_ref().is_some_and(|(over, under)| !is_reduced(over, under))
    }

    /// Whether the unit may multiply the number: `5 k`, `2 dozen`.
    pub fn may_scale(&self) -> bool {
        is_scale_like(&self.unit)
    }

    /// Whether it has no unit, or one of a single word: `5 N`, but not `7 wonders of`.
    pub fn is_plain(&self) -> bool {
        !self.unit.contains(char::is_whitespace)
    }

    /// The same unit, a plural `s` aside.
    pub fn has_unit_of(&self, other: &Self) -> bool {
        singular(&self.unit) == singular(&other.unit)
    }
}

/// What stands before a number.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sign {
    pub negative: bool,
    pub currency: Option<char>,
}

/// The letters that touch a number, or the next word after a space, without punctuation: `m/s` in
/// ` m/s.`
pub(crate) fn unit_after(rest: &str) -> &str {
    let rest = rest.trim_start_matches([' ', crate::number::glyph::THIN_SPACE]);
    let word = rest.split(char::is_whitespace).next().unwrap_or("");
    if word.starts_with(|c: char| ".,;:!?)]'\"*_".contains(c)) {
        return "";
    }
    word.trim_end_matches(|c: char| ".,;:!?)]'\"*_".contains(c))
}

/// Whether letters that touch a number are a unit (`12kg`, `5th`, `300K`), not a variable (`5x`) or
/// part of a word.
pub(crate) fn may_touch(rest: &str) -> bool {
    let letters: String = rest.chars().take_while(|c| c.is_ascii_alphabetic()).take(16).collect();
    letters.len() != 1 || LETTER_UNITS.contains(&letters) || SCALE_LIKE.contains(&letters.as_str())
}

pub(crate) fn is_scale_like(unit: &str) -> bool {
    unit.split_whitespace().next().is_some_and(|word| SCALE_LIKE.contains(&word))
}

pub(crate) fn is_currency(c: char) -> bool {
    CURRENCIES.contains(&c)
}

/// What follows the last equals sign; `None` for `>= 5` and its like, which are not equations.
fn right_hand_side(text: &str) -> Option<&str> {
    match text.rsplit_once('=') {
        Some((left, _)) if left.ends_with(['<', '>', '!']) => None,
        Some((_, right)) => Some(right),
        None => Some(text),
    }
}

/// Without markup, quotation marks, brackets and closing punctuation around it.
fn undecorated(text: &str) -> &str {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || "*_\"'“”«»([:".contains(c));
    let text =
        text.trim_end_matches(|c: char| c.is_whitespace() || "*_\"'“”«»)].,;:!?".contains(c));
    let formula = text.strip_prefix('$').and_then(|inner| inner.strip_suffix('$'));
    // A dollar sign at both ends delimits a formula; at one end it is a currency.
    formula.map_or(text, |inner| inner.trim_matches('$').trim())
}

/// Splits a sign and a currency mark, in either order, off the front.
fn sign_and_currency(text: &str) -> (Sign, &str) {
    let mut sign = Sign::default();
    let mut rest = text;
    let mut signed = false;
    while let Some(c) = rest.chars().next() {
        match c {
            '-' | '+' if !signed => (signed, sign.negative) = (true, c == '-'),
            _ if is_currency(c) && sign.currency.is_none() => sign.currency = Some(c),
            ' ' => {}
            _ => break,
        }
        rest = &rest[c.len_utf8()..];
    }
    (sign, rest)
}

/// Whether what follows a number can be its unit.
fn is_unit(after: &str) -> bool {
    let unit = after.trim();
    let words = unit.split_whitespace().count();
    let short = unit.len() <= MAX_UNIT.0 && words <= MAX_UNIT.1;
    let statement = unit.split_whitespace().any(|word| NOT_UNITS.contains(&word));
    let touches = !after.starts_with(char::is_whitespace);
    short && !statement && (!touches || may_touch(unit)) && unit_characters(unit)
}

/// Letters, and digits as the exponent or index of one.
fn unit_characters(unit: &str) -> bool {
    let mut before = ' ';
    unit.chars().enumerate().all(|(index, c)| {
        let exponent = before == '^' || before == '-' || before == '_' || before.is_alphanumeric();
        let valid = match c {
            '0'..='9' => index > 0 && exponent,
            '-' | '^' | '_' => index > 0,
            '/' | '×' | '.' | '°' | '\'' | '"' | ' ' | '(' | ')' => true,
            _ => c.is_alphabetic() || is_currency(c) || c.is_whitespace(),
        };
        before = c;
        valid
    })
}

fn singular(unit: &str) -> &str {
    match unit.strip_suffix('s') {
        Some(stem) if stem.len() > 2 => stem,
        _ => unit,
    }
}
