//! The verifiers that examples know by name, and the rows that they verify.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use posttrain::reward::{
    AnswerConfig, ChoiceConfig, ContainsConfig, ExactMatch, JsonConfig, ListConfig, MathConfig, NormalisedMatch,
    NumericConfig, RegexConfig, Sample, TokenF1, Verifier,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
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
    Normalised,
    /// A response that is a number and nothing else, within a tolerance (`answer` finds one in a text).
    Numeric,
    /// A pattern.
    Regex,
}

impl VerifierKind {
    /// The verifier, configured by a TOML file with the fields of its config (`MathConfig`, `ListConfig`, …), or by default.
    ///
    /// # Errors
    /// Names the file and the field that is wrong, or says that there is nothing to configure.
    pub fn build(self, config: Option<&Path>) -> Result<Box<dyn Verifier>> {
        Ok(match self {
            Self::Answer => Box::new(read::<AnswerConfig>(config)?.build()?),
            Self::Choice => Box::new(read::<ChoiceConfig>(config)?.build()?),
            Self::ContainsAll => Box::new(read::<ContainsConfig>(config)?.build()?),
            Self::Json => Box::new(read::<JsonConfig>(config)?.build()?),
            Self::List => Box::new(read::<ListConfig>(config)?.build()?),
            Self::Math => Box::new(read::<MathConfig>(config)?.build()?),
            Self::Numeric => Box::new(read::<NumericConfig>(config)?.build()?),
            Self::Regex => Box::new(read::<RegexConfig>(config)?.build()?),
            Self::Exact | Self::F1 | Self::Normalised if config.is_some() => {
                bail!("this verifier has nothing to configure")
            }
            Self::Exact => Box::new(ExactMatch),
            Self::F1 => Box::new(TokenF1),
            Self::Normalised => Box::new(NormalisedMatch::default()),
        })
    }
}

fn read<C: DeserializeOwned + Default>(path: Option<&Path>) -> Result<C> {
    let Some(path) = path else { return Ok(C::default()) };
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("in {}", path.display()))
}

/// A line of the input: a sample whose metadata is all that the row has beside the fields that are named.
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

    /// What `verify` and `judge --audit` have in common is this table; every name in it is a verifier.
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
