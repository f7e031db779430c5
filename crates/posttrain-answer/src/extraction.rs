//! Where in a response the answer is.

pub(crate) mod boxed;
mod phrase;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::AnswerError;
use crate::number::last::last_number_text;
use boxed::{is_left_open, last_boxed};
use phrase::last_phrase;

/// One way to find an answer.
///
/// ```
/// use posttrain_answer::Extraction;
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
    /// The contents of the `\boxed{…}` (or `\fbox{…}`) that begins last, braces balanced. Where
    /// that box never closes there is no answer: an earlier box is not it.
    Boxed,
    /// The rest of the line after the last `####`, as in GSM8K.
    Hashes,
    /// What follows the last `answer is`, `answer:` or their like, up to the sentence's or the
    /// line's end.
    Phrase,
    /// The last number, as far as it stands alone; see [`ShortAnswer`](crate::short::ShortAnswer).
    LastNumber,
    /// The last line that is not blank.
    LastLine,
    /// The whole text.
    Plain,
}

impl Extraction {
    /// The answer's text without surrounding white space; `None` where there is none or it is
    /// empty. Linear.
    ///
    /// [`LastNumber`](Self::LastNumber) gives the number in ASCII, with its sign, currency mark,
    /// percent sign and, where it has one that may multiply it, its unit (`1/2` for `½`, `5 k` for
    /// `5 k`).
    ///
    /// ```
    /// use posttrain_answer::Extraction;
    ///
    /// assert_eq!(Extraction::Boxed.find(r"\boxed{1}, no: \boxed{2}").as_deref(), Some("2"));
    /// assert_eq!(Extraction::Boxed.find(r"\boxed{1}, no: \boxed{"), None);
    /// ```
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

    /// Whether what it finds is the answer and nothing else, rather than a text that begins or ends
    /// with the answer.
    ///
    /// ```
    /// use posttrain_answer::Extraction;
    ///
    /// assert!(Extraction::Boxed.delimits() && !Extraction::Phrase.delimits());
    /// ```
    #[must_use]
    pub fn delimits(self) -> bool {
        matches!(self, Self::Boxed | Self::Hashes | Self::LastNumber)
    }

    /// Whether the text has the mark that this way looks for, and leaves it open: then no other way
    /// may find an answer either.
    pub(crate) fn takes_back(self, text: &str) -> bool {
        self == Self::Boxed && is_left_open(text)
    }
}

/// Where most answers are: in a box, after `####`, after a phrase, or at the text's end.
pub(crate) const USUAL_ORDER: [Extraction; 4] =
    [Extraction::Boxed, Extraction::Hashes, Extraction::Phrase, Extraction::Plain];

/// The first answer that the ways in `order` find, and by which. None where a box that never closes
/// takes back what stands before it.
///
/// ```
/// use posttrain_answer::{Extraction, extract};
///
/// let order = [Extraction::Boxed, Extraction::LastNumber];
/// assert_eq!(extract("3 + 9 = 12", &order), Some(("12".into(), Extraction::LastNumber)));
/// assert_eq!(extract(r"\boxed{12}, and 5 more", &order), Some(("12".into(), Extraction::Boxed)));
/// assert_eq!(extract(r"12, or rather \boxed{", &order), None);
/// assert_eq!(extract("twelve", &order), None);
/// ```
#[must_use]
pub fn extract<'t>(text: &'t str, order: &[Extraction]) -> Option<(Cow<'t, str>, Extraction)> {
    for &way in order {
        if way.takes_back(text) {
            return None;
        }
        if let Some(answer) = way.find(text) {
            return Some((answer, way));
        }
    }

    None
}

/// Refuses an order that finds nothing.
pub(crate) fn check_order(order: &[Extraction]) -> Result<(), AnswerError> {
    if order.is_empty() {
        return Err(AnswerError::invalid("order", "empty", "at least one way to find the answer"));
    }

    Ok(())
}

/// Refuses a budget of bytes that is none.
pub(crate) fn check_bytes(max_bytes: usize) -> Result<(), AnswerError> {
    if !(1..=1 << 24).contains(&max_bytes) {
        return Err(AnswerError::invalid("max_bytes", max_bytes, "from 1 to 16777216"));
    }

    Ok(())
}

fn last_hashes(text: &str) -> Option<&str> {
    let (_, rest) = text.rsplit_once("####")?;
    rest.lines().next()
}
