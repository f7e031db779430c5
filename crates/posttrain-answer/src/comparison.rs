//! What comes of comparing a response with a reference.

use crate::Extraction;

/// Whether a response gives the reference's answer.
///
/// ```
/// use posttrain_answer::{Verdict, compare};
///
/// assert_eq!(compare("12", "3 + 9 = 12").verdict, Verdict::Same);
/// assert_eq!(compare("12", "It is 11, 12 or 13.").verdict, Verdict::Different);
/// assert_eq!(compare("12", "").verdict, Verdict::Missing);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It gives that answer.
    Same,
    /// It gives another one.
    Different,
    /// It gives none where one was looked for.
    Missing,
    /// What stands there as the answer is not of the grammar that is read, or longer, deeper or
    /// larger than what is read: why, in words.
    Unreadable(&'static str),
    /// Both were read, and the budget does not suffice to tell whether they are the same: why, in
    /// words.
    Undecided(&'static str),
}

impl Verdict {
    /// Whether the answers are the same; what is not known to be the same is not.
    ///
    /// ```
    /// use posttrain_answer::Verdict;
    ///
    /// assert!(Verdict::Same.is_same());
    /// assert!(!Verdict::Undecided("it takes too long").is_same());
    /// ```
    #[must_use]
    pub fn is_same(self) -> bool {
        self == Self::Same
    }

    pub(crate) fn of(same: bool) -> Self {
        if same { Self::Same } else { Self::Different }
    }
}

/// An answer, and how it was found.
///
/// ```
/// use posttrain_answer::{Extraction, compare};
///
/// let found = compare("12", r"so it is \boxed{13}").found.unwrap();
/// assert_eq!((found.text.as_str(), found.by), ("13", Extraction::Boxed));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its text.
    pub text: String,
    /// The way that found it.
    pub by: Extraction,
}

/// A verdict, and the answer that it is about.
///
/// ```
/// use posttrain_answer::{Verdict, compare};
///
/// let comparison = compare("5", r"\boxed{6}");
/// assert_eq!(comparison.verdict, Verdict::Different);
/// assert_eq!(comparison.found.unwrap().text, "6");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Comparison {
    /// Whether the response gives the reference's answer.
    pub verdict: Verdict,
    /// The answer that was found in the response, if any.
    pub found: Option<Found>,
}

impl Comparison {
    pub(crate) fn missing() -> Self {
        Self { verdict: Verdict::Missing, found: None }
    }
}
