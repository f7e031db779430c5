//! Routers as a configuration names them.

use crate::{ExperimentError, HiddenStates, LocalLabels};
use posttrain_chat::cache::CacheConfig;
use posttrain_chat::openai::OpenAiConfig;
use posttrain_model::TextModel;
use posttrain_router::{
    Calibration, Cascade, ChatRouterConfig, ClassifierConfig, KeywordConfig, LikelihoodConfig,
    NgramConfig, Router, RouterData,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::runtime::Handle;

/// A router. What it learns it learns from the training split, what it chooses it chooses by the
/// validation split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouterConfig {
    /// Its name in the report.
    pub name: String,
    /// What it is.
    #[serde(flatten)]
    pub kind: RouterKind,
}

/// What a router decides by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RouterKind {
    /// An untrained model on this machine: how likely it finds each label.
    Likelihood {
        /// The prompt, the shots, the calibration.
        #[serde(default)]
        prompt: LikelihoodConfig,
        /// Whether the temperature of its probabilities is chosen by the validation split.
        /// Decisions are the same.
        #[serde(default)]
        tune: bool,
    },
    /// An untrained model behind a server: which label it names.
    Chat {
        /// The server.
        server: Box<OpenAiConfig>,
        /// The prompt and the form of the answer.
        #[serde(default)]
        prompt: ChatRouterConfig,
        /// Where its answers are kept; nowhere by default.
        #[serde(default)]
        cache: Option<CacheConfig>,
    },
    /// Logistic regression over hashed n-grams: no model is needed.
    Ngrams {
        /// The n-grams.
        #[serde(default)]
        features: NgramConfig,
        /// The fit.
        #[serde(default)]
        fit: ClassifierConfig,
    },
    /// Logistic regression over the model's hidden states.
    HiddenStates {
        /// The fit.
        #[serde(default)]
        fit: ClassifierConfig,
    },
    /// Words that tell the domains apart.
    Keywords {
        /// Words a domain.
        #[serde(default = "usual_words")]
        words: usize,
    },
    /// A cheap router, and another one where it is not sure.
    Cascade {
        /// The cheap one.
        first: Box<RouterConfig>,
        /// The other.
        second: Box<RouterConfig>,
        /// What accuracy on the validation split may be given up for asking the second less often,
        /// in [0, 1].
        #[serde(default)]
        allowance: f64,
    },
}

/// What routers are built from.
pub(crate) struct RouterMaterials<'a> {
    pub data: &'a RouterData,
    /// The model that likelihoods and hidden states come from, and its name.
    pub model: TextModel,
    pub model_name: &'a str,
    pub labels: Arc<LocalLabels>,
    pub runtime: Handle,
}

fn usual_words() -> usize {
    50
}

impl RouterConfig {
    /// Its name in the report.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Likelihood with and without calibration, n-grams and keywords.
    pub(crate) fn usual() -> Vec<Self> {
        let likelihood = |calibration| RouterKind::Likelihood {
            prompt: LikelihoodConfig { calibration, ..LikelihoodConfig::default() },
            tune: false,
        };

        let kinds = [
            ("likelihood", likelihood(Calibration::Prior)),
            ("likelihood-uncalibrated", likelihood(Calibration::None)),
            (
                "ngrams",
                RouterKind::Ngrams { features: Default::default(), fit: Default::default() },
            ),
            ("keywords", RouterKind::Keywords { words: usual_words() }),
        ];

        kinds.into_iter().map(|(name, kind)| Self { name: name.into(), kind }).collect()
    }

    /// The router, fitted.
    pub(crate) fn build(&self, from: &RouterMaterials) -> Result<Box<dyn Router>, ExperimentError> {
        let RouterData { train, validation, .. } = from.data;
        Ok(match &self.kind {
            RouterKind::Likelihood { prompt, tune } => {
                let mut router = prompt.clone().fit(from.labels.clone(), train)?;
                if *tune {
                    router.tune(validation)?;
                }
                Box::new(router)
            }
            RouterKind::Chat { server, prompt, cache } => {
                let mut prompt = prompt.clone();
                if prompt.labels.is_empty() {
                    prompt.labels = train.labels().to_vec();
                }
                Box::new(
                    prompt
                        .build(server.clone().build_cached(cache.clone())?, from.runtime.clone())?,
                )
            }
            RouterKind::Ngrams { features, fit } => {
                Box::new(fit.fit(features.clone().build()?, train, validation)?)
            }
            RouterKind::HiddenStates { fit } => Box::new(fit.fit(
                HiddenStates::new(from.model.clone(), from.model_name),
                train,
                validation,
            )?),
            RouterKind::Keywords { words } => {
                Box::new(KeywordConfig::learn(train, *words).build()?)
            }
            RouterKind::Cascade { first, second, allowance } => {
                let mut cascade = Cascade::new(first.build(from)?, second.build(from)?, 0.5)?;
                cascade.tune(validation, *allowance)?;
                Box::new(cascade)
            }
        })
    }
}
