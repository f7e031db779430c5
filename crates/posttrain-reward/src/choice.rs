//! Right where the response chooses the option that the reference names.

mod mention;
mod options;

use serde::{Deserialize, Serialize};

use crate::answer::{ending, without_thinking};
use crate::choice::mention::letter;
use crate::choice::options::{Options, from_metadata, from_question};
use crate::{Extraction, Normaliser, RewardError, Sample, Score, Truncated, Verifier, extract};

/// The reward of multiple-choice questions: 1 or 0.
///
/// **The options** are the texts under `options` in the sample's metadata, as an array (A, B, … in this order) or an object
/// (`{"A": "…"}`); else the lines of the question that begin with `A)`, `(A)`, `A.` or `A:`. Without either, letters are
/// compared alone.
///
/// **The reference** is a letter (`B`, `(B)`) or an option's own text.
///
/// **Where the answer is**: the first way in `order` that finds anything decides alone. A box or `####` line must be a
/// letter, a letter with its option's text, or an option's text. A phrase (`the answer is …`) must begin with one; in
/// plain text the last letter that stands as a choice counts, `(B)`, `B.`, `**B**`, `B)` or `option B`, or the option's text
/// that the response ends on. No answer is given by two letters (`A or B`), a letter that is denied (`not B`), one whose
/// text is another option's, a letter beyond the options, and the article `A`.
///
/// ```
/// use posttrain_reward::{ChoiceConfig, Sample, Verifier};
///
/// let verifier = ChoiceConfig::default().build()?;
/// let question = "Capital of France?\nA) London\nB) Paris\nC) Rome";
/// let value = |response: &str| verifier.verify(&Sample::new(question, "B", response)).map(|score| score.value());
/// assert_eq!(value("The answer is (B).")?, 1.0);
/// assert_eq!(value("It is Paris.")?, 1.0);
/// assert_eq!(value("A or B")?, 0.0);
/// assert_eq!(value("(B) London")?, 0.0);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChoiceConfig {
    /// Where to look, in this order; not empty. Default: box, `####`, phrase, the text's end.
    pub order: Vec<Extraction>,
    /// The metadata's key for the options. Default `options`.
    pub options: String,
    /// How option texts are compared. Default: without case and articles.
    pub normaliser: Normaliser,
    /// What a response is worth that was cut off. Default: what its text is worth.
    pub truncated: Truncated,
    /// Bytes at the response's end that are looked at, from 1 to 2²⁴. Default 65,536.
    pub max_bytes: usize,
}

impl Default for ChoiceConfig {
    fn default() -> Self {
        Self {
            order: vec![Extraction::Boxed, Extraction::Hashes, Extraction::Phrase, Extraction::Plain],
            options: "options".to_owned(),
            normaliser: Normaliser::default(),
            truncated: Truncated::default(),
            max_bytes: 64 * 1024,
        }
    }
}

impl ChoiceConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// use posttrain_reward::ChoiceConfig;
    ///
    /// assert!(ChoiceConfig { order: vec![], ..ChoiceConfig::default() }.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        let invalid = |field, got: String, expected| Err(RewardError::InvalidConfig { field, got, expected });
        if self.order.is_empty() {
            return invalid("order", "empty".to_owned(), "at least one way to find the answer");
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
    /// use posttrain_reward::{ChoiceConfig, Verifier};
    ///
    /// assert_eq!(ChoiceConfig::default().build()?.name(), "choice");
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn build(self) -> Result<Choice, RewardError> {
        self.validate()?;
        Ok(Choice { config: self })
    }
}

/// The verifier that [`ChoiceConfig`] describes and builds.
///
/// ```
/// use posttrain_reward::{Choice, ChoiceConfig, Sample, Verifier};
/// use serde_json::json;
///
/// let verifier: Choice = ChoiceConfig::default().build()?;
/// let mut sample = Sample::new("Capital of France?", "Paris", "**B**");
/// sample.metadata.insert("options".to_owned(), json!(["London", "Paris"]));
/// assert_eq!(verifier.verify(&sample)?.note(), Some("B, expected B"));
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    config: ChoiceConfig,
}

impl Verifier for Choice {
    fn name(&self) -> &str {
        "choice"
    }

    fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
        let reference = sample.checked_reference()?;
        let options = Options { texts: self.options(sample)?, normaliser: &self.config.normaliser };
        let wanted = options.whole(reference);
        let wanted = wanted.ok_or_else(|| sample.bad_reference("the letter or the text of one of the options"))?;
        if self.config.truncated == Truncated::Wrong && sample.termination.is_truncated() {
            return Ok(Score::binary(false).with_note("cut off"));
        }
        let spoken = without_thinking(&sample.response).map(|spoken| ending(spoken, self.config.max_bytes));
        let found = spoken.and_then(|spoken| extract(spoken, &self.config.order));
        let chosen = found.and_then(|(answer, way)| match way {
            Extraction::Phrase => options.first(&answer),
            _ if way.delimits() => options.whole(&answer),
            _ => options.last(&answer),
        });
        let name = |index: Option<usize>| index.map_or("none".to_owned(), |index| letter(index).to_string());
        let note = format!("{}, expected {}", name(chosen), letter(wanted));
        Ok(Score::binary(chosen == Some(wanted)).with_note(note))
    }
}

impl Choice {
    /// The options' texts, in the order of their letters; empty where none are given.
    fn options(&self, sample: &Sample) -> Result<Vec<String>, RewardError> {
        let Some(value) = sample.metadata.get(&self.config.options) else { return Ok(from_question(&sample.question)) };
        from_metadata(value).ok_or_else(|| RewardError::BadMetadata {
            id: sample.id.clone(),
            key: self.config.options.clone(),
            expected: "an array of at most 26 texts, or an object of texts by the letters A, B, … without a gap",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::ChoiceConfig;
    use crate::{Sample, Termination, Truncated, Verifier};
    use serde_json::json;

    const QUESTION: &str = "Capital of France?\nA) London\nB) Paris\nC) Rome\nD) Paris, Texas";

    fn value(question: &str, reference: &str, response: &str) -> f64 {
        let verifier = ChoiceConfig::default().build().unwrap();
        verifier.verify(&Sample::new(question, reference, response)).unwrap().value()
    }

    #[test]
    fn right_choices() {
        let responses = [
            "B",
            "b",
            "(B)",
            "B.",
            "B)",
            "**B**",
            "B) Paris",
            "(B) Paris",
            "B. Paris",
            "Paris",
            "paris.",
            "Answer: B",
            "The answer is B.",
            "The answer is (B) Paris.",
            "The correct answer is **B**.",
            "The answer is B because A is in England.",
            "The answer is option B.",
            "The answer is Paris.",
            "It is Paris.",
            r"\boxed{B}",
            r"\boxed{\text{B}}",
            r"\boxed{\text{(B) Paris}}",
            r"\boxed{\text{Paris}}",
            "#### B",
            "London is in England, so A is out. I choose (B).",
            "I ruled out A and C so I choose (B).",
            "A is wrong. The answer is B",
            "A) London: no.\nC) Rome: no.\n\nSo it must be option B.",
            "It is not A, it is B.",
            "<think>A or C?</think>B",
        ];
        for response in responses {
            assert_eq!(value(QUESTION, "B", response), 1.0, "{response}");
        }
    }

    #[test]
    fn what_earns_nothing() {
        let responses = [
            "A",
            "C",
            "A or B",
            "B or C",
            "A, B",
            "(A) and (B)",
            "The answer is A or B.",
            "The answer is B or C.",
            "The answer is not B.",
            "It is not B.",
            "(B) London",
            "B. Rome",
            "London",
            "Paris, Texas",
            "Paris or London",
            "B, no: C",
            "E",
            "Bob",
            "A capital of France",
            "",
            "<think>B",
            r"\boxed{A, B}",
            r"\boxed{B} or rather \boxed{C}",
            "I do not know",
            "(B) is wrong",
            "I would rule out (B)",
            "All but B",
        ];
        for response in responses {
            assert_eq!(value(QUESTION, "B", response), 0.0, "{response}");
        }
    }

    #[test]
    fn to_say_the_question_again_is_no_answer() {
        for list in ["A) London\nB) Paris\nC) Rome", "(A) London (B) Paris (C) Rome", "A. London, B. Paris, C. Rome"] {
            for response in [list.to_owned(), format!("{QUESTION}\n{list}"), format!("Let me see.\n{list}\n")] {
                assert_eq!(value(QUESTION, "C", &response), 0.0, "{response}");
            }
            assert_eq!(value(QUESTION, "C", &format!("{list}\nIt is C.")), 1.0, "{list}");
        }
        assert_eq!(value(QUESTION, "D", QUESTION), 0.0);
        assert_eq!(value(QUESTION, "B", "A) London is too far north.\nB) Paris"), 1.0);
    }

    #[test]
    fn the_reference_may_be_a_text() {
        assert_eq!(value(QUESTION, "Paris", "B"), 1.0);
        assert_eq!(value(QUESTION, "(b)", "The answer is B"), 1.0);
        assert_eq!(value("?", "A", "The answer is A."), 1.0);
        assert_eq!(value("?", "A", "A cat is an animal."), 0.0);
        let verifier = ChoiceConfig::default().build().unwrap();
        let cause = |question: &str, reference: &str| {
            verifier.verify(&Sample::new(question, reference, "B")).unwrap_err().cause()
        };
        assert_eq!(cause(QUESTION, "E"), "bad_reference");
        assert_eq!(cause(QUESTION, "Berlin"), "bad_reference");
        assert_eq!(cause(QUESTION, " "), "empty_reference");
    }

    #[test]
    fn options_come_from_the_metadata() {
        let verifier = ChoiceConfig::default().build().unwrap();
        let with = |options: serde_json::Value, response: &str| {
            let mut sample = Sample::new("?", "B", response);
            sample.metadata.insert("options".to_owned(), options);
            verifier.verify(&sample).map(|score| score.value()).map_err(|error| error.cause())
        };
        assert_eq!(with(json!(["4", "5"]), "It is 5"), Ok(1.0));
        assert_eq!(with(json!([4, 5]), "4"), Ok(0.0));
        assert_eq!(with(json!({"A": "x", "B": "y"}), "y"), Ok(1.0));
        assert_eq!(with(json!({"A": "x", "C": "y"}), "y"), Err("bad_metadata"));
        assert_eq!(with(json!("x"), "y"), Err("bad_metadata"));
        assert_eq!(with(json!(["x", "x"]), "x"), Ok(0.0), "two options have this text");
    }

    #[test]
    fn cut_off_and_hostile() {
        let strict = ChoiceConfig { truncated: Truncated::Wrong, ..ChoiceConfig::default() }.build().unwrap();
        let sample = Sample { termination: Termination::Length, ..Sample::new(QUESTION, "B", "B") };
        assert_eq!(strict.verify(&sample).unwrap().value(), 0.0);
        for fragment in ["(", "A ", "A or ", "\\", "{", "\\boxed{", "A)\n", "is A. ", "é"] {
            let text = fragment.repeat(60_000 / fragment.len());
            assert_eq!(value(QUESTION, "B", &text), 0.0, "{fragment}");
            let _ = strict.verify(&Sample::new(text.as_str(), "B", "B"));
        }
        assert!(ChoiceConfig { max_bytes: 0, ..ChoiceConfig::default() }.build().is_err());
    }
}
