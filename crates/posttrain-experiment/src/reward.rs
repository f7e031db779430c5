//! Rewards as a configuration names them.

use crate::ExperimentError;
use posttrain_chat::{CacheConfig, CachedChat, ChatModel, OpenAiConfig};
use posttrain_reward::{AnswerConfig, FirstThatDecides, GoOn, JudgeConfig, MathConfig, PerDomain, Reward, Verifier};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A reward. What is not here is passed to [`Experiment::with_reward`](crate::Experiment::with_reward).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RewardConfig {
    /// A number or a few words, by a verifier.
    Answer(AnswerConfig),
    /// Expressions, sets, equations, by a verifier.
    Math(MathConfig),
    /// A judge behind a server.
    Judge(Box<ServedJudge>),
    /// The first that can say.
    FirstThatDecides {
        /// In this order; a verifier first, usually.
        rewards: Vec<RewardConfig>,
    },
    /// Each domain's own.
    PerDomain {
        /// By domain; a domain without one is an error.
        rewards: BTreeMap<String, RewardConfig>,
    },
}

/// A judge, and the OpenAI-compatible server that it speaks through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServedJudge {
    /// The server: model, addresses, key, limits.
    pub server: OpenAiConfig,
    /// The judge: prompt, votes, sampling.
    #[serde(default)]
    pub judge: JudgeConfig,
    /// Where its answers are kept, so that the same question is not paid for twice; nowhere by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheConfig>,
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
    /// A field that is out of range, or a key that is not there.
    ///
    /// ```
    /// use posttrain_experiment::RewardConfig;
    ///
    /// let config: RewardConfig = toml::from_str("kind = \"answer\"")?;
    /// assert_eq!(config, RewardConfig::default());
    /// config.build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn build(&self) -> Result<Arc<dyn Reward>, ExperimentError> {
        Ok(match self {
            Self::Answer(config) => Arc::new(config.clone().build()?.into_reward()),
            Self::Math(config) => Arc::new(config.clone().build()?.into_reward()),
            Self::Judge(served) => served.build()?,
            Self::FirstThatDecides { rewards } => {
                let rewards: Result<Vec<_>, _> = rewards.iter().map(Self::build).collect();
                Arc::new(FirstThatDecides::new(rewards?, GoOn::CannotSay)?)
            }
            Self::PerDomain { rewards } => {
                let mut table = PerDomain::new();
                for (domain, reward) in rewards {
                    table = table.with(domain, reward.build()?);
                }
                Arc::new(table)
            }
        })
    }
}

impl ServedJudge {
    /// The judge.
    ///
    /// # Errors
    /// A field that is out of range, a key that is not there, or a cache's folder that cannot be made.
    pub fn build(&self) -> Result<Arc<dyn Reward>, ExperimentError> {
        Ok(Arc::new(self.judge.clone().build(chat_model(&self.server, self.cache.as_ref())?)?))
    }
}

/// A chat model behind a server, with its answers kept where a cache is given.
pub(crate) fn chat_model(
    server: &OpenAiConfig,
    cache: Option<&CacheConfig>,
) -> Result<Arc<dyn ChatModel>, ExperimentError> {
    let client = Arc::new(server.clone().build()?);
    Ok(match cache {
        Some(cache) => Arc::new(CachedChat::new(client, cache.clone())?),
        None => client,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use posttrain_reward::Unreadable;

    #[derive(Deserialize)]
    struct File {
        reward: RewardConfig,
    }

    /// The block of `docs/rewards.md`, which readers copy.
    #[test]
    fn the_documented_configuration_is_one() {
        let page = include_str!("../../../docs/rewards.md").lines();
        let block = page.skip_while(|line| line.trim() != "[reward]");
        let block: Vec<&str> = block.take_while(|line| line.is_empty() || line.starts_with("    ")).collect();
        let file: File = toml::from_str(&block.join("\n")).unwrap();
        let RewardConfig::FirstThatDecides { rewards } = &file.reward else { panic!("{:?}", file.reward) };
        let [RewardConfig::Math(math), RewardConfig::Judge(judge)] = rewards.as_slice() else { panic!("{rewards:?}") };
        assert_eq!(math.unreadable, Unreadable::Undecided);
        assert_eq!(judge.server.http.endpoints.len(), 1);
        file.reward.build().unwrap();
    }
}
