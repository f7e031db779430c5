//! The JSON that a text gives as its answer.

use super::reader::{Unread, end_of, read};

/// The most places in a text where a value is tried to be read.
const MAX_STARTS: usize = 4096;
/// Bytes that are read in all these trials together.
const MAX_READ: usize = 1 << 24;

/// The JSON that a text gives as its answer: all of the text; else the last block between fences of
/// three backticks that is JSON (a fence inside of a JSON text is none); else the last object or
/// array. `None` where there is none, or where a name stands twice in it.
///
/// ```
/// use posttrain_answer::json::find;
///
/// assert_eq!(find("first [1], then [2]."), Some("[2]"));
/// assert_eq!(find("```json\n[1]\n``` or [2]"), Some("[1]"));
/// assert_eq!(find(r#"{"text": "```[1]```"}"#), Some(r#"{"text": "```[1]```"}"#));
/// assert_eq!(find(r#"{"a": 1, "a": 2}"#), None);
/// ```
#[must_use]
pub fn find(text: &str) -> Option<&str> {
    match read(text) {
        Ok(_) => return Some(text.trim()),
        Err(Unread::Twice) => return None,
        Err(Unread::NotJson) => {}
    }

    let values = values(text)?;
    let last = match last_fenced(text, &values) {
        Some(block) => block,
        None => values.last().map(|value| &text[value.start..value.end])?,
    };
    read(last).is_ok().then_some(last)
}

/// Where an object or array is that is not part of another one.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
}

/// All objects and arrays of a text that are not part of another one; `None` where finding them
/// costs too much.
fn values(text: &str) -> Option<Vec<Span>> {
    let mut values = Vec::new();
    let mut at = 0;
    let mut starts = 0;
    let mut bytes_read = 0;

    while let Some(next) = text[at..].find(['{', '[']) {
        let start = at + next;
        let (end, reached) = end_of(text, start);

        starts += 1;
        bytes_read += reached - start;
        if starts > MAX_STARTS || bytes_read > MAX_READ {
            return None;
        }

        match end {
            Some(end) => {
                values.push(Span { start, end });
                at = end;
            }
            None => at = start + 1,
        }
    }

    Some(values)
}

/// The last block between two fences that is JSON, and is not itself part of a JSON text.
fn last_fenced<'t>(text: &'t str, values: &[Span]) -> Option<&'t str> {
    let fences: Vec<usize> =
        text.match_indices("```").map(|(at, _)| at).filter(|at| !is_inside(*at, values)).collect();

    // Every second fence closes a block; the last one may be open.
    let blocks = fences.chunks_exact(2).rev().take(MAX_STARTS);
    blocks
        .map(|fences| block(&text[fences[0] + 3..fences[1]]))
        .find(|block| read(block) != Err(Unread::NotJson))
}

/// The contents of a block without the language that it names.
fn block(text: &str) -> &str {
    text.trim_start_matches(|c: char| c.is_ascii_alphanumeric()).trim()
}

fn is_inside(at: usize, values: &[Span]) -> bool {
    let following = values.partition_point(|value| value.start <= at);

    following.checked_sub(1).is_some_and(|last| at < values[last].end)
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn values_are_found() {
        let cases = [
            (r#"{"a": 1}"#, Some(r#"{"a": 1}"#)),
            ("```json\n[1]\n```", Some("[1]")),
            ("```\n[1]\n``` then ```json\n[2]\n```", Some("[2]")),
            ("```json\n[1]\n``` and ```text\nno\n```", Some("[1]")),
            ("first [1], then [2]", Some("[2]")),
            (r#"it is {"a": [1, {"b": "}"}]}."#, Some(r#"{"a": [1, {"b": "}"}]}"#)),
            (r#"it is {"a": "```[1]```"}."#, Some(r#"{"a": "```[1]```"}"#)),
            ("[1] then ```\n{\"a\": 1, \"a\": 2}\n```", None),
            ("[1] then {\"a\": 1, \"a\": 2}", None),
            ("12", Some("12")),
            ("{a: 1}", None),
            ("[1, 2,]", None),
            ("[1", None),
            ("no", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(find(text), expected, "{text}");
        }
    }
}
