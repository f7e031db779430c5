//! Every reward by its name, as a configuration file has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use posttrain_answer::number::Numeric;
use posttrain_answer::text::Normalizer;
use serde::{Deserialize, Serialize};

#[cfg(unix)]
use crate::code::CodeExecutionConfig;
use crate::compose::{FirstThatDecides, GoOn, PerDomain, Product, WeightedSum};
use crate::judge::{JudgeConfig, PairConfig, RubricConfig, Served};
use crate::outside::RemoteConfig;
#[cfg(unix)]
use crate::outside::SubprocessConfig;
#[cfg(unix)]
use crate::spreadsheet::SpreadsheetCodeConfig;
use crate::spreadsheet::SpreadsheetConfig;
use crate::verifiers::{
    AnswerConfig, ChoiceConfig, ContainsConfig, ExactMatch, FormatConfig, JsonConfig, LengthConfig,
    ListConfig, MathConfig, NormalizedMatch, NumericMatch, RegexConfig, TokenF1,
};
use crate::{Reward, RewardError, Verifier};

/// A reward, by its `kind` and the fields of its own configuration. A field that the kind does not
/// have is refused.
///
/// ```
/// use posttrain_reward::RewardConfig;
///
/// let config: RewardConfig = toml::from_str(r#"
///     kind = "product"
///
///     [[rewards]]
///     kind = "math"
///     decimals = 3
///
///     [[rewards]]
///     kind = "format"
///     tags = { tags = ["think", "answer"] }
/// "#)?;
/// assert_eq!(config.build()?.name(), "product");
/// assert!(toml::from_str::<RewardConfig>("kind = \"math\"\ndecimal = 3").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum RewardConfig {
    /// A number or a few words, where the response ends on it or marks it.
    Answer(AnswerConfig),
    /// Mathematics: expressions, sets, equations.
    Math(MathConfig),
    /// A letter of a multiple choice.
    Choice(ChoiceConfig),
    /// All of some phrases.
    #[serde(alias = "contains-all")]
    ContainsAll(ContainsConfig),
    /// A response that is the reference, byte for byte.
    Exact {},
    /// Words that overlap, as SQuAD counts them.
    F1 {},
    /// JSON, by a schema where there is one.
    Json(JsonConfig),
    /// A list or a set.
    List(ListConfig),
    /// The reference but for case, articles and punctuation.
    #[serde(alias = "normalised")]
    Normalized {
        /// What counts as the same. Default: without case and articles.
        #[serde(default, alias = "normaliser")]
        normalizer: Normalizer,
    },
    /// A response that is a number and nothing else, within a tolerance.
    Numeric(Numeric),
    /// A pattern.
    Regex(RegexConfig),
    /// The tags that a response must consist of, or a pattern that it must match.
    Format(FormatConfig),
    /// Full marks up to a length, then less and less.
    Length(LengthConfig),
    /// A judge behind a server.
    Judge(Box<Served<JudgeConfig>>),
    /// A judge of several criteria behind a server.
    Rubric(Box<Served<RubricConfig>>),
    /// A judge that compares with another response, behind a server.
    Pair(Box<Served<PairConfig>>),
    /// A program that reads and writes JSON lines.
    #[cfg(unix)]
    Subprocess(SubprocessConfig),
    /// A server that is sent samples.
    Remote(Box<RemoteConfig>),
    /// The response's program, run against tests.
    #[cfg(unix)]
    Code(Box<CodeExecutionConfig>),
    /// Workbooks that are there.
    Spreadsheet(SpreadsheetConfig),
    /// Workbooks that the response's program writes.
    #[cfg(unix)]
    SpreadsheetCode(Box<SpreadsheetCodeConfig>),
    /// Several rewards, added by weight.
    WeightedSum {
        /// At least one, of weights whose sum is positive.
        terms: Vec<WeightedReward>,
    },
    /// Several rewards, multiplied: each is a gate for the others.
    Product {
        /// At least one.
        rewards: Vec<Self>,
    },
    /// The first that can say.
    FirstThatDecides {
        /// In this order; a verifier first, usually.
        rewards: Vec<Self>,
        /// Which errors send a sample on. Default: those of a reward that is not made for it.
        #[serde(default)]
        go_on: GoOn,
    },
    /// Each domain's own.
    PerDomain {
        /// By domain; a domain without one is an error.
        rewards: BTreeMap<String, Self>,
    },
}

/// A term of a [weighted sum](RewardConfig::WeightedSum).
///
/// ```
/// use posttrain_reward::{RewardConfig, WeightedReward};
///
/// let term = WeightedReward { weight: 0.5, reward: RewardConfig::default() };
/// assert_eq!(RewardConfig::WeightedSum { terms: vec![term] }.build()?.name(), "weighted_sum");
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedReward {
    /// Its weight, not negative.
    pub weight: f64,
    /// The reward.
    pub reward: RewardConfig,
}

impl Default for RewardConfig {
    fn default() -> Self {
        Self::Answer(AnswerConfig::default())
    }
}

impl RewardConfig {
    /// The reward.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming a field that is out of its range;
    /// [`RewardError::Client`] where a server's client cannot be set up.
    ///
    /// ```
    /// use posttrain_reward::RewardConfig;
    ///
    /// let config: RewardConfig = toml::from_str("kind = \"answer\"")?;
    /// assert_eq!(config, RewardConfig::default());
    /// assert_eq!(config.build()?.name(), "answer");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn build(&self) -> Result<Arc<dyn Reward>, RewardError> {
        if let Some(verifier) = self.verifier()? {
            return Ok(Arc::new(verifier.into_reward()));
        }

        match self {
            Self::Judge(served) => Ok(Arc::new(served.judge.clone().build(served.model()?)?)),
            Self::Rubric(served) => Ok(Arc::new(served.judge.clone().build(served.model()?)?)),
            Self::Pair(served) => Ok(Arc::new(served.judge.clone().build(served.model()?)?)),
            Self::Remote(config) => Ok(Arc::new(config.as_ref().clone().build()?)),
            #[cfg(unix)]
            Self::Subprocess(config) => Ok(Arc::new(config.clone().build()?)),
            #[cfg(unix)]
            Self::Code(config) => Ok(Arc::new(config.as_ref().clone().build()?)),
            #[cfg(unix)]
            Self::SpreadsheetCode(config) => Ok(Arc::new(config.as_ref().clone().build()?)),
            composition => composition.compose(),
        }
    }

    /// The verifier, where the reward only computes; `None` where it waits for something.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    ///
    /// ```
    /// use posttrain_reward::{RewardConfig, Sample, Verifier};
    ///
    /// let verifier = RewardConfig::Exact {}.verifier()?.unwrap();
    /// assert_eq!(verifier.verify(&Sample::new("2 + 2?", "4", "4"))?.value(), 1.0);
    /// assert!(RewardConfig::Product { rewards: vec![RewardConfig::Exact {}] }.verifier()?.is_none());
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn verifier(&self) -> Result<Option<Box<dyn Verifier>>, RewardError> {
        Ok(Some(match self {
            Self::Answer(config) => Box::new(config.clone().build()?),
            Self::Math(config) => Box::new(config.clone().build()?),
            Self::Choice(config) => Box::new(config.clone().build()?),
            Self::ContainsAll(config) => Box::new(config.clone().build()?),
            Self::Exact {} => Box::new(ExactMatch),
            Self::F1 {} => Box::new(TokenF1),
            Self::Json(config) => Box::new(config.clone().build()?),
            Self::List(config) => Box::new(config.clone().build()?),
            Self::Normalized { normalizer } => {
                Box::new(NormalizedMatch { normalizer: normalizer.clone() })
            }
            Self::Numeric(rule) => Box::new(NumericMatch::new(rule.clone())?),
            Self::Regex(config) => Box::new(config.clone().build()?),
            Self::Format(config) => Box::new(config.clone().build()?),
            Self::Length(config) => Box::new(config.clone().build()?),
            Self::Spreadsheet(config) => Box::new(config.clone().build()?),
            _ => return Ok(None),
        }))
    }

    /// The verifier that samples of `domain` meet first: of a cascade the first reward, of a table
    /// the domain's. `None` where that is no verifier.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    ///
    /// ```
    /// use posttrain_reward::{RewardConfig, Verifier, compose::GoOn};
    ///
    /// let cascade = RewardConfig::FirstThatDecides { rewards: vec![RewardConfig::F1 {}], go_on: GoOn::CannotSay };
    /// let table = RewardConfig::PerDomain { rewards: [("law".to_owned(), cascade)].into() };
    /// assert_eq!(table.first_verifier("law")?.unwrap().name(), "f1");
    /// assert!(table.first_verifier("mathematics")?.is_none());
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn first_verifier(&self, domain: &str) -> Result<Option<Box<dyn Verifier>>, RewardError> {
        match self {
            Self::FirstThatDecides { rewards, .. } => match rewards.first() {
                Some(first) => first.first_verifier(domain),
                None => Ok(None),
            },
            Self::PerDomain { rewards } => match rewards.get(domain) {
                Some(reward) => reward.first_verifier(domain),
                None => Ok(None),
            },
            other => other.verifier(),
        }
    }

    /// A reward that is made of others.
    fn compose(&self) -> Result<Arc<dyn Reward>, RewardError> {
        match self {
            Self::WeightedSum { terms } => {
                let terms = terms.iter().map(|term| Ok((term.weight, term.reward.build()?)));
                let terms: Vec<_> = terms.collect::<Result<_, RewardError>>()?;
                Ok(Arc::new(WeightedSum::new(terms)?))
            }
            Self::Product { rewards } => Ok(Arc::new(Product::new(build_all(rewards)?)?)),
            Self::FirstThatDecides { rewards, go_on } => {
                Ok(Arc::new(FirstThatDecides::new(build_all(rewards)?, *go_on)?))
            }
            Self::PerDomain { rewards } => {
                let mut table = PerDomain::new();
                for (domain, reward) in rewards {
                    table = table.with(domain, reward.build()?);
                }
                Ok(Arc::new(table))
            }
            other => Err(RewardError::InvalidConfig {
                field: "kind",
                got: format!("{other:?}").chars().take(40).collect(),
                expected: "a reward that can be built",
            }),
        }
    }
}

fn build_all(rewards: &[RewardConfig]) -> Result<Vec<Arc<dyn Reward>>, RewardError> {
    rewards.iter().map(RewardConfig::build).collect()
}
