//! Right where the response's JSON is the reference's.

use jsonschema::{PatternOptions, Validator};
use posttrain_answer::json::{Json, find};
use posttrain_answer::response::{ending, without_thinking};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{RewardError, Sample, Score, Verifier};

/// Whether the response's JSON has the reference's value, by [`Json`], which says what is the same,
/// and where in the response the JSON is.
///
/// With a `schema`, a response that does not conform is wrong, whatever its value; a reference that
/// does not is an error. In a file the fields of `rule` stand beside the others:
/// `relative_tolerance = 0.01`.
///
/// ```
/// use posttrain_reward::verifiers::JsonConfig;
/// use posttrain_reward::{Sample, Verifier};
///
/// let verifier = JsonConfig::default().build()?;
/// let reference = r#"{"name": "Ada", "born": 1815}"#;
/// let value = |response: &str| verifier.verify(&Sample::new("?", reference, response)).map(|score| score.value());
/// assert_eq!(value("Here it is:\n```json\n{\"born\": 1815.0, \"name\": \"Ada\"}\n```")?, 1.0);
/// assert_eq!(value(r#"{"name": "Ada", "born": "1815"}"#)?, 0.0);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JsonConfig {
    /// When two values are the same.
    #[serde(flatten)]
    pub rule: Json,
    /// A JSON schema that the response must conform to; references to other documents are not
    /// followed. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
}

impl JsonConfig {
    /// Checks the ranges and the schema.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the first field that is out of its range, or a schema
    /// that is none.
    ///
    /// ```
    /// use posttrain_reward::verifiers::JsonConfig;
    ///
    /// let config = JsonConfig { schema: Some(serde_json::json!({"type": "numbr"})), ..JsonConfig::default() };
    /// assert!(config.validate().unwrap_err().to_string().starts_with("`schema` is"));
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        self.validator().map(|_| ())
    }

    /// The verifier.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    ///
    /// ```
    /// use posttrain_reward::{Verifier, verifiers::JsonConfig};
    ///
    /// assert_eq!(JsonConfig::default().build()?.name(), "json");
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn build(self) -> Result<JsonMatch, RewardError> {
        let validator = self.validator()?;
        Ok(JsonMatch { config: self, validator })
    }

    fn validator(&self) -> Result<Option<Validator>, RewardError> {
        self.rule.validate().map_err(RewardError::invalid_rule)?;
        let Some(schema) = &self.schema else { return Ok(None) };

        // The linear engine: a pattern in a schema must not be a way to hang on a text.
        let validator =
            jsonschema::options().with_pattern_options(PatternOptions::regex()).build(schema);
        validator.map(Some).map_err(|_| RewardError::InvalidConfig {
            field: "schema",
            got: schema.to_string().chars().take(80).collect(),
            expected: "a JSON schema",
        })
    }
}

/// The verifier that [`JsonConfig`] describes and builds.
///
/// ```
/// use posttrain_reward::verifiers::{JsonConfig, JsonMatch};
/// use posttrain_reward::{Sample, Verifier};
///
/// let verifier: JsonMatch = JsonConfig::default().build()?;
/// let score = verifier.verify(&Sample::new("?", "[1, 2]", "I do not know."))?;
/// assert_eq!((score.value(), score.note()), (0.0, Some("no JSON found")));
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone)]
pub struct JsonMatch {
    config: JsonConfig,
    validator: Option<Validator>,
}

impl Verifier for JsonMatch {
    fn name(&self) -> &str {
        "json"
    }

    fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
        let rule = &self.config.rule;
        let spoken =
            without_thinking(&sample.response).map(|spoken| ending(spoken, rule.max_bytes));
        let answer = spoken.and_then(find);

        // Compared first, also where there is no answer: a reference that is no JSON is an error
        // whatever the response.
        let same = rule.same(&sample.reference, answer.unwrap_or_default());
        let same = same.map_err(|error| sample.refused(error))?;
        if !self.conforms(&sample.reference) {
            return Err(sample.bad_reference("JSON that conforms to `schema`"));
        }

        match answer {
            None => Ok(Score::binary(false).with_note("no JSON found")),
            Some(answer) if !self.conforms(answer) => {
                Ok(Score::binary(false).with_note("does not conform to the schema"))
            }
            Some(_) => Ok(Score::binary(same)),
        }
    }
}

impl JsonMatch {
    fn conforms(&self, json: &str) -> bool {
        let Some(validator) = &self.validator else { return true };

        serde_json::from_str(json).is_ok_and(|value| validator.is_valid(&value))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::JsonConfig;
    use crate::{Sample, Verifier};

    fn value(config: JsonConfig, reference: &str, response: &str) -> f64 {
        config.build().unwrap().verify(&Sample::new("?", reference, response)).unwrap().value()
    }

    #[test]
    fn schemas_are_kept() {
        let schema =
            json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
        let config = JsonConfig { schema: Some(schema), ..JsonConfig::default() };
        assert_eq!(value(config.clone(), r#"{"a": 1}"#, r#"{"a": 1}"#), 1.0);
        assert_eq!(value(config.clone(), r#"{"a": 1}"#, r#"{"a": "1"}"#), 0.0);
        let error =
            config.build().unwrap().verify(&Sample::new("?", r#"{"b": 1}"#, "{}")).unwrap_err();
        assert_eq!(error.cause(), "bad_reference");
        let remote = json!({"$ref": "https://example.com/schema.json"});
        assert!(JsonConfig { schema: Some(remote), ..JsonConfig::default() }.build().is_err());
    }

    #[test]
    fn a_bad_reference_is_an_error_whatever_the_response() {
        let verifier = JsonConfig::default().build().unwrap();
        for response in ["", "{}", "no"] {
            let error = verifier.verify(&Sample::new("?", "{a: 1}", response)).unwrap_err();
            assert_eq!(error.cause(), "bad_reference", "{response}");
        }
    }
}
