//! Numbers in the lexer.

use num_bigint::BigInt;
use num_rational::BigRational;

use crate::math::latex::argument;
use crate::math::lexer::Lexer;
use crate::math::token::{Fence, Literal, Token, Unread};
use crate::number::Separators;
use crate::number::{MAX_DIGITS, decimal, power_of_ten};

const DIGITS: Unread = Unread::Bound("a number has more digits than are read");

impl Lexer {
    /// `²³` as `^{23}`.
    pub(crate) fn exponent(&mut self, text: &str) -> Result<(), Unread> {
        self.push(Token::Caret);
        self.push(Token::Open(Fence::Group));
        let digits = text.trim_start_matches(['-', '+']);
        if text.starts_with('-') {
            self.push(Token::Minus);
        }
        self.literal(digits, "", false)?;
        self.push(Token::Close(Fence::Group));
        Ok(())
    }

    pub(crate) fn number<'t>(&mut self, rest: &'t str) -> Result<&'t str, Unread> {
        let single = self.arguments.last().is_some_and(|(group, _)| *group == self.groups);
        if single {
            self.literal(&rest[..1], "", false)?;
            return Ok(&rest[1..]);
        }
        let (point, comma) = match self.separators {
            Separators::Point => ('.', ","),
            Separators::Comma => (',', "."),
        };
        let (digits, after) = self.grouped(rest, comma);
        let (decimals, after) = decimals(after, point);
        if digits.len() + decimals.len() > MAX_DIGITS {
            return Err(DIGITS);
        }
        if let Some((period, after)) =
            period(after).filter(|_| rest.len() > after.len() && !digits.is_empty())
        {
            return self.periodic(&digits, decimals, period).map(|()| after);
        }
        let (exponent, after) = exponent(after);
        let pointed = !decimals.is_empty() || !exponent.is_empty();
        self.literal(&format!("{digits}.{decimals}"), exponent, pointed)?;
        Ok(after)
    }

    /// Digits with their groups of three joined: `1,234`, `1{,}234`, `1\,234`.
    pub(crate) fn grouped<'t>(&self, rest: &'t str, comma: &str) -> (String, &'t str) {
        let length = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (mut digits, mut after) = (rest[..length].to_owned(), &rest[length..]);
        if !(1..=3).contains(&length) || digits.starts_with('0') {
            return (digits, after);
        }
        let marks = ["{,}", ",\\!", "\\,", "\u{A0}", "\u{202F}", "\u{2009}", comma];
        while let Some(group) = marks.iter().find_map(|mark| {
            let free = *mark != comma || self.depth == 0;
            let group = after.strip_prefix(mark)?;
            // The space that `\!` takes back may be written out.
            let group = if mark.ends_with('!') { group.trim_start() } else { group };
            (free && leading_digits(group) == 3).then_some(group)
        }) {
            digits.push_str(&group[..3]);
            after = &group[3..];
        }
        (digits, after)
    }

    pub(crate) fn literal(
        &mut self,
        digits: &str,
        exponent: &str,
        decimal_point: bool,
    ) -> Result<(), Unread> {
        let exponent = (!exponent.is_empty()).then_some(exponent);
        let value = decimal(digits, exponent, Separators::Point).ok_or(DIGITS)?;
        self.push(Token::Number(Literal { value, decimal: decimal_point }));
        Ok(())
    }

    /// `0.1\overline{6}` is 1/6: the digits to the period's end less those before it, over as many
    /// nines and zeroes.
    pub(crate) fn periodic(
        &mut self,
        digits: &str,
        decimals: &str,
        period: &str,
    ) -> Result<(), Unread> {
        let integer = |digits: String| BigInt::parse_bytes(digits.as_bytes(), 10).ok_or(DIGITS);
        if decimals.len() + period.len() > MAX_DIGITS {
            return Err(DIGITS);
        }
        let over = integer(format!("{digits}{decimals}{period}"))?
            - integer(format!("{digits}{decimals}"))?;
        let nines = power_of_ten(period.len() as i64) - BigRational::from_integer(BigInt::from(1));
        let value = BigRational::from_integer(over) / (nines * power_of_ten(decimals.len() as i64));
        self.push(Token::Number(Literal { value, decimal: false }));
        Ok(())
    }
}

fn leading_digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// The decimals, if a point and a digit or a period follow.
fn decimals(rest: &str, point: char) -> (&str, &str) {
    let braced = if point == '.' { "{.}" } else { "{,}" };
    let Some(after) = rest.strip_prefix(point).or_else(|| rest.strip_prefix(braced)) else {
        return ("", rest);
    };
    let length = leading_digits(after);
    if length == 0 && !after.starts_with("\\overline") {
        return ("", rest);
    }
    after.split_at(length)
}

/// The digits of `\overline{…}`.
fn period(rest: &str) -> Option<(&str, &str)> {
    let (inner, rest) = argument(rest.strip_prefix("\\overline")?)?;
    let digits =
        !inner.is_empty() && inner.len() <= MAX_DIGITS && leading_digits(inner) == inner.len();
    digits.then_some((inner, rest))
}

/// `e23`, `E-7`, where no letter follows.
fn exponent(rest: &str) -> (&str, &str) {
    let Some(after) = rest.strip_prefix(['e', 'E']) else { return ("", rest) };
    let sign = usize::from(after.starts_with(['+', '-']));
    let length = sign + leading_digits(&after[sign..]);
    let ends = length > sign && !after[length..].starts_with(|c: char| c.is_alphanumeric());
    if ends { after.split_at(length) } else { ("", rest) }
}
