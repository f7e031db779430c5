//! Where in a response the answer is.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::boxed::last_boxed;
use crate::last_number::last_number_text;
use crate::phrase::last_phrase;

/// One way to find an answer.
///
/// ```
/// use posttrain_reward::Extraction;
///
/// assert_eq!(Extraction::Boxed.find(r"so \boxed{\frac{1}{2}} it is").as_deref(), Some(r"\frac{1}{2}"));
/// assert_eq!(Extraction::Hashes.find("3 + 9 = 12\n#### 12").as_deref(), Some("12"));
/// assert_eq!(Extraction::Phrase.find("The answer is 12. That was easy.").as_deref(), Some("12"));
/// assert_eq!(Extraction::LastNumber.find("3 + 9 = 12 apples").as_deref(), Some("12"));
/// assert_eq!(Extraction::LastLine.find("3 + 9\n12\n\n").as_deref(), Some("12"));
/// assert_eq!(Extraction::Plain.find("  12 ").as_deref(), Some("12"));
/// assert_eq!(Extraction::Boxed.find("12"), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Extraction {
    /// The contents of the complete `\boxed{…}` (or `\fbox{…}`) that begins last, braces balanced. A box that is never
    /// closed is none.
    Boxed,
    /// The rest of the line after the last `####`, as in GSM8K.
    Hashes,
    /// What follows the last `answer is`, `answer:` or their like, up to the sentence's or the line's end.
    Phrase,
    /// The last number, as far as it stands alone; see [`AnswerConfig`](crate::AnswerConfig).
    LastNumber,
    /// The last line that is not blank.
    LastLine,
    /// The whole text.
    Plain,
}

impl Extraction {
    /// The answer's text without surrounding white space; `None` where there is none or it is empty. Linear.
    ///
    /// [`LastNumber`](Self::LastNumber) gives the number in ASCII, with its sign, currency mark, percent sign and, where
    /// it has one that may multiply it, its unit (`1/2` for `½`, `5 k` for `5 k`).
    pub fn find(self, text: &str) -> Option<Cow<'_, str>> {
        let found = match self {
            Self::Boxed => last_boxed(text),
            Self::Hashes => last_hashes(text),
            Self::Phrase => last_phrase(text),
            Self::LastNumber => return last_number_text(text).map(Cow::Owned),
            Self::LastLine => text.lines().rfind(|line| !line.trim().is_empty()),
            Self::Plain => Some(text),
        };
        found.map(str::trim).filter(|answer| !answer.is_empty()).map(Cow::Borrowed)
    }

    /// Whether what it finds is the answer and nothing else, rather than a text that ends on the answer.
    pub(crate) fn delimits(self) -> bool {
        matches!(self, Self::Boxed | Self::Hashes | Self::LastNumber)
    }
}

/// The first answer that the ways in `order` find, and by which.
///
/// ```
/// use posttrain_reward::{Extraction, extract};
///
/// let order = [Extraction::Boxed, Extraction::LastNumber];
/// assert_eq!(extract("3 + 9 = 12", &order), Some(("12".into(), Extraction::LastNumber)));
/// assert_eq!(extract(r"\boxed{12}, and 5 more", &order), Some(("12".into(), Extraction::Boxed)));
/// assert_eq!(extract("twelve", &order), None);
/// ```
pub fn extract<'t>(text: &'t str, order: &[Extraction]) -> Option<(Cow<'t, str>, Extraction)> {
    order.iter().find_map(|&way| way.find(text).map(|answer| (answer, way)))
}

fn last_hashes(text: &str) -> Option<&str> {
    let (_, rest) = text.rsplit_once("####")?;
    rest.lines().next()
}
