//! A judge behind a server, as a configuration file has it.

use std::sync::Arc;

use posttrain_chat::ChatModel;
use posttrain_chat::cache::CacheConfig;
use posttrain_chat::openai::OpenAiConfig;
use serde::{Deserialize, Serialize};

use crate::RewardError;

/// A judge, and the OpenAI-compatible server that it speaks through. `J` is
/// [`JudgeConfig`](crate::judge::JudgeConfig), [`RubricConfig`](crate::judge::RubricConfig) or
/// [`PairConfig`](crate::judge::PairConfig).
///
/// ```
/// use posttrain_reward::judge::{JudgeConfig, Served};
///
/// let served: Served<JudgeConfig> = toml::from_str(r#"
///     server = { model = "Qwen/Qwen3-30B-A3B", http = { endpoints = ["http://localhost:8000/v1"] } }
///     judge = { votes = 3, sampling = { temperature = 0.7 } }
/// "#)?;
/// let judge = served.judge.clone().build(served.model()?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Served<J> {
    /// The server: model, addresses, key, limits.
    pub server: OpenAiConfig,
    /// The judge: prompt, votes, sampling. Default: as its own.
    #[serde(default)]
    pub judge: J,
    /// Where the server's answers are kept, so that the same question is not paid for twice.
    /// Default: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheConfig>,
}

impl<J> Served<J> {
    /// The model behind the server, with its answers kept where a cache is given.
    ///
    /// # Errors
    /// [`RewardError::Client`]: a field that is out of range, a key that is not there, a cache's folder that cannot be
    /// made.
    ///
    /// ```
    /// use posttrain_chat::openai::OpenAiConfig;
    /// use posttrain_reward::judge::{JudgeConfig, Served};
    ///
    /// let server = OpenAiConfig::for_server("http://localhost:8000/v1", "Qwen/Qwen3-30B-A3B")?;
    /// let served = Served { server, judge: JudgeConfig::default(), cache: None };
    /// assert_eq!(served.model()?.name(), "Qwen/Qwen3-30B-A3B");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn model(&self) -> Result<Arc<dyn ChatModel>, RewardError> {
        let model = self.server.clone().build_cached(self.cache.clone());

        model.map_err(|source| RewardError::Client { source: Arc::new(source) })
    }
}
