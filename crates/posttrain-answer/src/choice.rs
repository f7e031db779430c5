//! Which option of a multiple choice a response chooses.

mod mention;
mod options;

use serde::{Deserialize, Serialize};

use crate::extraction::{USUAL_ORDER, check_bytes, check_order, extract};
use crate::reference::checked_reference;
use crate::response::{ending, without_thinking};
use crate::text::Normalizer;
use crate::{AnswerError, Extraction, Verdict};
use mention::letter;
pub use options::Options;

/// When a response chooses the option that the reference names.
///
/// **The reference** is a letter (`B`, `(B)`) or an option's own text.
///
/// **Where the answer is**: the first way in `order` that finds anything decides alone. A box or
/// `####` line must be a letter, a letter with its option's text, or an option's text. A phrase
/// (`the answer is …`) must begin with one, after what it denies (`not C but B`); in plain text the
/// last letter that stands as a choice counts, `(B)`, `B.`, `**B**`, `B)` or `option B`, or the
/// option's text that the response ends on. A lower-case letter is one where a word or a bracket
/// says so (`ANSWER: c`, `option c`, `(c)`); in scripts without blanks a letter may touch other
/// signs (`故选B。`). No answer is given by two letters (`A or B`), a letter that is denied (`not B`,
/// `不是B`), one whose text is another option's, a letter beyond the options, and the article `A`.
///
/// ```
/// use posttrain_answer::choice::{Choice, Options};
///
/// let options = Options::in_question("Capital of France?\nA) London\nB) Paris\nC) Rome");
/// let choice = Choice::default();
/// let same = |response: &str| choice.compare("B", response, &options).map(|comparison| comparison.verdict().is_same());
/// assert!(same("The answer is (B).")?);
/// assert!(same("It is Paris.")?);
/// assert!(!same("A or B")?);
/// assert!(!same("(B) London")?);
/// # Ok::<(), posttrain_answer::AnswerError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Choice {
    /// Where to look, in this order; not empty. Default: box, `####`, phrase, the text's end.
    pub order: Vec<Extraction>,
    /// How option texts are compared. Default: without case and articles.
    #[serde(alias = "normaliser")]
    pub normalizer: Normalizer,
    /// Bytes at the response's end that are looked at, from 1 to 2²⁴. Default 65,536.
    pub max_bytes: usize,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            order: USUAL_ORDER.to_vec(),
            normalizer: Normalizer::default(),
            max_bytes: 64 * 1024,
        }
    }
}

/// What was asked for, and what was chosen.
///
/// ```
/// use posttrain_answer::choice::{Choice, Options};
///
/// let comparison = Choice::default().compare("(a)", "I choose B.", &Options::unknown())?;
/// assert_eq!((comparison.expected, comparison.chosen), ('A', Some('B')));
/// assert!(!comparison.verdict().is_same());
/// # Ok::<(), posttrain_answer::AnswerError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct ChoiceComparison {
    /// The reference's letter.
    pub expected: char,
    /// The response's, if it chooses one.
    pub chosen: Option<char>,
}

impl ChoiceComparison {
    /// Whether the two are the same.
    ///
    /// ```
    /// use posttrain_answer::{Verdict, choice::ChoiceComparison};
    ///
    /// assert_eq!(ChoiceComparison { expected: 'A', chosen: None }.verdict(), Verdict::Missing);
    /// ```
    #[must_use]
    pub fn verdict(self) -> Verdict {
        match self.chosen {
            None => Verdict::Missing,
            Some(chosen) => Verdict::of(chosen == self.expected),
        }
    }
}

impl Choice {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`AnswerError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// use posttrain_answer::choice::Choice;
    ///
    /// assert!(Choice { order: vec![], ..Choice::default() }.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), AnswerError> {
        check_order(&self.order)?;
        check_bytes(self.max_bytes)
    }

    /// Reads both sides' choices among `options`.
    ///
    /// # Errors
    /// [`AnswerError::EmptyReference`], or [`AnswerError::BadReference`] where the reference names
    /// no option.
    ///
    /// ```
    /// use posttrain_answer::choice::{Choice, Options};
    ///
    /// let options = Options::new(["London", "Paris"]).unwrap();
    /// assert_eq!(Choice::default().compare("Paris", "**B**", &options)?.chosen, Some('B'));
    /// assert!(Choice::default().compare("Rome", "**B**", &options).is_err());
    /// # Ok::<(), posttrain_answer::AnswerError>(())
    /// ```
    pub fn compare(
        &self,
        reference: &str,
        response: &str,
        options: &Options,
    ) -> Result<ChoiceComparison, AnswerError> {
        let reference = checked_reference(reference)?;
        let Some(expected) = options.whole(reference, &self.normalizer) else {
            return Err(AnswerError::bad_reference(
                reference,
                "the letter or the text of one of the options",
            ));
        };

        let chosen = self.chosen(response, options);
        Ok(ChoiceComparison { expected: letter(expected), chosen: chosen.map(letter) })
    }

    /// The option that a response chooses.
    fn chosen(&self, response: &str, options: &Options) -> Option<usize> {
        let spoken = ending(without_thinking(response)?, self.max_bytes);
        let (answer, way) = extract(spoken, &self.order)?;

        match way {
            Extraction::Phrase => options.first(&answer, &self.normalizer),
            _ if way.delimits() => options.whole(&answer, &self.normalizer),
            _ => options.last(&answer, &self.normalizer),
        }
    }
}
