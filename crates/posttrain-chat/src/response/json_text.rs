//! JSON inside a text that was to be JSON alone.

use serde_json::Value;

/// What a text holds.
#[derive(Debug, PartialEq)]
pub(crate) enum JsonText {
    None,
    One(Value),
    Several,
}

/// Objects that are looked for at most; the third settles that there are several.
const ENOUGH: usize = 2;

/// The text itself, its one fenced block, or its one outermost object.
pub(crate) fn find_json(text: &str) -> JsonText {
    match find_strictly(text) {
        // Grammars of llama.cpp let line breaks into strings, where JSON has none. Elsewhere they
        // mean as much as spaces.
        JsonText::None if text.contains(char::is_control) => {
            find_strictly(&text.replace(char::is_control, " "))
        }
        found => found,
    }
}

fn find_strictly(text: &str) -> JsonText {
    if let Ok(value) = serde_json::from_str(text.trim()) {
        return JsonText::One(value);
    }
    let fenced: Vec<Value> = fences(text)
        .filter_map(|block| serde_json::from_str(block.trim()).ok())
        .take(ENOUGH)
        .collect();
    let found = if fenced.is_empty() { objects(text) } else { fenced };
    match <[Value; 1]>::try_from(found) {
        Ok([value]) => JsonText::One(value),
        Err(found) if found.is_empty() => JsonText::None,
        Err(_) => JsonText::Several,
    }
}

/// What stands between pairs of fences, without the language's name.
fn fences(text: &str) -> impl Iterator<Item = &str> {
    let inside =
        text.split("```").enumerate().filter(|(index, _)| index % 2 == 1).map(|(_, block)| block);
    inside.map(|block| {
        block.strip_prefix("json").or_else(|| block.strip_prefix("JSON")).unwrap_or(block)
    })
}

/// Outermost objects, found in one pass: a failed attempt costs what it read, and what it read is
/// not read again, except that an opening brace which begins no object may lie before one that
/// does. Those are bounded.
fn objects(text: &str) -> Vec<Value> {
    let (mut found, mut start, mut failures) = (Vec::new(), 0, 0);
    while let Some(offset) = text[start..].find('{') {
        let from = start + offset;
        let mut values = serde_json::Deserializer::from_str(&text[from..]).into_iter::<Value>();
        if let Some(Ok(value)) = values.next() {
            start = from + values.byte_offset();
            found.push(value);
        } else {
            start = from + 1;
            failures += 1;
        }
        if found.len() == ENOUGH || failures == 1000 {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn one_value_is_found_wherever_it_stands() {
        for text in [
            "{\"a\": 1}",
            " {\"a\": 1}\n",
            "```json\n{\"a\": 1}\n```",
            "Here: ```\n{\"a\": 1}``` {\"b\": 2}",
            "so {it} is {\"a\": 1}, with a brace }",
            "{not} {{\"a\": 1}}",
        ] {
            assert_eq!(find_json(text), JsonText::One(json!({"a": 1})), "{text}");
        }
        assert_eq!(find_json("{\"a\":\n\"b\nc\"}"), JsonText::One(json!({"a": "b c"})));
        assert_eq!(find_json("true"), JsonText::One(json!(true)));
    }

    #[test]
    fn two_are_not_one() {
        assert_eq!(find_json("{\"a\": 1} {\"a\": 2}"), JsonText::Several);
        assert_eq!(find_json("```{\"a\": 1}``` and ```{\"a\": 2}```"), JsonText::Several);
    }

    #[test]
    fn nothing_is_nothing_soon() {
        for text in ["", "yes", "{", "{\"a\": ", "```json\n```"] {
            assert_eq!(find_json(text), JsonText::None, "{text}");
        }
        let start = std::time::Instant::now();
        for hostile in [
            "{".repeat(300_000),
            "{\"a\":".repeat(60_000),
            "```".repeat(100_000),
            "[".repeat(300_000),
        ] {
            assert_eq!(find_json(&hostile), JsonText::None);
        }
        assert!(start.elapsed().as_secs() < 20);
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[{}\\[\\]\",:`a1 \\\\é\n]{0,60}") {
            find_json(&text);
        }
    }
}
