//! Right where the response names all that it must.

use serde::{Deserialize, Serialize};

use crate::verifiers::Partial;
use crate::{RewardError, Sample, Score, Verifier};
use posttrain_answer::list::members;
use posttrain_answer::response::{ending, without_thinking};
use posttrain_answer::text::Normalizer;

/// The most phrases of a reference.
const MAX_PHRASES: usize = 256;
/// The longest response that is looked at, in bytes; of a longer one, the end.
const MAX_BYTES: usize = 64 * 1024;

/// Whether the response has every phrase of the reference, each as whole words in a row.
///
/// The reference is a JSON array of texts, or texts that `;` or line ends part (a comma is part of
/// a phrase). What earns nothing: a phrase inside another word (`art` in `party`), a response of
/// more than `max_words` words. That a phrase is denied is not seen: `not helium` names helium. Use
/// it where naming is what is asked for, and set `max_words`, or a policy learns to name
/// everything.
///
/// ```
/// use posttrain_reward::{Sample, Verifier};
/// use posttrain_reward::verifiers::ContainsConfig;
///
/// let verifier = ContainsConfig::default().build()?;
/// let value = |response: &str| {
///     verifier.verify(&Sample::new("Name two noble gases.", "helium; neon", response)).map(|score| score.value())
/// };
/// assert_eq!(value("Neon and Helium are.")?, 1.0);
/// assert_eq!(value("Helium and neonate.")?, 0.0);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContainsConfig {
    /// What some of the phrases are worth. Default: nothing.
    pub partial: Partial,
    /// What counts as the same word. Default: without case and articles.
    #[serde(alias = "normaliser")]
    pub normalizer: Normalizer,
    /// The most words of a response, at least 1; a longer one is wrong. Default 1000, some two
    /// pages.
    pub max_words: usize,
}

impl Default for ContainsConfig {
    fn default() -> Self {
        Self { partial: Partial::default(), normalizer: Normalizer::default(), max_words: 1000 }
    }
}

impl ContainsConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] where `max_words` is 0.
    ///
    /// ```
    /// use posttrain_reward::verifiers::ContainsConfig;
    ///
    /// assert!(ContainsConfig { max_words: 0, ..ContainsConfig::default() }.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        if self.max_words == 0 {
            let got = self.max_words.to_string();
            return Err(RewardError::InvalidConfig {
                field: "max_words",
                got,
                expected: "at least 1",
            });
        }
        Ok(())
    }

    /// The verifier.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    ///
    /// ```
    /// use posttrain_reward::Verifier;
    /// use posttrain_reward::verifiers::ContainsConfig;
    ///
    /// assert_eq!(ContainsConfig::default().build()?.name(), "contains-all");
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn build(self) -> Result<ContainsAll, RewardError> {
        self.validate()?;
        Ok(ContainsAll { config: self })
    }
}

/// The verifier that [`ContainsConfig`] describes and builds.
///
/// ```
/// use posttrain_reward::{Sample, Verifier};
/// use posttrain_reward::verifiers::{ContainsAll, ContainsConfig};
///
/// let verifier: ContainsAll = ContainsConfig::default().build()?;
/// let score = verifier.verify(&Sample::new("?", r#"["helium", "neon"]"#, "Neon."))?;
/// assert_eq!((score.value(), score.parts()[0].1), (0.0, 0.5));
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainsAll {
    config: ContainsConfig,
}

impl Verifier for ContainsAll {
    fn name(&self) -> &str {
        "contains-all"
    }

    fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
        let phrases = members(sample.checked_reference()?, &[';', '\n']);
        if phrases.is_empty() || phrases.len() > MAX_PHRASES {
            return Err(sample.bad_reference("from 1 to 256 phrases"));
        }

        let spoken =
            without_thinking(&sample.response).map_or("", |spoken| ending(spoken, MAX_BYTES));
        let short = spoken.split_whitespace().nth(self.config.max_words).is_none();
        let named = |phrase: &&String| short && self.config.normalizer.contains(spoken, phrase);
        self.config.partial.score(phrases.iter().filter(named).count(), phrases.len())
    }
}

#[cfg(test)]
mod tests {
    use super::ContainsConfig;
    use crate::verifiers::Partial;
    use crate::{Sample, Verifier};

    #[test]
    fn whole_phrases_count() {
        let cases = [
            ("New York; Paris", "Paris, then New York.", 1.0),
            ("New York; Paris", "Paris, York, New.", 0.5),
            ("New York\nParis", "new york", 0.5),
            (r#"["a;b", "c"]"#, "a;b c", 1.0),
            ("art", "party", 0.0),
            ("the Euro", "euro", 1.0),
            ("Na", "na", 0.0),
            ("x", "", 0.0),
            ("x", "<think>x", 0.0),
            ("C++", "C", 0.0),
        ];
        let verifier = ContainsConfig { partial: Partial::Share, ..ContainsConfig::default() }
            .build()
            .unwrap();
        for (reference, response, expected) in cases {
            let value = verifier.verify(&Sample::new("?", reference, response)).unwrap().value();
            assert_eq!(value, expected, "{reference} | {response}");
        }
        let cause = |reference: &str| {
            verifier.verify(&Sample::new("?", reference, "x")).unwrap_err().cause()
        };
        assert_eq!(
            (cause(" "), cause(";;"), cause("[]")),
            ("empty_reference", "bad_reference", "bad_reference")
        );
        assert_eq!(cause(&"x;".repeat(257)), "bad_reference");
    }

    #[test]
    fn naming_everything_does_not_pay() {
        let verifier =
            ContainsConfig { max_words: 3, ..ContainsConfig::default() }.build().unwrap();
        let value =
            |response: &str| verifier.verify(&Sample::new("?", "neon", response)).unwrap().value();
        assert_eq!((value("helium neon argon"), value("helium neon argon krypton")), (1.0, 0.0));
    }
}
