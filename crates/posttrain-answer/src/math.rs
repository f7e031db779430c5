//! When two texts are the same mathematics.

mod arithmetic;
mod canonical;
mod command;
mod complex;
mod elementary;
mod evaluate;
mod expression;
mod factor;
mod find;
mod functions;
mod latex;
mod lexer;
mod literal;
mod matrix;
mod operators;
mod parser;
mod polynomial;
mod power;
mod precise;
mod primary;
mod real;
mod real_set;
mod relation;
mod same;
mod same_number;
mod token;
mod unit;
mod value;

use serde::{Deserialize, Serialize};

use crate::extraction::{USUAL_ORDER, check_bytes, check_order};
use crate::number::{Percent, Separators, Units};
use crate::reference::checked_reference;
use crate::response::{ending, without_thinking};
use crate::text::ending::ends_on;
use crate::text::{Case, Normalizer};
use crate::{AnswerError, Comparison, Extraction, Found, Verdict};
use same::Rules;
use same_number::Sameness;
use token::Unread;
use value::Value;

/// When a response's answer is the reference's, as mathematics.
///
/// **What is read**, as LaTeX or plain text: integers, decimals, scientific notation, fractions,
/// mixed numbers, percent, roots, powers, factorials, binomials, π, e, i, the elementary functions,
/// absolute values, floor and ceiling; formulas; sets, lists (`1, 2`, `1 and 2`, `1 or 2`), `±`,
/// tuples, intervals, `∪`, `∩`, `∖`, `ℝ` and its like; matrices and determinants; equations,
/// inequalities and chains of them; words (`\text{even}`), with units, currencies and degrees.
///
/// **Where the answer is**: the first way in `order` that finds anything decides alone. Boxes that
/// only `and`, `or` and commas part are one answer with several members; a last box that never
/// closes takes back what was said before it. In plain text, the last formula or number counts,
/// never an earlier one; none where it is denied (`it is not 12`).
///
/// **When it is right**:
///
/// - *Numbers and formulas* by their value: `\frac{2}{\sqrt 2}` is `\sqrt 2`, `(x-1)(x+1)` is
///   `x^2-1`, `\sin\frac{\pi}{6}` is `0.5`. Rational numbers, polynomials, rational expressions and
///   surds are decided exactly, the rest in 256 bits at several points, where two values less than
///   `2^-150` (relative to the largest term) apart count as the same.
/// - *Decimals* to `decimals` places, and to three digits: `0.333333` is `1/3`. Nothing is rounded
///   to a whole number.
/// - *Sets and lists* in any order, *tuples* in theirs; a list for a tuple in the tuple's order.
/// - *Equations* where they are multiples of each other; `x = 5` for `5` and `5` for `x = 5`, but
///   not `y = 5` for `x = 5`. For an inequality, its solutions as an interval, but never the
///   inequality for the interval, which may be the question; for the same reason, nothing unsolved
///   for what is solved: not `2x = 10` for `x = 5`, nor `x - 3 > 0` for `x > 3`.
/// - *Units* where they do not contradict: `5` and `5 \text{ cm}`, but not `5 m` and `5 cm`.
///
/// **Its budget** is in the grammar, not on the clock: what is longer than 8 KiB, deeper than 48
/// levels or larger than 400 digits is not read, and what would take more than a bounded number of
/// steps (`20000!`) is undecided.
///
/// A reference that is a whole solution is read by its mark (a box, `####`, `The answer is`). After
/// `math-verify` 0.9.0 (Kydlíček, Hugging Face), with which it agrees on 97% and more of
/// `tests/fixtures/math_verify`; each disagreement is listed there with its reason.
///
/// ```
/// use posttrain_answer::math::Math;
///
/// let math = Math::default();
/// let same = |reference, response| math.compare(reference, response).map(|comparison| comparison.verdict.is_same());
/// assert!(same(r"\frac{1}{2}", r"So it is \boxed{0.5}.")?);
/// assert!(same("x^2 - 1", "The answer is $(x-1)(x+1)$.")?);
/// assert!(same(r"(-\infty, 0) \cup (0, \infty)", r"\boxed{\mathbb{R} \setminus \{0\}}")?);
/// assert!(!same("2", r"\boxed{1 \text{ or } 2}")?);
/// # Ok::<(), posttrain_answer::AnswerError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Math {
    /// Where to look, in this order; not empty. Default: box, `####`, phrase, the text's end.
    pub order: Vec<Extraction>,
    /// Places to which a decimal must be rounded right, from 0 to 100. Default 6, math-verify's
    /// `float_rounding`.
    pub decimals: u32,
    /// What `,` and `.` mean. Default: `1,234.5`.
    pub separators: Separators,
    /// What `%` means. Default: either reading.
    pub percent: Percent,
    /// What words after a number are worth. Default: optional, not contradicted.
    pub units: Units,
    /// Bytes at the response's end that are looked at, from 1 to 2²⁴. Default 65,536, as in
    /// [`ShortAnswer`](crate::short::ShortAnswer).
    pub max_bytes: usize,
}

impl Default for Math {
    fn default() -> Self {
        Self {
            order: USUAL_ORDER.to_vec(),
            decimals: 6,
            separators: Separators::default(),
            percent: Percent::default(),
            units: Units::default(),
            max_bytes: 64 * 1024,
        }
    }
}

impl Math {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`AnswerError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// use posttrain_answer::math::Math;
    ///
    /// assert!(Math::default().validate().is_ok());
    /// assert!(Math { decimals: 1000, ..Math::default() }.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), AnswerError> {
        check_order(&self.order)?;
        if self.decimals > 100 {
            return Err(AnswerError::invalid("decimals", self.decimals, "from 0 to 100"));
        }

        check_bytes(self.max_bytes)
    }

    /// Compares the answer in a response with the reference's.
    ///
    /// # Errors
    /// [`AnswerError::EmptyReference`], or [`AnswerError::BadReference`] where the reference cannot
    /// be read.
    ///
    /// ```
    /// use posttrain_answer::{Verdict, math::Math};
    ///
    /// let math = Math::default();
    /// assert_eq!(math.compare(r"2\sqrt{3}", r"\boxed{\sqrt{12}}")?.verdict, Verdict::Same);
    /// assert_eq!(math.compare("5", "I do not know.")?.verdict, Verdict::Unreadable("the answer cannot be read"));
    /// assert!(math.compare("{", "5").is_err());
    /// # Ok::<(), posttrain_answer::AnswerError>(())
    /// ```
    pub fn compare(&self, reference: &str, response: &str) -> Result<Comparison, AnswerError> {
        let reference = checked_reference(reference)?;
        let wanted =
            find::reference(reference, self.separators).map_err(|unread| match unread {
                Unread::Syntax => {
                    AnswerError::bad_reference(reference, "mathematics that can be read")
                }
                Unread::Bound(expected) => AnswerError::bad_reference(reference, expected),
            })?;

        let spoken = without_thinking(response).map(|spoken| ending(spoken, self.max_bytes));
        let Some(answer) =
            spoken.and_then(|spoken| find::find(spoken, &self.order, self.separators))
        else {
            return Ok(Comparison::missing());
        };

        let verdict = match answer.value {
            Ok(value) => self.verdict(&wanted, &value, &answer.text),
            Err(_) if ends_on_words(&answer.text, &wanted) => Verdict::Same,
            Err(Unread::Syntax) => Verdict::Unreadable("the answer cannot be read"),
            Err(Unread::Bound(reason)) => Verdict::Unreadable(reason),
        };
        let found = Found { text: answer.text.into_owned(), by: answer.by };
        Ok(Comparison { verdict, found: Some(found) })
    }

    fn verdict(&self, wanted: &Value, answer: &Value, text: &str) -> Verdict {
        let rules = Rules { decimals: self.decimals, percent: self.percent, units: self.units };

        match rules.same(wanted, answer) {
            Sameness::Same => Verdict::Same,
            Sameness::Different => Verdict::of(ends_on_words(text, wanted)),
            // What is asked for is a plain number: that the answer's value cannot be told is the
            // answer's fault. Were it undecided, a policy could write such an answer wherever it
            // knows none.
            Sameness::Unknown(reason) if wanted.is_number() => Verdict::Unreadable(reason),
            Sameness::Unknown(reason) => Verdict::Undecided(reason),
        }
    }
}

/// Whether a text ends on the words that are asked for: `It is Evelyn.`
fn ends_on_words(text: &str, wanted: &Value) -> bool {
    let normalizer = Normalizer { case: Case::Insensitive, ..Normalizer::default() };

    matches!(wanted, Value::Text(words) if ends_on(text, words, &normalizer))
}
