//! What label a chat model's answer names.

use posttrain_chat::ChatResponse;
use serde_json::{Value, json};

/// The field of a JSON answer that holds the label.
pub(crate) const FIELD: &str = "label";

/// `{"label": …}` of one of the names.
pub(crate) fn schema(names: &[String]) -> Value {
    json!({
        "type": "object",
        "properties": { FIELD: { "type": "string", "enum": names } },
        "required": [FIELD],
        "additionalProperties": false,
    })
}

/// The place of the name that the answer is; or that its one JSON object has; or the only one that
/// its last line mentions, or else its text. None where that is no name, or several: which one is
/// meant is not guessed.
pub(crate) fn read_label(response: &ChatResponse, names: &[String]) -> Option<usize> {
    let place = |found: &str| names.iter().position(|name| name == found);

    if let Ok(name) = response.choice(names) {
        return place(name);
    }

    if let Ok(Value::Object(object)) = response.json() {
        let text = object
            .get(FIELD)
            .or_else(|| object.values().next().filter(|_| object.len() == 1))?
            .as_str()?;
        return ChatResponse::from_text(text).choice(names).ok().and_then(place);
    }

    let last = response.text.lines().rev().find(|line| !line.trim().is_empty())?;
    match mentioned(last, names)[..] {
        [label] => Some(label),
        [] => match mentioned(&response.text, names)[..] {
            [label] => Some(label),
            _ => None,
        },
        _ => None,
    }
}

/// The places of the names that stand in the text as words; a name within a longer one does not
/// count.
fn mentioned(text: &str, names: &[String]) -> Vec<usize> {
    let mut text = text.to_lowercase();
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(names[at].len()));

    let mut found: Vec<usize> =
        order.into_iter().filter(|&at| strike_out(&mut text, &names[at].to_lowercase())).collect();
    found.sort_unstable();
    found
}

/// Takes every mention of the name out of the text; whether there was one.
fn strike_out(text: &mut String, name: &str) -> bool {
    let mut found = false;
    let mut from = 0;
    while let Some(at) = text[from..].find(name).map(|at| at + from) {
        let end = at + name.len();
        let joined = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        if joined(text[..at].chars().next_back()) || joined(text[end..].chars().next()) {
            from = at + text[at..].chars().next().map_or(1, char::len_utf8);
        } else {
            text.replace_range(at..end, "\n");
            found = true;
            from = at + 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Option<&'static str> {
        let names = ["math", "natural", "social", "natural history"];
        let owned = names.map(str::to_owned);
        read_label(&ChatResponse::from_text(text), &owned).map(|at| names[at])
    }

    #[test]
    fn what_names_one_label_is_read() {
        for (text, label) in [
            ("math", "math"),
            (" Math.\n", "math"),
            (r#"{"label": "social"}"#, "social"),
            ("```json\n{\"label\": \"Social\"}\n```", "social"),
            (r#"{"choice": "natural"}"#, "natural"),
            ("The subject is **natural**.", "natural"),
            ("It is natural history.", "natural history"),
            ("It could be math or social.\nI would say: social", "social"),
            ("Subject: social\nThat is clear.", "social"),
        ] {
            assert_eq!(read(text), Some(label), "{text:?}");
        }
    }

    #[test]
    fn what_names_none_or_several_is_not() {
        for text in [
            "",
            "42",
            "math or social",
            "mathematics",
            r#"{"label": 0}"#,
            r#"{"label": "art"}"#,
            "{",
            "unsocial",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,40}", name in "\\PC{1,5}") {
            let names = [name, "é".to_owned()];
            let _ = read_label(&ChatResponse::from_text(text), &names);
        }
    }
}
