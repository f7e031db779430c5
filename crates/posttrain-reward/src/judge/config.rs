//! What all judges are configured by.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::judge::{JudgePrompt, JudgeSampling};
use crate::{RewardError, Sample, Truncated};

/// What an even split of votes means.
///
/// ```
/// assert_eq!(posttrain_reward::judge::Ties::default(), posttrain_reward::judge::Ties::Error);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ties {
    /// No verdict: [`NoVerdict::Tie`](crate::judge::NoVerdict::Tie).
    #[default]
    Error,
    /// Against the response: the policy is to convince.
    Wrong,
}

/// Whether a judge needs a reference answer.
///
/// ```
/// assert_eq!(posttrain_reward::judge::ReferenceUse::default(), posttrain_reward::judge::ReferenceUse::Required);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceUse {
    /// A sample without one is an error.
    #[default]
    Required,
    /// It is not shown, even where there is one.
    Hidden,
}

/// Configuration of a [`Judge`](crate::judge::Judge), and of what a
/// [`RubricJudge`](crate::judge::RubricJudge) and a [`PairJudge`](crate::judge::PairJudge) have in
/// common with it.
///
/// ```
/// use posttrain_reward::judge::JudgeConfig;
///
/// let config: JudgeConfig = toml::from_str(r#"
///     votes = 3
///     sampling = { temperature = 0.7, max_tokens = 512 }
///     instructions = "Answers are in metres; an answer without a unit is correct."
/// "#)?;
/// config.validate()?;
/// assert!(JudgeConfig { votes: 0, ..config }.validate().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JudgeConfig {
    /// What metrics and errors call the reward. Default `judge`.
    pub name: String,
    /// The prompt; by default the built-in one of the judge's kind.
    pub prompt: Option<JudgePrompt>,
    /// What the prompt says in addition: about the domain, say. Must not come from the data.
    /// Default empty.
    pub instructions: String,
    /// Whether the reference answer is shown. Default: required.
    pub reference: ReferenceUse,
    /// How answers are drawn. Default: temperature 0, 2048 tokens.
    pub sampling: JudgeSampling,
    /// Answers that are drawn for a verdict, from 1 to 1000; more than half of them must agree.
    /// Default 1.
    pub votes: usize,
    /// What an even split means. Default: no verdict.
    pub ties: Ties,
    /// What a response is worth that was cut off. Default: what its text is worth.
    pub truncated: Truncated,
    /// Characters of a response that are shown, from 16 to 2²⁴: of a longer one the first quarter
    /// and the last three quarters of as many, with the number of those between. The default,
    /// 24,000, is some 8,000 tokens, a quarter of the context that judges commonly have.
    pub max_response_characters: usize,
    /// A JSON Lines file that every conversation with the judge is appended to. Default: none.
    pub transcript: Option<PathBuf>,
}

impl Default for JudgeConfig {
    fn default() -> Self {
        Self {
            name: "judge".into(),
            prompt: None,
            instructions: String::new(),
            reference: ReferenceUse::Required,
            sampling: JudgeSampling::default(),
            votes: 1,
            ties: Ties::Error,
            truncated: Truncated::Judged,
            max_response_characters: 24_000,
            transcript: None,
        }
    }
}

impl JudgeConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// use posttrain_reward::judge::JudgeConfig;
    ///
    /// let error = JudgeConfig { votes: 3, ..JudgeConfig::default() }.validate().unwrap_err();
    /// assert!(error.to_string().contains("sampling.temperature"), "three votes at temperature 0 are one");
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        let invalid =
            |field, got: String, expected| Err(RewardError::InvalidConfig { field, got, expected });
        if self.name.trim().is_empty() {
            return invalid("name", "empty".into(), "a name");
        }
        if !(16..=1 << 24).contains(&self.max_response_characters) {
            let got = self.max_response_characters.to_string();
            return invalid("max_response_characters", got, "from 16 to 2²⁴");
        }
        if let Some(prompt) = &self.prompt {
            prompt.validate()?;
        }
        self.sampling.validate(self.votes)
    }

    /// The reference to be shown.
    pub(crate) fn reference<'s>(&self, sample: &'s Sample) -> Result<Option<&'s str>, RewardError> {
        match self.reference {
            ReferenceUse::Required => sample.checked_reference().map(Some),
            ReferenceUse::Hidden => Ok(None),
        }
    }
}
