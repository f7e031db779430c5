//! When a response gives a short answer: a number or a few words.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::extraction::{USUAL_ORDER, check_bytes, check_order, extract};
use crate::number::Numeric;
use crate::number::last::last_number;
use crate::number::quantity::Quantity;
use crate::reference::short_reference;
use crate::response::{ending, without_thinking};
use crate::text::Normalizer;
use crate::text::ending::ends_on;
use crate::{AnswerError, Comparison, Extraction, Found, Verdict};

/// How much of the response must be the answer.
///
/// ```
/// use posttrain_answer::short::{ShortAnswer, Strictness};
///
/// let rule = |strictness| ShortAnswer { strictness, ..ShortAnswer::default() };
/// assert!(rule(Strictness::LastAnswer).compare("12", "It is 12.")?.verdict.is_same());
/// assert!(!rule(Strictness::WholeResponse).compare("12", "It is 12.")?.verdict.is_same());
/// # Ok::<(), posttrain_answer::AnswerError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strictness {
    /// The response may reason; what it ends on, or marks as its answer, counts.
    #[default]
    LastAnswer,
    /// The response, without white space and punctuation around it, is the answer.
    WholeResponse,
}

/// When a response gives the reference, a number or a few words.
///
/// What is not looked at: thinking (up to the last `</think>`; a `<think>` that never ends leaves
/// no answer), and of what is left all but the last `max_bytes`.
///
/// **Where the answer is** ([`Strictness::LastAnswer`]): the first way in `order` that finds
/// anything decides alone, so that no response has two answers. The contents of a box or of a
/// `####` line must be the answer and nothing else; a last box that never closes takes back what
/// was said before it. A phrase (`the answer is …`), a line or the plain text must *end* on it:
///
/// - *A number* (where the reference is one): the last number of the text. Earlier ones never
///   count: `7 8 9 10` is 10. No answer at all is given by a number that is an operand (`0 + 5`, so
///   that repeating the question earns nothing), a bound (`x > 5`), one of two (`7 or 9`, `5-7`,
///   `0 apples and 5 apples`), an unreduced fraction (`12/4`), denied (`it is not 12`), badly
///   grouped (`1,5`), of more than 400 digits, or part of a word (`H2O`), and number words (`five`)
///   are none. `12 = 3 + 9` ends on an operand: wrong.
/// - *Words*: the last words are those of the reference, and before them (an article aside) stands
///   nothing, a line's or sentence's end, a colon, `=`, an arrow, or a word that leads to an answer
///   (`is`, `called`, `in`, …), in a clause that is not denied. `The capital of France is Paris.`
///   is right; `Paris or London`, `It is not Paris.`, `Paris is in France` and, for `Virginia`,
///   `It is West Virginia` are wrong. Scripts without spaces between words are compared as whole
///   lines or sentences.
///
/// **When it is right**: as a number under `numeric`, or as text under `normalizer`. A reference
/// like `5 N` is a number with a unit; one like `+1-268` or `2nd Amendment Act` is text. A
/// reference that is a whole solution is read by its mark (`#### 24`, a box); one that marks
/// nothing is refused.
///
/// ```
/// use posttrain_answer::short::ShortAnswer;
///
/// let rule = ShortAnswer::default();
/// let same = |reference, response| rule.compare(reference, response).map(|comparison| comparison.verdict.is_same());
/// assert!(same("12", "3 + 9 = 12")?);
/// assert!(same("12", "The answer is 12. 3 + 9 = 12")?);
/// assert!(!same("9", "7 8 9 10")?);
/// assert!(same("1/2", r"so \boxed{0.5}")?);
/// assert!(same("Paris", "The capital of France is Paris.")?);
/// assert!(!same("Paris", "Paris or London")?);
/// assert!(same("48 / 2 = 24 clips.\n#### 24", "24")?);
/// # Ok::<(), posttrain_answer::AnswerError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShortAnswer {
    /// How much of the response must be the answer. Default: what it ends on.
    pub strictness: Strictness,
    /// Where to look, in this order; not empty. Default: box, `####`, phrase, the text's end.
    /// Ignored under [`Strictness::WholeResponse`].
    pub order: Vec<Extraction>,
    /// How numbers are compared. Default: exactly.
    pub numeric: Numeric,
    /// How texts are compared. Default: without case and articles, symbols of up to two letters
    /// with case.
    #[serde(alias = "normaliser")]
    pub normalizer: Normalizer,
    /// Bytes at the response's end that are looked at, from 1 to 2²⁴. Default 65,536: far beyond a
    /// short answer, and milliseconds of work at worst.
    pub max_bytes: usize,
}

impl Default for ShortAnswer {
    fn default() -> Self {
        Self {
            strictness: Strictness::default(),
            order: USUAL_ORDER.to_vec(),
            numeric: Numeric::default(),
            normalizer: Normalizer::default(),
            max_bytes: 64 * 1024,
        }
    }
}

impl ShortAnswer {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`AnswerError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// use posttrain_answer::short::ShortAnswer;
    ///
    /// assert!(ShortAnswer::default().validate().is_ok());
    /// assert!(ShortAnswer { order: vec![], ..ShortAnswer::default() }.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), AnswerError> {
        self.numeric.validate()?;
        check_order(&self.order)?;
        check_bytes(self.max_bytes)
    }

    /// Compares the answer in a response with the reference.
    ///
    /// # Errors
    /// [`AnswerError::EmptyReference`], or [`AnswerError::BadReference`] where the reference is a
    /// solution without a mark or was damaged by an escape.
    ///
    /// ```
    /// use posttrain_answer::{Verdict, short::ShortAnswer};
    ///
    /// let comparison = ShortAnswer::default().compare("12", "The answer is 13.")?;
    /// assert_eq!((comparison.verdict, comparison.found.unwrap().text.as_str()), (Verdict::Different, "13"));
    /// # Ok::<(), posttrain_answer::AnswerError>(())
    /// ```
    pub fn compare(&self, reference: &str, response: &str) -> Result<Comparison, AnswerError> {
        let reference = short_reference(reference)?;
        let Some((answer, by)) = self.find(response) else {
            return Ok(Comparison::missing());
        };

        let verdict = Verdict::of(self.is_right(&answer, by, reference));
        Ok(Comparison { verdict, found: Some(Found { text: answer.into_owned(), by }) })
    }

    fn find<'t>(&self, response: &'t str) -> Option<(Cow<'t, str>, Extraction)> {
        let spoken = without_thinking(response)?;

        match self.strictness {
            Strictness::LastAnswer => extract(ending(spoken, self.max_bytes), &self.order),
            Strictness::WholeResponse if spoken.len() > self.max_bytes => None,
            Strictness::WholeResponse => extract(spoken, &[Extraction::Plain]),
        }
    }

    fn is_right(&self, answer: &str, by: Extraction, reference: &str) -> bool {
        let whole = by.delimits() || self.strictness == Strictness::WholeResponse;

        if let Some(wanted) = self.numeric.read(reference).filter(Quantity::is_plain) {
            let found = match whole {
                true => self.numeric.read(answer),
                false => last_number(answer, self.numeric.separators),
            };
            return found.is_some_and(|found| self.numeric.same(&found, &wanted));
        }

        if whole {
            self.normalizer.matches(answer, reference)
        } else {
            ends_on(answer, reference, &self.normalizer)
        }
    }
}
