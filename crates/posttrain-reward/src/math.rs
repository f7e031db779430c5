//! Right where the response's answer is the reference's, as mathematics.

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

use crate::answer::{ending, without_thinking};
use crate::final_phrase::ends_on;
use crate::{
    Case, Extraction, Normaliser, Percent, RewardError, Sample, Score, Separators, Truncated, Units, Verifier,
};
use same::Rules;
use same_number::Sameness;
use token::Unread;
use value::Value;

/// What a response is worth whose answer is not of the grammar that is read, or longer, deeper or larger than what is read.
///
/// ```
/// use posttrain_reward::{MathConfig, Sample, Unreadable, Verifier};
///
/// let sample = Sample::new("?", "5", r"\boxed{\int 2x}");
/// let wrong = MathConfig::default().build()?;
/// assert_eq!(wrong.verify(&sample)?.value(), 0.0);
/// let undecided = MathConfig { unreadable: Unreadable::Undecided, ..MathConfig::default() }.build()?;
/// assert_eq!(undecided.verify(&sample).unwrap_err().cause(), "undecided");
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unreadable {
    /// Nothing, as in math-verify: the policy is to write answers that can be read.
    #[default]
    Wrong,
    /// [`RewardError::Undecided`], so that something else may look at it.
    Undecided,
}

/// The reward of questions whose answer is mathematics: 1 or 0.
///
/// **What is read**, as LaTeX or plain text: integers, decimals, scientific notation, fractions, mixed numbers, percent,
/// roots, powers, factorials, binomials, π, e, i, the elementary functions, absolute values, floor and ceiling; formulas;
/// sets, lists (`1, 2`, `1 and 2`, `1 or 2`), `±`, tuples, intervals, `∪`, `∩`, `∖`, `ℝ` and its like; matrices and
/// determinants; equations, inequalities and chains of them; words (`\text{even}`), with units, currencies and degrees.
///
/// **Where the answer is**: the first way in `order` that finds anything decides alone. Boxes that only `and`, `or` and
/// commas part are one answer with several members. In plain text, the last formula or number counts, never an earlier one;
/// none where it is denied (`it is not 12`).
///
/// **When it is right**:
///
/// - *Numbers and formulas* by their value: `\frac{2}{\sqrt 2}` is `\sqrt 2`, `(x-1)(x+1)` is `x^2-1`, `\sin\frac{\pi}{6}`
///   is `0.5`. Rational numbers, polynomials, rational expressions and surds are decided exactly, the rest in 256 bits
///   at several points, where two values less than `2^-150` (relative to the largest term) apart count as the same.
/// - *Decimals* to `decimals` places, and to three digits: `0.333333` is `1/3`. Nothing is rounded to a whole number.
/// - *Sets and lists* in any order, *tuples* in theirs; a list for a tuple in the tuple's order.
/// - *Equations* where they are multiples of each other; `x = 5` for `5` and `5` for `x = 5`, but not `y = 5` for `x = 5`.
///   For an inequality, its solutions as an interval, but never the inequality for the interval, which may be the question;
///   for the same reason, nothing unsolved for what is solved: not `2x = 10` for `x = 5`, nor `x - 3 > 0` for `x > 3`.
/// - *Units* where they do not contradict: `5` and `5 \text{ cm}`, but not `5 m` and `5 cm`.
///
/// What is beyond the bounds of time and size (8 KiB, 48 levels, 400 digits, `20000!`) is [`RewardError::Undecided`].
/// A reference that cannot be read is [`RewardError::BadReference`]. After `math-verify` 0.9.0 (Kydlíček, Hugging Face),
/// with which it agrees on 97% and more of `tests/fixtures/math_verify`; each disagreement is listed there with its reason.
///
/// ```
/// use posttrain_reward::{MathConfig, Sample, Verifier};
///
/// let verifier = MathConfig::default().build()?;
/// let value = |reference: &str, response: &str| {
///     verifier.verify(&Sample::new("?", reference, response)).map(|score| score.value())
/// };
/// assert_eq!(value(r"\frac{1}{2}", r"So it is \boxed{0.5}.")?, 1.0);
/// assert_eq!(value("x^2 - 1", "The answer is $(x-1)(x+1)$.")?, 1.0);
/// assert_eq!(value(r"(-\infty, 0) \cup (0, \infty)", r"\boxed{\mathbb{R} \setminus \{0\}}")?, 1.0);
/// assert_eq!(value("2", r"\boxed{1 \text{ or } 2}")?, 0.0);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MathConfig {
    /// Where to look, in this order; not empty. Default: box, `####`, phrase, the text's end.
    pub order: Vec<Extraction>,
    /// Places to which a decimal must be rounded right, from 0 to 100. Default 6, math-verify's `float_rounding`.
    pub decimals: u32,
    /// What `,` and `.` mean. Default: `1,234.5`.
    pub separators: Separators,
    /// What `%` means. Default: either reading.
    pub percent: Percent,
    /// What words after a number are worth. Default: optional, not contradicted.
    pub units: Units,
    /// What a response is worth that was cut off. Default: what its text is worth.
    pub truncated: Truncated,
    /// What a response is worth whose answer cannot be read. Default: nothing, as in math-verify.
    pub unreadable: Unreadable,
    /// Bytes at the response's end that are looked at, from 1 to 2²⁴. Default 65,536, as in
    /// [`AnswerConfig`](crate::AnswerConfig).
    pub max_bytes: usize,
}

impl Default for MathConfig {
    fn default() -> Self {
        Self {
            order: vec![Extraction::Boxed, Extraction::Hashes, Extraction::Phrase, Extraction::Plain],
            decimals: 6,
            separators: Separators::default(),
            percent: Percent::default(),
            units: Units::default(),
            truncated: Truncated::default(),
            unreadable: Unreadable::default(),
            max_bytes: 64 * 1024,
        }
    }
}

impl MathConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// use posttrain_reward::MathConfig;
    ///
    /// assert!(MathConfig::default().validate().is_ok());
    /// assert!(MathConfig { decimals: 1000, ..MathConfig::default() }.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        let invalid = |field, got: String, expected| Err(RewardError::InvalidConfig { field, got, expected });
        if self.order.is_empty() {
            return invalid("order", "empty".to_owned(), "at least one way to find the answer");
        }
        if self.decimals > 100 {
            return invalid("decimals", self.decimals.to_string(), "from 0 to 100");
        }
        if !(1..=1 << 24).contains(&self.max_bytes) {
            return invalid("max_bytes", self.max_bytes.to_string(), "from 1 to 16777216");
        }
        Ok(())
    }

    /// The verifier.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    ///
    /// ```
    /// use posttrain_reward::{MathConfig, Sample, Verifier};
    ///
    /// let verifier = MathConfig::default().build()?;
    /// assert_eq!(verifier.verify(&Sample::new("?", r"2\sqrt{3}", r"\boxed{\sqrt{12}}"))?.value(), 1.0);
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn build(self) -> Result<MathMatch, RewardError> {
        self.validate()?;
        Ok(MathMatch { config: self })
    }
}

/// The verifier that [`MathConfig`] describes and builds.
///
/// The score's note says what was compared.
///
/// ```
/// use posttrain_reward::{MathConfig, Sample, Verifier};
///
/// let score = MathConfig::default().build()?.verify(&Sample::new("?", "5", r"\boxed{6}"))?;
/// assert_eq!(score.note(), Some("`6`, expected `5`"));
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct MathMatch {
    config: MathConfig,
}

const NAME: &str = "math";

impl Verifier for MathMatch {
    fn name(&self) -> &str {
        NAME
    }

    fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
        let MathConfig { separators, order, .. } = &self.config;
        let reference = sample.checked_reference()?;
        let wanted = find::reference(reference, *separators).map_err(|unread| match unread {
            Unread::Syntax => sample.bad_reference("mathematics that can be read"),
            Unread::Bound(expected) => sample.bad_reference(expected),
        })?;
        if self.config.truncated == Truncated::Wrong && sample.termination.is_truncated() {
            return Ok(Score::binary(false).with_note("cut off"));
        }
        let spoken = without_thinking(&sample.response).map(|spoken| ending(spoken, self.config.max_bytes));
        let Some((text, answer)) = spoken.and_then(|spoken| find::find(spoken, order, *separators)) else {
            return self.unreadable(sample, "no answer found");
        };
        let note = || format!("`{}`, expected `{}`", ending(&text, 80), ending(reference, 80));
        match (answer, &wanted) {
            (Ok(answer), _) => match self.rules().same(&wanted, &answer) {
                // What is asked for is a plain number: that the answer's value cannot be told is the answer's fault.
                Sameness::Unknown(reason) if wanted.is_number() => self.unreadable(sample, reason),
                Sameness::Unknown(reason) => Err(sample.undecided(NAME, reason)),
                Sameness::Different if ends_on_words(&text, &wanted) => Ok(Score::binary(true).with_note(note())),
                sameness => Ok(Score::binary(sameness == Sameness::Same).with_note(note())),
            },
            (Err(_), wanted) if ends_on_words(&text, wanted) => Ok(Score::binary(true).with_note(note())),
            (Err(Unread::Syntax), _) => self.unreadable(sample, "the answer cannot be read"),
            // Were it an error, a policy could write such an answer wherever it knows none.
            (Err(Unread::Bound(reason)), _) => self.unreadable(sample, reason),
        }
    }
}

impl MathMatch {
    fn rules(&self) -> Rules {
        let MathConfig { decimals, percent, units, .. } = self.config;
        Rules { decimals, percent, units }
    }

    fn unreadable(&self, sample: &Sample, reason: &'static str) -> Result<Score, RewardError> {
        match self.config.unreadable {
            Unreadable::Wrong => Ok(Score::binary(false).with_note(reason)),
            Unreadable::Undecided => Err(sample.undecided(NAME, reason)),
        }
    }
}

/// Whether a text ends on the words that are asked for: `It is Evelyn.`
fn ends_on_words(text: &str, wanted: &Value) -> bool {
    let normaliser = Normaliser { case: Case::Insensitive, ..Normaliser::default() };
    matches!(wanted, Value::Text(words) if ends_on(text, words, &normaliser))
}
