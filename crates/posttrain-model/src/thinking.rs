//! What a model thought, apart from what it answered.

/// The marks of a thinking block, as Qwen3 and DeepSeek-R1 write them.
const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// Whether a model is asked to think before it answers, by the variable `enable_thinking` of its
/// template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Thinking {
    /// As the template has it where nothing is said (Qwen3 thinks).
    #[default]
    AsTemplate,
    /// It thinks.
    On,
    /// It answers at once.
    Off,
}

/// A completion taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<'a> {
    /// What stands in the thinking block; `None` if there is none.
    pub thinking: Option<&'a str>,
    /// What follows it; empty while the block is still open.
    pub answer: &'a str,
    /// Whether the block was closed, or there was none: an open one was cut at the token limit.
    pub finished: bool,
}

/// Where a completion begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Outside of a thinking block.
    Outside,
    /// Inside: the prompt ended with `<think>`.
    Inside,
}

/// Splits the thinking block from the answer.
///
/// The block is at the beginning or nowhere, and the first `</think>` ends it: an answer may write
/// of either mark. Blank lines around both parts are taken off.
///
/// ```
/// use posttrain_model::{Start, split_thinking};
///
/// let reply = split_thinking("<think>\n5 + 7\n</think>\n\n12", Start::Outside);
/// assert_eq!((reply.thinking, reply.answer), (Some("5 + 7"), "12"));
///
/// // The template wrote `<think>` already.
/// assert_eq!(split_thinking("5 + 7\n</think>\n\n12", Start::Inside), reply);
///
/// let cut = split_thinking("<think>\nlet me", Start::Outside);
/// assert_eq!((cut.answer, cut.finished), ("", false));
/// ```
#[must_use]
pub fn split_thinking(completion: &str, start: Start) -> Reply<'_> {
    let opened = completion.trim_start().strip_prefix(OPEN);
    let block = match start {
        // Some models write the mark once more.
        Start::Inside => Some(opened.unwrap_or(completion)),
        Start::Outside => opened,
    };
    let Some(block) = block else {
        return Reply { thinking: None, answer: completion, finished: true };
    };

    match block.split_once(CLOSE) {
        Some((thinking, answer)) => Reply {
            thinking: Some(thinking.trim_matches('\n')),
            answer: answer.trim_start_matches('\n'),
            finished: true,
        },
        None => Reply { thinking: Some(block.trim_matches('\n')), answer: "", finished: false },
    }
}

/// Where a completion begins that follows `prompt`, the rendered text of a conversation.
pub(crate) fn start_after(prompt: &str) -> Start {
    if prompt.trim_end().ends_with(OPEN) { Start::Inside } else { Start::Outside }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(completion: &str, start: Start) -> (Option<&str>, &str, bool) {
        let reply = split_thinking(completion, start);
        (reply.thinking, reply.answer, reply.finished)
    }

    #[test]
    fn a_block_is_at_the_beginning_or_nowhere() {
        assert_eq!(parts("12", Start::Outside), (None, "12", true));
        assert_eq!(parts("", Start::Outside), (None, "", true));
        assert_eq!(
            parts("write <think>a</think>", Start::Outside),
            (None, "write <think>a</think>", true)
        );
        assert_eq!(parts("<think>\n\n</think>\n\n12", Start::Outside), (Some(""), "12", true));
        assert_eq!(parts(" \n<think>a</think>b", Start::Outside), (Some("a"), "b", true));
    }

    #[test]
    fn the_first_end_counts_and_an_open_block_has_no_answer() {
        assert_eq!(
            parts("<think>a</think>b</think>c", Start::Outside),
            (Some("a"), "b</think>c", true)
        );
        assert_eq!(parts("a", Start::Inside), (Some("a"), "", false));
        assert_eq!(parts("<think>\na\n</think>b", Start::Inside), (Some("a"), "b", true));
        assert_eq!(parts("</think>b", Start::Inside), (Some(""), "b", true));
    }
}
