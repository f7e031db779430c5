//! Right where a regular expression says so.

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::{RewardError, Sample, Score, Verifier};
use posttrain_answer::response::{ending, without_thinking};
use posttrain_answer::text::Normalizer;

/// Where the pattern comes from, and what it is for.
///
/// ```
/// use posttrain_reward::{Sample, Verifier};
/// use posttrain_reward::verifiers::{RegexConfig, RegexUse};
///
/// let matches = RegexConfig { pattern: RegexUse::Reference, ..RegexConfig::default() }.build()?;
/// assert_eq!(matches.verify(&Sample::new("A date?", r"^\d{4}-\d\d-\d\d$", "2024-02-29"))?.value(), 1.0);
///
/// let pattern = RegexUse::Capture { pattern: r"total: (\d+)".to_owned(), group: "1".to_owned() };
/// let captures = RegexConfig { pattern, ..RegexConfig::default() }.build()?;
/// assert_eq!(captures.verify(&Sample::new("?", "12", "total: 12"))?.value(), 1.0);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RegexUse {
    /// Each sample's reference is a pattern that the response must match, anywhere unless it is
    /// anchored.
    #[default]
    Reference,
    /// The last match of `pattern` in the response is compared with the reference.
    Capture {
        /// The pattern.
        pattern: String,
        /// What of the match is compared: a group's name or number, `0` for all of it.
        group: String,
    },
}

/// Whether a response matches a pattern, or what a pattern finds in it is the reference.
///
/// Patterns are those of the [`regex`](https://docs.rs/regex) crate, which takes time linear in the
/// text for every pattern; there are no look-around and no back-references. Thinking is not looked
/// at. What earns nothing: no match, a group that took no part in the last match, an earlier match
/// than the last.
///
/// ```
/// use posttrain_reward::{Sample, Verifier};
/// use posttrain_reward::verifiers::{RegexConfig, RegexUse};
///
/// let pattern = RegexUse::Capture { pattern: r"(?m)^ANSWER: (?<answer>.+)$".to_owned(), group: "answer".to_owned() };
/// let verifier = RegexConfig { pattern, ..RegexConfig::default() }.build()?;
/// let value = |response: &str| verifier.verify(&Sample::new("?", "Paris", response)).map(|score| score.value());
/// assert_eq!(value("ANSWER: London\nANSWER: paris")?, 1.0);
/// assert_eq!(value("ANSWER: paris\nANSWER: London")?, 0.0);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegexConfig {
    /// Where the pattern comes from. Default: the reference.
    pub pattern: RegexUse,
    /// How what is captured is compared with the reference. Default: without case and articles.
    #[serde(alias = "normaliser")]
    pub normalizer: Normalizer,
    /// The largest compiled pattern, in bytes, from 1024 to 2²⁴. Default 2¹⁸: enough for hundreds
    /// of characters.
    pub size_limit: usize,
    /// Bytes at the response's end that are looked at, from 1 to 2²⁴. Default 65,536.
    pub max_bytes: usize,
}

impl Default for RegexConfig {
    fn default() -> Self {
        Self {
            pattern: RegexUse::default(),
            normalizer: Normalizer::default(),
            size_limit: 1 << 18,
            max_bytes: 64 * 1024,
        }
    }
}

impl RegexConfig {
    /// Checks the ranges and the pattern.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the first field that is out of its range, or a pattern
    /// that cannot be compiled, is too large or has no such group.
    ///
    /// ```
    /// use posttrain_reward::verifiers::{RegexConfig, RegexUse};
    ///
    /// let pattern = RegexUse::Capture { pattern: "(".to_owned(), group: "1".to_owned() };
    /// let error = RegexConfig { pattern, ..RegexConfig::default() }.validate().unwrap_err();
    /// assert!(error.to_string().starts_with("`pattern` is ("));
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        self.compiled().map(|_| ())
    }

    /// The verifier.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    ///
    /// ```
    /// use posttrain_reward::Verifier;
    /// use posttrain_reward::verifiers::RegexConfig;
    ///
    /// assert_eq!(RegexConfig::default().build()?.name(), "regex");
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn build(self) -> Result<RegexMatch, RewardError> {
        let capture = self.compiled()?;
        Ok(RegexMatch { config: self, capture })
    }

    fn compiled(&self) -> Result<Option<(Regex, usize)>, RewardError> {
        let invalid =
            |field, got: String, expected| Err(RewardError::InvalidConfig { field, got, expected });
        if !(1024..=1 << 24).contains(&self.size_limit) {
            return invalid("size_limit", self.size_limit.to_string(), "from 1024 to 16777216");
        }
        if !(1..=1 << 24).contains(&self.max_bytes) {
            return invalid("max_bytes", self.max_bytes.to_string(), "from 1 to 16777216");
        }
        let RegexUse::Capture { pattern, group } = &self.pattern else { return Ok(None) };
        let Some(regex) = self.compile(pattern) else {
            let got = pattern.chars().take(80).collect();
            return invalid("pattern", got, "a regular expression within `size_limit`");
        };
        let number = group.parse().ok().filter(|number| *number < regex.captures_len());
        match number.or_else(|| regex.capture_names().position(|name| name == Some(group.as_str())))
        {
            Some(number) => Ok(Some((regex, number))),
            None => {
                invalid("group", group.clone(), "a name or number of one of the pattern's groups")
            }
        }
    }

    fn compile(&self, pattern: &str) -> Option<Regex> {
        RegexBuilder::new(pattern)
            .size_limit(self.size_limit)
            .dfa_size_limit(self.size_limit.max(1 << 20))
            .build()
            .ok()
    }
}

/// The verifier that [`RegexConfig`] describes and builds.
///
/// ```
/// use posttrain_reward::{Sample, Verifier};
/// use posttrain_reward::verifiers::{RegexConfig, RegexMatch};
///
/// let verifier: RegexMatch = RegexConfig::default().build()?;
/// assert_eq!(verifier.verify(&Sample::new("?", "(", "(")).unwrap_err().cause(), "bad_reference");
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone)]
pub struct RegexMatch {
    config: RegexConfig,
    /// The pattern and the group that is compared, where the config has one.
    capture: Option<(Regex, usize)>,
}

impl Verifier for RegexMatch {
    fn name(&self) -> &str {
        "regex"
    }

    fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
        let reference = sample.checked_reference()?;
        let spoken =
            without_thinking(&sample.response).map(|spoken| ending(spoken, self.config.max_bytes));
        let Some((regex, group)) = &self.capture else {
            let regex = self.config.compile(reference);
            let regex = regex
                .ok_or_else(|| sample.bad_reference("a regular expression within `size_limit`"))?;
            return Ok(Score::binary(spoken.is_some_and(|spoken| regex.is_match(spoken.trim()))));
        };
        let found = spoken
            .and_then(|spoken| regex.captures_iter(spoken).last())
            .and_then(|captures| captures.get(*group));
        let Some(found) = found else { return Ok(Score::binary(false).with_note("no match")) };
        let right = self.config.normalizer.matches(found.as_str(), reference);
        let note =
            format!("`{}`, expected `{}`", ending(found.as_str(), 80), ending(reference, 80));
        Ok(Score::binary(right).with_note(note))
    }
}

#[cfg(test)]
mod tests {
    use super::{RegexConfig, RegexUse};
    use crate::{Sample, Verifier};

    #[test]
    fn a_reference_is_a_pattern() {
        let verifier = RegexConfig::default().build().unwrap();
        let cases = [
            (r"^\d+$", " 12 ", 1.0),
            (r"^\d+$", "12 apples", 0.0),
            (r"\d+", "12 apples", 1.0),
            (r"(?i)paris", "PARIS", 1.0),
            (r"x", "<think>x</think>y", 0.0),
            (r"x", "<think>x", 0.0),
            (r"(a+)+$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", 0.0),
        ];
        for (reference, response, expected) in cases {
            let value = verifier.verify(&Sample::new("?", reference, response)).unwrap().value();
            assert_eq!(value, expected, "{reference} | {response}");
        }
        for reference in ["(", r"(?=x)", r"(a{1000}){1000}", r"\1"] {
            let error = verifier.verify(&Sample::new("?", reference, "x")).unwrap_err();
            assert_eq!(error.cause(), "bad_reference", "{reference}");
        }
    }

    #[test]
    fn a_group_is_compared() {
        let with = |pattern: &str, group: &str| {
            let pattern =
                RegexUse::Capture { pattern: pattern.to_owned(), group: group.to_owned() };
            RegexConfig { pattern, ..RegexConfig::default() }.build()
        };
        let verifier = with(r"<a>(x)?(.*?)</a>", "2").unwrap();
        let value =
            |response: &str| verifier.verify(&Sample::new("?", "Paris", response)).unwrap().value();
        assert_eq!(
            (value("<a>Paris</a>"), value("<a>Paris</a><a>Rome</a>"), value("Paris")),
            (1.0, 0.0, 0.0)
        );
        let verifier = with(r"<a>(x)?", "1").unwrap();
        assert_eq!(verifier.verify(&Sample::new("?", "x", "<a>")).unwrap().value(), 0.0);
        for (pattern, group) in [("x", "1"), ("(?<a>x)", "b"), ("(", "0"), ("(a{1000}){1000}", "0")]
        {
            assert_eq!(
                with(pattern, group).unwrap_err().cause(),
                "invalid_config",
                "{pattern} {group}"
            );
        }
    }
}
