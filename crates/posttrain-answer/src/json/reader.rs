//! A reader of JSON (RFC 8259) that keeps numbers as they are written and refuses a name that
//! stands twice.

use std::collections::BTreeMap;
use std::fmt;

/// How deep arrays and objects may be nested.
const MAX_DEPTH: usize = 128;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum JsonValue {
    Null,
    Bool(bool),
    Number(JsonNumber),
    Text(String),
    Array(Vec<Self>),
    Object(BTreeMap<String, Self>),
}

/// A decimal number, exactly: `±digits · 10^exponent`, without zeros at either end of the digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JsonNumber {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl JsonNumber {
    /// The number of a token that has JSON's grammar; `None` where the exponent is beyond an `i64`.
    fn new(token: &str) -> Option<Self> {
        let (sign, token) = token.strip_prefix('-').map_or((false, token), |token| (true, token));
        let (mantissa, exponent) = token.split_once(['e', 'E']).unwrap_or((token, "0"));
        let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));

        let all = [whole, decimals].concat();
        let digits = all.trim_start_matches('0').trim_end_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self { negative: false, digits, exponent: 0 });
        }

        let zeros = all.len() - all.trim_end_matches('0').len();
        let shift = i64::try_from(zeros).ok()? - i64::try_from(decimals.len()).ok()?;
        let exponent = exponent.parse::<i64>().ok()?.checked_add(shift)?;
        Some(Self { negative: sign, digits, exponent })
    }

    /// The nearest double.
    pub(super) fn to_f64(&self) -> f64 {
        self.to_string().parse().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for JsonNumber {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.negative { "-" } else { "" };
        let digits = if self.digits.is_empty() { "0" } else { &self.digits };

        match self.exponent {
            0 => write!(out, "{sign}{digits}"),
            exponent => write!(out, "{sign}{digits}e{exponent}"),
        }
    }
}

/// Why a text is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It is no JSON, or nested deeper than 128 levels.
    NotJson,
    /// It is JSON in which a name stands twice in one object: which of the two counts nobody can
    /// say.
    Twice,
}

/// The value that the whole of a text is, white space aside.
pub(crate) fn read(text: &str) -> Result<JsonValue, Unread> {
    let mut reader = Reader { text, at: 0, twice: false };
    let value = reader.value(0).ok_or(Unread::NotJson)?;
    reader.skip_space();

    match (reader.at == text.len(), reader.twice) {
        (false, _) => Err(Unread::NotJson),
        (true, true) => Err(Unread::Twice),
        (true, false) => Ok(value),
    }
}

/// Where the value that begins at `start` ends, whether or not a name stands twice in it; and how
/// far was read.
pub(super) fn end_of(text: &str, start: usize) -> (Option<usize>, usize) {
    let mut reader = Reader { text, at: start, twice: false };
    let whole = reader.value(0).is_some();

    (whole.then_some(reader.at), reader.at)
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    /// Whether some object has had a name twice.
    twice: bool,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Option<JsonValue> {
        if depth > MAX_DEPTH {
            return None;
        }

        self.skip_space();
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(JsonValue::Text),
            b't' => self.word("true", JsonValue::Bool(true)),
            b'f' => self.word("false", JsonValue::Bool(false)),
            b'n' => self.word("null", JsonValue::Null),
            _ => self.number().map(JsonValue::Number),
        }
    }

    fn object(&mut self, depth: usize) -> Option<JsonValue> {
        let mut members = BTreeMap::new();
        self.take(b'{')?;
        self.skip_space();
        if self.take(b'}').is_some() {
            return Some(JsonValue::Object(members));
        }

        loop {
            self.skip_space();
            let name = self.string()?;
            self.skip_space();
            self.take(b':')?;
            let value = self.value(depth + 1)?;
            self.twice |= members.insert(name, value).is_some();

            self.skip_space();
            if self.take(b',').is_none() {
                self.take(b'}')?;
                return Some(JsonValue::Object(members));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<JsonValue> {
        let mut members = Vec::new();
        self.take(b'[')?;
        self.skip_space();
        if self.take(b']').is_some() {
            return Some(JsonValue::Array(members));
        }

        loop {
            members.push(self.value(depth + 1)?);

            self.skip_space();
            if self.take(b',').is_none() {
                self.take(b']')?;
                return Some(JsonValue::Array(members));
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        self.take(b'"')?;
        let mut text = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|c: char| c == '"' || c == '\\' || c < ' ').unwrap_or(rest.len());
            text.push_str(&rest[..plain]);
            self.at += plain;

            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(text);
                }
                b'\\' => text.push(self.escape()?),
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        self.take(b'\\')?;
        let escape = self.peek()?;
        self.at += 1;

        Some(match escape {
            b'"' | b'\\' | b'/' => char::from(escape),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return None,
        })
    }

    /// Four hexadecimal digits, and four more where they are half of a pair.
    fn unicode(&mut self) -> Option<char> {
        let first = self.unit()?;
        if !(0xD800..0xDC00).contains(&first) {
            return char::from_u32(first);
        }

        self.take(b'\\')?;
        self.take(b'u')?;
        let second = self.unit()?.checked_sub(0xDC00)?;
        char::from_u32(0x1_0000 + ((first - 0xD800) << 10) + second)
    }

    fn unit(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }

        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }

    fn number(&mut self) -> Option<JsonNumber> {
        let start = self.at;
        let _ = self.take(b'-');
        // No zero stands before other digits.
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if self.take(b'e').or_else(|| self.take(b'E')).is_some() {
            let _ = self.take(b'+').or_else(|| self.take(b'-'));
            self.digits()?;
        }

        JsonNumber::new(&self.text[start..self.at])
    }

    fn digits(&mut self) -> Option<()> {
        let count =
            self.text.as_bytes()[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;

        (count > 0).then_some(())
    }

    fn word(&mut self, word: &str, value: JsonValue) -> Option<JsonValue> {
        self.text[self.at..].starts_with(word).then(|| {
            self.at += word.len();
            value
        })
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        self.at += self.text.as_bytes()[self.at..]
            .iter()
            .take_while(|byte| is_space(char::from(**byte)))
            .count();
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

#[cfg(test)]
mod tests {
    use super::{JsonValue, Unread, read};
    use proptest::prelude::*;

    fn same(left: &str, right: &str) -> bool {
        matches!((read(left), read(right)), (Ok(left), Ok(right)) if left == right)
    }

    #[test]
    fn numbers_are_kept_exactly() {
        let cases = [
            ("1", "1.0", true),
            ("1", "10e-1", true),
            ("-0", "0", true),
            ("100", "1E+2", true),
            ("0.1", "0.10", true),
            ("0.1", "0.10000000000000000001", false),
            ("9007199254740993", "9007199254740992", false),
            ("18446744073709551616", "18446744073709551617", false),
            ("1e400", "1e401", false),
            ("-5", "5", false),
        ];
        for (left, right, expected) in cases {
            assert_eq!(same(left, right), expected, "{left} {right}");
        }
        for text in ["01", "1.", ".5", "+1", "1e", "-", "0x1", "1e99999999999999999999", "NaN"] {
            assert_eq!(read(text), Err(Unread::NotJson), "{text}");
        }
    }

    #[test]
    fn a_name_that_stands_twice_is_told() {
        assert_eq!(read(r#"{"a": 1, "a": 2}"#), Err(Unread::Twice));
        assert_eq!(read(r#"[{"b": {"a": 1, "\u0061": 1}}]"#), Err(Unread::Twice));
        assert!(read(r#"{"a": {"a": 1}}"#).is_ok());
    }

    #[test]
    fn texts_are_unescaped() {
        assert_eq!(read(r#""\ud83d\ude00\n\/""#), Ok(JsonValue::Text("😀\n/".to_owned())));
        for text in [
            r#""\ud83d""#,
            r#""\ud83dx""#,
            r#""\x""#,
            "\"a\nb\"",
            r#""\u12g4""#,
            "\"é",
            r#""\ud83d\u0041""#,
        ] {
            assert_eq!(read(text), Err(Unread::NotJson), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        assert!(read(&format!("{}{}", "[".repeat(100), "]".repeat(100))).is_ok());
        assert!(read(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))).is_err());
    }

    proptest! {
        /// What a widely used reader takes is taken here, but for names that stand twice; and the
        /// other way round, but for numbers that it finds too large.
        #[test]
        fn agrees_with_another_reader(text in r#"[\[\]{}:,"a\\0-9.eE+ tfn-]{0,24}"#) {
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            match read(&text) {
                Ok(_) | Err(Unread::Twice) => {
                    let large = theirs.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
                    prop_assert!(theirs.is_ok() || large, "{}", text);
                }
                Err(Unread::NotJson) => prop_assert!(theirs.is_err(), "{}", text),
            }
        }
    }
}
