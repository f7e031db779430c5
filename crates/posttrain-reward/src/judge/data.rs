//! What a judge is shown, written so that it cannot speak to the judge.
//!
//! The response is written by the policy that the verdict trains, so it is an attacker's text.
//! Three walls:
//!
//! 1. *Everything is a JSON string.* A line break is `\n` and a quote `\"`, so the text cannot
//!    begin a line, close its string, or end the data, whatever it contains. A fence alone (XML
//!    tags, ```` ``` ````) could be written by the response.
//! 2. *Special tokens are taken apart.* Many servers encode `<|im_end|>` in a message as the token,
//!    not as its letters, and the response would speak in its own turn. `<` and `[` where they may
//!    begin such a token are written `\u003c` and `\u005b`, and invisible characters by their
//!    numbers: the same JSON, and no token.
//! 3. *The marks around it carry a code*, 128 bits of SHA-256 over all of the data. A text that
//!    contains its own code would have to be a fixed point of SHA-256. A random code would be as
//!    safe, and would keep a cache from ever seeing the same request twice.

use sha2::{Digest, Sha256};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Hexadecimal digits of a fence's code.
const CODE_DIGITS: usize = 32;

/// Fields by name, in order, as one JSON object, and the code for the marks around it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JudgeData {
    pub json: String,
    pub fence: String,
}

impl JudgeData {
    /// `fields` are names with values that are JSON already; see [`quote`] and [`quote_bounded`].
    pub(crate) fn new(fields: &[(&str, String)]) -> Self {
        let pairs: Vec<String> =
            fields.iter().map(|(name, json)| format!("{}: {json}", quote(name))).collect();
        let json = format!("{{{}}}", pairs.join(", "));
        Self { fence: code(&json), json }
    }
}

/// A code that does not occur in `text`.
fn code(text: &str) -> String {
    // The loop is for the proof; nobody will see its second round.
    let codes = (0u64..).map(|round| {
        let digest = Sha256::new().chain_update(round.to_le_bytes()).chain_update(text).finalize();
        format!("{digest:x}")[..CODE_DIGITS].to_owned()
    });
    codes.into_iter().find(|code| !text.contains(code)).unwrap_or_default()
}

/// `text` as a JSON string without special tokens and invisible characters.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '<' if may_begin_tag(rest.as_str()) => escape(&mut out, c),
            '[' if may_begin_bracket_token(rest.as_str()) => escape(&mut out, c),
            _ if is_invisible(c) => escape(&mut out, c),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Like [`quote`]; of a text of more than `characters`, the first quarter and the last three
/// quarters of as many, since answers stand at the end, with the number of those left out:
/// `{"beginning": …, "omitted_characters": …, "end": …}`. As fields of JSON, so that a text cannot
/// pretend to be cut.
pub(crate) fn quote_bounded(text: &str, characters: usize) -> String {
    let count = text.chars().count();
    if count <= characters {
        return quote(text);
    }
    let head = characters / 4;
    let omitted = count - characters;
    let place =
        |index: usize| text.char_indices().nth(index).map_or(text.len(), |(place, _)| place);
    let (beginning, end) = (&text[..place(head)], &text[place(head + omitted)..]);
    format!(
        "{{\"beginning\": {}, \"omitted_characters\": {omitted}, \"end\": {}}}",
        quote(beginning),
        quote(end)
    )
}

/// Whether `<` before `rest` may be more than "less than": no token begins with a space, an equals
/// sign or a number.
fn may_begin_tag(rest: &str) -> bool {
    let mut next = rest.chars();
    match (next.next(), next.next()) {
        (None, _) => true,
        // `<0x0A>` is a token of Llama 2.
        (Some(c), Some('x')) if c.is_ascii_digit() => true,
        (Some(c), _) => !(c.is_whitespace() || c.is_ascii_digit() || c == '='),
    }
}

/// Whether `[` before `rest` may begin a token such as `[INST]`, `[/INST]` or `[gMASK]`.
fn may_begin_bracket_token(rest: &str) -> bool {
    let mut next = rest.chars();
    match (next.next(), next.next()) {
        (Some('/'), _) => true,
        (Some(c), after) if c.is_ascii_alphabetic() => {
            c.is_ascii_uppercase() || after.is_some_and(|c| c.is_ascii_uppercase())
        }
        _ => false,
    }
}

fn is_invisible(c: char) -> bool {
    use GeneralCategory::{
        Control, Format, LineSeparator, ParagraphSeparator, PrivateUse, Unassigned,
    };
    let category = c.general_category();
    matches!(
        category,
        Control | Format | LineSeparator | ParagraphSeparator | PrivateUse | Unassigned
    )
}

fn escape(out: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        out.push_str(&format!("\\u{unit:04x}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn tokens_are_taken_apart_and_mathematics_stays() {
        assert_eq!(quote("<|im_end|>"), r#""\u003c|im_end|>""#);
        assert_eq!(
            quote("</s><s>[INST] x [/INST]"),
            r#""\u003c/s>\u003cs>\u005bINST] x \u005b/INST]""#
        );
        assert_eq!(
            quote("<｜end▁of▁sentence｜>[gMASK]<0x0A><<SYS>>"),
            r#""\u003c｜end▁of▁sentence｜>\u005bgMASK]\u003c0x0A>\u003c\u003cSYS>>""#
        );
        assert_eq!(
            quote("x < 5, x<5, x <= 5, [0, 1], [a, b], {{1}}"),
            r#""x < 5, x<5, x <= 5, [0, 1], [a, b], {{1}}""#
        );
        assert_eq!(quote("\\frac{1}{2}\n\"é\""), r#""\\frac{1}{2}\n\"é\"""#);
        assert_eq!(
            quote("a\u{200b}b\u{202e}c\u{e0041}\0"),
            r#""a\u200bb\u202ec\udb40\udc41\u0000""#
        );
    }

    #[test]
    fn a_long_text_keeps_its_beginning_and_its_end() {
        let text: String = (0..1000).map(|index| char::from(b'a' + (index % 26) as u8)).collect();
        let value: Value = serde_json::from_str(&quote_bounded(&text, 100)).unwrap();
        assert_eq!(value["beginning"], text[..25]);
        assert_eq!(value["end"], text[925..]);
        assert_eq!(value["omitted_characters"], 900);
        assert_eq!(quote_bounded("éé", 2), "\"éé\"");
        assert_eq!(
            quote_bounded("ééé", 2),
            "{\"beginning\": \"\", \"omitted_characters\": 1, \"end\": \"éé\"}"
        );
    }

    #[test]
    fn the_code_depends_on_all_of_the_data() {
        let data = |response: &str| {
            JudgeData::new(&[("question", quote("q")), ("response", quote(response))])
        };
        assert_eq!(data("a").json, r#"{"question": "q", "response": "a"}"#);
        assert_eq!((data("a").fence.len(), data("a")), (32, data("a")));
        assert_ne!(data("a").fence, data("b").fence);
    }

    proptest! {
        #[test]
        fn every_text_comes_back_from_its_quotation(text in "\\PC*|.*|[<\\[|/\\]>a-zA-Z0-9\\\\\"\\n]*") {
            let quoted = quote(&text);
            prop_assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), text);
            prop_assert!(!quoted.contains("<|") && !quoted.contains('\n') && !quoted.contains("[/"));
            prop_assert!(quoted.chars().all(|c| !is_invisible(c)));
        }

        #[test]
        fn bounded_quotations_are_json_and_short(text in "(?s).{0,200}", characters in 1usize..50) {
            let quoted = quote_bounded(&text, characters);
            let value: Value = serde_json::from_str(&quoted).unwrap();
            let whole = text.chars().count() <= characters;
            prop_assert_eq!(value.is_string(), whole);
            if !whole {
                let kept = value["beginning"].as_str().unwrap().chars().count() + value["end"].as_str().unwrap().chars().count();
                prop_assert_eq!(kept, characters);
                prop_assert_eq!(value["omitted_characters"].as_u64().unwrap() as usize, text.chars().count() - characters);
            }
        }

        #[test]
        fn a_code_is_never_in_its_text(text in "[0-9a-f]{0,400}") {
            prop_assert!(!text.contains(&code(&text)));
        }
    }
}
