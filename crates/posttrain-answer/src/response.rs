//! Which part of a response is looked at: what follows the thinking, as far as the budget reaches.

/// What follows the thinking, up to the last `</think>`; `None` where a `<think>` never ends, so
/// that there is no answer. Linear.
///
/// ```
/// use posttrain_answer::response::without_thinking;
///
/// assert_eq!(without_thinking("<think>7 or 8?</think>8"), Some("8"));
/// assert_eq!(without_thinking("8"), Some("8"));
/// assert_eq!(without_thinking("<think>7 or 8?"), None);
/// ```
#[must_use]
pub fn without_thinking(response: &str) -> Option<&str> {
    let spoken = response.rsplit_once("</think>").map_or(response, |(_, spoken)| spoken);

    (!spoken.contains("<think>")).then_some(spoken)
}

/// The last `bytes` bytes of `text`, or a little less where that would split a character.
///
/// ```
/// use posttrain_answer::response::ending;
///
/// assert_eq!(ending("abc", 2), "bc");
/// assert_eq!(ending("é", 1), "");
/// ```
#[must_use]
pub fn ending(text: &str, bytes: usize) -> &str {
    let mut start = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(start) {
        start += 1;
    }

    &text[start..]
}
