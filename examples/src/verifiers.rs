//! The verifiers that examples know by name, and the rows that they verify.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;
use posttrain::reward::{RewardConfig, Sample, Verifier};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A verifier by its name on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VerifierKind {
    /// A number or a few words, where the response ends on it or marks it.
    Answer,
    /// A letter of a multiple choice.
    Choice,
    /// All of some phrases.
    ContainsAll,
    /// A response that is the reference to the letter.
    Exact,
    /// Words that overlap, as SQuAD counts them.
    F1,
    /// JSON, by a schema where the configuration has one.
    Json,
    /// A list or a set.
    List,
    /// Mathematics.
    Math,
    /// The reference but for case, articles and punctuation.
    #[value(alias = "normalised")]
    Normalized,
    /// A response that is a number and nothing else, within a tolerance (`answer` finds one in a
    /// text).
    Numeric,
    /// A pattern.
    Regex,
}

impl VerifierKind {
    /// The verifier, configured by a TOML file with the fields of its kind in [`RewardConfig`], or
    /// by default.
    ///
    /// # Errors
    /// Names the file and the field that is wrong.
    pub fn build(self, config: Option<&Path>) -> Result<Box<dyn Verifier>> {
        let mut fields = match config {
            Some(path) => read(path)?,
            None => toml::Table::new(),
        };
        let name = self
            .to_possible_value()
            .map(|value| value.get_name().replace('-', "_"))
            .unwrap_or_default();
        fields.insert("kind".to_owned(), name.into());

        let file = config.map_or("the defaults".to_owned(), |path| path.display().to_string());
        let config: RewardConfig = fields.try_into().with_context(|| format!("in {file}"))?;
        config.verifier()?.context("this reward is not a verifier")
    }
}

fn read(path: &Path) -> Result<toml::Table> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;

    text.parse().with_context(|| format!("in {}", path.display()))
}

/// A line of the input: a sample whose metadata is all that the row has beside the fields that are
/// named.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object with `reference` and `response`")]
pub struct Row {
    #[serde(default)]
    id: String,
    #[serde(default)]
    domain: String,
    #[serde(default)]
    question: String,
    reference: String,
    response: String,
    #[serde(flatten)]
    metadata: Map<String, Value>,
}

impl Row {
    /// The sample; one without an id is called by its line.
    #[must_use]
    pub fn into_sample(self, line: usize) -> Sample {
        let Self { id, domain, question, reference, response, metadata } = self;
        let id = if id.is_empty() { format!("line {line}") } else { id };
        Sample { id, domain, metadata, ..Sample::new(question, reference, response) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Row, VerifierKind};
    use clap::ValueEnum;
    use posttrain::reward::Sample;
    use serde::Deserialize;
    use serde_json::Value;

    /// What `verify` and `judge --audit` have in common is this table; every name in it is a
    /// verifier.
    #[test]
    fn every_name_is_a_verifier() {
        for kind in VerifierKind::value_variants() {
            if *kind == VerifierKind::Regex {
                continue;
            }
            let verifier = kind.build(None).unwrap();
            let name = kind.to_possible_value().unwrap().get_name().to_owned();
            assert!(!verifier.name().is_empty(), "{name}");
        }
    }

    /// What users of other tools have reported, with the right outcome.
    #[test]
    fn reported_responses_are_worth_what_they_should_be() {
        #[derive(Deserialize)]
        struct Case {
            id: String,
            verifier: String,
            reference: String,
            response: String,
            expected: Value,
        }

        let cases = include_str!("../tests/fixtures/reported_verify.jsonl");
        let mut count = 0;
        for line in cases.lines() {
            let case: Case = serde_json::from_str(line).unwrap();
            let verifier =
                VerifierKind::from_str(&case.verifier, false).unwrap().build(None).unwrap();
            let sample = Sample::new("", &case.reference, &case.response);
            let reward = verifier.verify(&sample).map(|score| score.value()).ok();
            match case.expected.as_f64() {
                Some(expected) => assert_eq!(reward, Some(expected), "{}", case.id),
                // 1 or an error, never a silent 0.
                None => assert_ne!(reward, Some(0.0), "{}", case.id),
            }
            count += 1;
        }
        assert_eq!(count, 9);
    }

    #[test]
    fn what_a_row_has_beside_is_metadata() {
        let row = r#"{"id": "7", "reference": "B", "response": "(B)", "options": ["1", "2"], "domain": "law"}"#;
        let sample = serde_json::from_str::<Row>(row).unwrap().into_sample(3);
        assert_eq!((sample.id.as_str(), sample.domain.as_str()), ("7", "law"));
        assert_eq!(sample.metadata["options"][1], "2");
        let verifier = VerifierKind::Choice.build(None).unwrap();
        assert_eq!(verifier.verify(&sample).unwrap().value(), 1.0);
    }

    #[test]
    fn a_row_without_an_id_is_called_by_its_line() {
        let row: Row = serde_json::from_str(r#"{"reference": "4", "response": "5"}"#).unwrap();
        assert_eq!(row.into_sample(3).id, "line 3");
        let error = serde_json::from_str::<Row>("[]").unwrap_err().to_string();
        assert!(error.contains("expected an object with `reference` and `response`"), "{error}");
    }
}
