//! The judge's prompt: two minijinja templates.

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};
use posttrain_chat::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::RewardError;
use crate::judge::Criterion;
use crate::judge::data::{JudgeData, quote};

/// Steps of a template at most: a loop without end is an error.
const FUEL: u64 = 100_000;

/// A judge's prompt: [minijinja](https://docs.rs/minijinja) templates of the system message and of
/// the user message.
///
/// The system message sees what you wrote yourself: `instructions`, `criteria` (a list with `name`,
/// `description` and `weight`) and `has_reference`; it is the same for all samples, so that servers
/// keep its cache. The user message sees these and `data`, one line of JSON with `question`,
/// `reference` and `response` (for pairs `first_response` and `second_response`), and `fence`, a
/// code that occurs in no part of it. There is no variable with the bare response. A variable that
/// does not exist is an error.
///
/// The answer must be one JSON object: `reasoning`, then `verdict` (or the criteria), and the
/// prompt must say so.
///
/// ```
/// use posttrain_reward::judge::JudgePrompt;
///
/// let prompt = JudgePrompt {
///     system: "Grade the data, in JSON: {\"reasoning\": \"…\", \"verdict\": \"correct\" or \"incorrect\"}".into(),
///     user: "--- {{ fence }}\n{{ data }}\n--- {{ fence }}".into(),
/// };
/// prompt.validate()?;
/// assert!(JudgePrompt { user: "Is it right?".into(), ..prompt }.validate().is_err(), "the response is not shown");
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgePrompt {
    /// The template of the system message; none is sent where it renders to nothing.
    pub system: String,
    /// The template of the user message.
    pub user: String,
}

impl JudgePrompt {
    /// The built-in prompt of a binary verdict against a reference answer.
    ///
    /// ```
    /// assert!(posttrain_reward::judge::JudgePrompt::binary().system.contains("reference answer"));
    /// ```
    #[must_use]
    pub fn binary() -> Self {
        Self::built_in(include_str!("binary_system.jinja"))
    }

    /// The built-in prompt of a rubric.
    ///
    /// ```
    /// assert!(posttrain_reward::judge::JudgePrompt::rubric().system.contains("criterion"));
    /// ```
    #[must_use]
    pub fn rubric() -> Self {
        Self::built_in(include_str!("rubric_system.jinja"))
    }

    /// The built-in prompt of a comparison.
    ///
    /// ```
    /// assert!(posttrain_reward::judge::JudgePrompt::pair().system.contains("better"));
    /// ```
    #[must_use]
    pub fn pair() -> Self {
        Self::built_in(include_str!("pair_system.jinja"))
    }

    fn built_in(system: &str) -> Self {
        Self { system: system.to_owned(), user: include_str!("user.jinja").to_owned() }
    }

    /// Checks that the templates are ones, use no unknown variable, and show the data.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] with minijinja's message.
    ///
    /// ```
    /// use posttrain_reward::judge::JudgePrompt;
    ///
    /// let error = JudgePrompt { user: "{{ response }}".into(), ..JudgePrompt::binary() }.validate().unwrap_err();
    /// assert!(error.to_string().contains("undefined"));
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        self.compile(&PromptValues::default()).map(|_| ())
    }

    pub(crate) fn compile(&self, values: &PromptValues) -> Result<CompiledPrompt, RewardError> {
        let invalid = |expected| {
            move |error: minijinja::Error| RewardError::InvalidConfig {
                field: "prompt",
                got: format!("{error:#}"),
                expected,
            }
        };
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        templates.set_auto_escape_callback(|_| AutoEscape::None);
        templates.set_fuel(Some(FUEL));
        let a_template = "a minijinja template";
        templates.add_template_owned("system", self.system.clone()).map_err(invalid(a_template))?;
        templates.add_template_owned("user", self.user.clone()).map_err(invalid(a_template))?;
        let values = values.to_value();
        let system = templates.get_template("system").and_then(|template| template.render(&values));
        let system = system.map_err(invalid("a template with known variables"))?;
        let digest = Sha256::digest(format!("{} {system}{}", system.len(), self.user));
        let prompt = CompiledPrompt {
            templates,
            values,
            system,
            digest: format!("{digest:x}")[..16].to_owned(),
        };
        prompt.check_that_data_is_shown()?;
        Ok(prompt)
    }
}

/// What the user of the library adds to a prompt.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct PromptValues {
    pub instructions: String,
    pub criteria: Vec<Criterion>,
    pub has_reference: bool,
}

impl PromptValues {
    fn to_value(&self) -> Value {
        let criteria = self.criteria.iter().map(|criterion| {
            let Criterion { name, weight, description } = criterion;
            context! { name => name.as_str(), weight => *weight, description => description.as_str() }
        });
        context! {
            instructions => self.instructions.as_str(),
            criteria => Value::from(criteria.collect::<Vec<_>>()),
            has_reference => self.has_reference,
        }
    }
}

/// A prompt that renders.
#[derive(Debug)]
pub(crate) struct CompiledPrompt {
    templates: Environment<'static>,
    values: Value,
    system: String,
    /// The beginning of the SHA-256 of everything but the data.
    pub digest: String,
}

impl CompiledPrompt {
    /// The messages about `data`. Values are never templates: `{{ … }}` in a response stays as it
    /// is.
    pub(crate) fn render(&self, data: &JudgeData) -> Result<Vec<Message>, minijinja::Error> {
        let seen = context! { data => data.json.as_str(), fence => data.fence.as_str(), ..self.values.clone() };
        let user = self.templates.get_template("user")?.render(seen)?;
        let system =
            Some(self.system.trim()).filter(|system| !system.is_empty()).map(Message::system);
        Ok(system.into_iter().chain([Message::user(user.trim())]).collect())
    }

    fn check_that_data_is_shown(&self) -> Result<(), RewardError> {
        let invalid =
            |got: String, expected| RewardError::InvalidConfig { field: "prompt", got, expected };
        let probe = JudgeData::new(&[("response", quote("a response"))]);
        let messages = self
            .render(&probe)
            .map_err(|error| invalid(format!("{error:#}"), "a template with known variables"))?;
        let shown = messages.last().is_some_and(|message| message.text().contains(&probe.json));
        let user = || "a user message without the data".to_owned();
        shown
            .then_some(())
            .ok_or_else(|| invalid(user(), "`{{ data }}` in the user message, as it is"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_prompts_render() {
        for prompt in [JudgePrompt::binary(), JudgePrompt::rubric(), JudgePrompt::pair()] {
            prompt.validate().unwrap();
            let values = PromptValues {
                instructions: "Answers are in metres.".into(),
                ..PromptValues::default()
            };
            let messages = prompt
                .compile(&values)
                .unwrap()
                .render(&JudgeData::new(&[("response", quote("x"))]))
                .unwrap();
            assert_eq!(messages.len(), 2);
            assert!(messages[0].text().contains("Answers are in metres."));
            assert!(messages[1].text().contains("{\"response\": \"x\"}"));
        }
    }

    #[test]
    fn mistakes_are_found_when_it_is_built() {
        let wrong = [
            ("{{ data", "syntax error"),
            ("{{ data }} {{ answer }}", "undefined"),
            ("{{ data | upper }}", "without the data"),
            ("{% for i in range(1000000) %}{{ data }}{% endfor %}", "range"),
            (
                "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}{{ data }}",
                "fuel",
            ),
        ];
        for (user, problem) in wrong {
            let error = JudgePrompt { user: user.into(), ..JudgePrompt::binary() }
                .validate()
                .unwrap_err()
                .to_string();
            assert!(error.contains(problem), "{user}: {error}");
        }
    }

    #[test]
    fn the_digest_knows_every_word() {
        let digest = |prompt: &JudgePrompt, instructions: &str| {
            let values =
                PromptValues { instructions: instructions.into(), ..PromptValues::default() };
            prompt.compile(&values).unwrap().digest
        };
        let prompt = JudgePrompt::binary();
        assert_eq!(digest(&prompt, ""), digest(&prompt, ""));
        assert_ne!(digest(&prompt, ""), digest(&prompt, "x"));
        assert_ne!(
            digest(&prompt, ""),
            digest(&JudgePrompt { user: "{{ data }}".into(), ..prompt.clone() }, "")
        );
    }
}
