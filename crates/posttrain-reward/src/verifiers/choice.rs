//! Right where the response chooses the option that the reference names.

use posttrain_answer::choice::{Choice, Options};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{RewardError, Sample, Score, Truncated, Verifier};

/// The reward of multiple-choice questions: 1 or 0, by [`Choice`], which says where the answer is
/// and what earns nothing.
///
/// **The options** are the texts under `options` in the sample's metadata, as an array (A, B, … in
/// this order) or an object (`{"A": "…"}`); else the lines of the question that begin with `A)`,
/// `(A)`, `A.` or `A:`. Without either, letters are compared alone. **The reference** is a letter
/// (`B`, `(B)`) or an option's own text.
///
/// ```
/// use posttrain_reward::verifiers::ChoiceConfig;
/// use posttrain_reward::{Sample, Verifier};
///
/// let verifier = ChoiceConfig::default().build()?;
/// let question = "Capital of France?\nA) London\nB) Paris\nC) Rome";
/// let value = |response: &str| verifier.verify(&Sample::new(question, "B", response)).map(|score| score.value());
/// assert_eq!(value("The answer is (B).")?, 1.0);
/// assert_eq!(value("A or B")?, 0.0);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChoiceConfig {
    /// Where the answer is.
    #[serde(flatten)]
    pub rule: Choice,
    /// The metadata's key for the options. Default `options`.
    pub options: String,
    /// What a response is worth that was cut off. Default: what its text is worth.
    pub truncated: Truncated,
}

impl Default for ChoiceConfig {
    fn default() -> Self {
        Self {
            rule: Choice::default(),
            options: "options".to_owned(),
            truncated: Truncated::default(),
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
    /// use posttrain_reward::verifiers::ChoiceConfig;
    ///
    /// let mut config = ChoiceConfig::default();
    /// config.rule.order.clear();
    /// assert!(config.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        self.rule.validate().map_err(RewardError::invalid_rule)
    }

    /// The verifier.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    ///
    /// ```
    /// use posttrain_reward::{Verifier, verifiers::ChoiceConfig};
    ///
    /// assert_eq!(ChoiceConfig::default().build()?.name(), "choice");
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn build(self) -> Result<ChoiceMatch, RewardError> {
        self.validate()?;
        Ok(ChoiceMatch { config: self })
    }
}

/// The verifier that [`ChoiceConfig`] describes and builds.
///
/// ```
/// use posttrain_reward::verifiers::{ChoiceConfig, ChoiceMatch};
/// use posttrain_reward::{Sample, Verifier};
/// use serde_json::json;
///
/// let verifier: ChoiceMatch = ChoiceConfig::default().build()?;
/// let mut sample = Sample::new("Capital of France?", "Paris", "**B**");
/// sample.metadata.insert("options".to_owned(), json!(["London", "Paris"]));
/// assert_eq!(verifier.verify(&sample)?.note(), Some("B, expected B"));
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ChoiceMatch {
    config: ChoiceConfig,
}

impl Verifier for ChoiceMatch {
    fn name(&self) -> &str {
        "choice"
    }

    fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
        let options = self.options(sample)?;
        let comparison = self.config.rule.compare(&sample.reference, &sample.response, &options);
        let comparison = comparison.map_err(|error| sample.refused(error))?;
        if let Some(score) = self.config.truncated.score(sample) {
            return Ok(score);
        }

        let chosen = comparison.chosen.map_or("none".to_owned(), String::from);
        let note = format!("{chosen}, expected {}", comparison.expected);
        Ok(Score::binary(comparison.verdict().is_same()).with_note(note))
    }
}

impl ChoiceMatch {
    fn options(&self, sample: &Sample) -> Result<Options, RewardError> {
        let Some(value) = sample.metadata.get(&self.config.options) else {
            return Ok(Options::in_question(&sample.question));
        };

        let texts = texts(value).and_then(Options::new);
        texts.ok_or_else(|| RewardError::BadMetadata {
            id: sample.id.clone(),
            key: self.config.options.clone(),
            expected: "an array of at most 26 texts, or an object of texts by the letters A, B, … without a gap",
        })
    }
}

/// The options' texts, in the order of their letters.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(texts) => texts.iter().map(text).collect(),
        Value::Object(texts) => {
            let letters = ('A'..='Z').take(texts.len());
            let by_letter = letters.map(|letter| texts.get(&letter.to_string()).and_then(text));
            let by_letter: Option<Vec<String>> = by_letter.collect();
            by_letter.filter(|by_letter| by_letter.len() == texts.len())
        }
        _ => None,
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use posttrain_chat::FinishReason;
    use serde_json::json;

    use super::ChoiceConfig;
    use crate::{Sample, Truncated, Verifier};

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
        assert_eq!(with(json!([]), "y"), Err("bad_metadata"));
        assert_eq!(with(json!(["x", "x"]), "x"), Ok(0.0), "two options have this text");
    }

    #[test]
    fn a_reference_must_name_an_option() {
        let verifier = ChoiceConfig::default().build().unwrap();
        let question = "Capital of France?\nA) London\nB) Paris";
        let cause = |reference: &str| {
            verifier.verify(&Sample::new(question, reference, "B")).unwrap_err().cause()
        };
        assert_eq!(
            (cause("E"), cause("Berlin"), cause(" ")),
            ("bad_reference", "bad_reference", "empty_reference")
        );
    }

    #[test]
    fn cut_off() {
        let strict = ChoiceConfig { truncated: Truncated::Wrong, ..ChoiceConfig::default() }
            .build()
            .unwrap();
        let sample = Sample { termination: FinishReason::Length, ..Sample::new("?", "B", "B") };
        assert_eq!(strict.verify(&sample).unwrap().value(), 0.0);
    }
}
