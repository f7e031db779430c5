//! The two functions that need no options.

use crate::math::Math;
use crate::short::ShortAnswer;
use crate::{Comparison, Verdict};

/// Whether `answer` gives the answer that `reference` is: as mathematics where the reference can be
/// read as such, else as words.
///
/// Either may be a bare answer or a whole response that ends on it or marks it (a box, `####`,
/// `The answer is`). Where the reference is empty, damaged or not to be read, or the two cannot be
/// told apart within the budget, the answer is `false`; [`compare`] says why. Any two texts take
/// bounded time: linear in their length, of which 64 KiB are looked at, plus at most some
/// milliseconds of arithmetic.
///
/// ```
/// use posttrain_answer::same;
///
/// assert!(same("1/2", "0.5"));
/// assert!(same(r"\frac{1}{2}", r"Half of it remains, so \boxed{50\%}."));
/// assert!(same("x^2 - 1", "The answer is $(x-1)(x+1)$."));
/// assert!(same(r"\{1, 2\}", "x = 2 or x = 1"));
/// assert!(same("Paris", "The capital of France is Paris."));
/// assert!(!same("12", "It is 11, 12 or 13."));
/// assert!(!same("12", "It is not 12."));
/// assert!(!same("", "12"));
/// ```
#[must_use]
pub fn same(reference: &str, answer: &str) -> bool {
    compare(reference, answer).verdict.is_same()
}

/// Compares as [`same`] does, and says what was compared.
///
/// A reference that can be read neither as mathematics nor as a short answer is
/// [`Verdict::Unreadable`].
///
/// ```
/// use posttrain_answer::{Verdict, compare};
///
/// let comparison = compare("5", r"Therefore \boxed{6}.");
/// assert_eq!(comparison.verdict, Verdict::Different);
/// assert_eq!(comparison.found.unwrap().text, "6");
/// assert_eq!(compare(" ", "6").verdict, Verdict::Unreadable("the reference cannot be read"));
/// ```
pub fn compare(reference: &str, answer: &str) -> Comparison {
    let mathematics = Math::default().compare(reference, answer);
    if let Ok(comparison) = mathematics {
        return comparison;
    }

    let words = ShortAnswer::default().compare(reference, answer);
    words.unwrap_or(Comparison {
        verdict: Verdict::Unreadable("the reference cannot be read"),
        found: None,
    })
}
