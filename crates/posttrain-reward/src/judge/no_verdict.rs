//! How a judge's answer fails to be a verdict.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why there is no verdict in a judge's answer.
///
/// ```
/// use posttrain_reward::judge::NoVerdict;
///
/// assert_eq!(NoVerdict::Empty.cause(), "judge_empty");
/// assert_eq!(NoVerdict::Empty.to_string(), "the answer is empty");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NoVerdict {
    /// The model refuses, in its server's word.
    Refused,
    /// The answer is empty.
    Empty,
    /// The answer ran into its token limit, or was withheld, before the verdict.
    Cut,
    /// The answer is not of the agreed form.
    Unreadable,
    /// What looks like a verdict is, or may be, what the judged response says.
    Quoted,
    /// As many votes for as against.
    Tie,
}

impl NoVerdict {
    /// A short key that stays the same from release to release, to count failures by.
    ///
    /// ```
    /// assert_eq!(posttrain_reward::judge::NoVerdict::Refused.cause(), "judge_refused");
    /// ```
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::Refused => "judge_refused",
            Self::Empty => "judge_empty",
            Self::Cut => "judge_cut",
            Self::Unreadable => "judge_unreadable",
            Self::Quoted => "judge_quoted",
            Self::Tie => "judge_tie",
        }
    }
}

impl fmt::Display for NoVerdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Refused => "the model refuses",
            Self::Empty => "the answer is empty",
            Self::Cut => "the answer was cut off before the verdict: by its length (more `max_tokens` may help) or by the server's filter",
            Self::Unreadable => "the answer is not of the agreed form",
            Self::Quoted => "what looks like a verdict may be a quotation from the response",
            Self::Tie => "as many votes are for as against",
        })
    }
}
