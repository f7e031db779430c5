//! When a program's output is the expected one.

use serde::{Deserialize, Serialize};

/// How standard output is compared with what is expected.
///
/// ```
/// use posttrain_reward::code::OutputMatch;
///
/// assert!(OutputMatch::Lines.same("1 2 \n3\n\n", "1 2\n3"));
/// assert!(!OutputMatch::Lines.same("1  2\n3", "1 2\n3") && OutputMatch::Words.same("1  2\n3", "1 2 3"));
/// assert!(!OutputMatch::Exact.same("1\n", "1"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputMatch {
    /// Line by line, without white space at the ends of lines and empty lines at the end.
    #[default]
    Lines,
    /// Word by word, whatever white space is between them.
    Words,
    /// Character by character.
    Exact,
}

impl OutputMatch {
    /// Whether `output` is as `expected`.
    ///
    /// ```
    /// assert!(posttrain_reward::code::OutputMatch::default().same("4\r\n", "4"));
    /// ```
    #[must_use]
    pub fn same(self, output: &str, expected: &str) -> bool {
        match self {
            Self::Lines => lines(output).eq(lines(expected)),
            Self::Words => output.split_whitespace().eq(expected.split_whitespace()),
            Self::Exact => output == expected,
        }
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.trim_end().lines().map(str::trim_end)
}
