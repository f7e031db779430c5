//! Routers: what sends a question to the specialist that should answer it, and what its errors
//! cost.
//!
//! A [`Router`] gives each [`Question`] a [`Decision`]: a label with the probability of each. There
//! are several kinds:
//!
//! | router | decides by | needs |
//! | --- | --- | --- |
//! | [`LikelihoodRouter`] | the label that a language model finds most likely, its prior divided out | a [`LabelScorer`], a few shots |
//! | [`ChatRouter`] | the label that a chat model names | a `ChatModel` of `posttrain-chat` |
//! | [`Classifier`] | logistic regression over an [`Embedder`]'s vectors ([`HashedNgrams`], or a model's) | a training set |
//! | [`KeywordRouter`] | the words of the question | words, given or learnt |
//! | [`Cascade`] | a cheap router, and another where that is not sure | two routers |
//! | [`ConstantRouter`], [`OracleRouter`] | nothing; the truth | the floor and the ceiling of the others |
//!
//! **Roles.** [`RouterData`] makes a [`TrainSet`], a [`ValidationSet`] and a [`TestSet`] of one
//! dataset's splits. What is fitted takes the first, what is tuned the second, and only a report
//! the third, so that a mix-up does not compile.
//!
//! **Reports.** [`RouterReport`] has accuracy, confusion, calibration and time on the test set.
//! [`ErrorAttribution`] says what misrouted questions cost in answers: a router that errs where the
//! wrong specialist does as well costs nothing.
//!
//! The crate knows neither models nor policies, and does not link libtorch. The same seed and the
//! same data give the same numbers.
//!
//! ```
//! use posttrain_data::{SplitConfig, SplitSizes, sciences, split};
//! use posttrain_router::{KeywordConfig, Question, Router, RouterData, RouterReport};
//!
//! let sizes = SplitSizes { train: 200, validation: 20, test: 50 };
//! let splits = split(&sciences::generate(7)?, &SplitConfig { sizes, seed: 7 })?;
//! let data = RouterData::from_splits(&splits, &sciences::DOMAINS)?;
//!
//! let router = KeywordConfig::learn(&data.train, 50).build()?;
//! let decision = &router.route(&[Question::new("q1", "What is 7 + 5?")])?[0];
//! assert_eq!(router.labels()[decision.label], sciences::MATH);
//!
//! let report = RouterReport::of(&router, &data.test)?;
//! assert!(report.accuracy > 0.7, "{report}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attribution;
mod cascade;
mod chat_answer;
mod chat_router;
mod chat_router_config;
mod classifier;
mod classifier_config;
mod classifier_file;
mod constant;
mod distribution;
mod embedder;
mod error;
mod excerpt;
mod hashed_ngrams;
mod keyword;
mod label_scorer;
mod labels;
mod lbfgs;
mod likelihood;
mod likelihood_config;
mod likelihood_prompt;
mod logistic;
mod oracle;
mod question;
mod reliability;
mod report;
mod router;
mod router_data;
mod shots;
mod standardizer;
mod temperature;
mod words;

pub use attribution::{AttributionInput, ErrorAttribution, MisroutedPair};
pub use cascade::Cascade;
pub use chat_router::ChatRouter;
pub use chat_router_config::{AnswerForm, ChatConfidence, ChatRouterConfig};
pub use classifier::Classifier;
pub use classifier_config::{ClassifierConfig, Trial};
pub use constant::ConstantRouter;
pub use embedder::Embedder;
pub use error::RouterError;
pub use hashed_ngrams::{HashedNgrams, NgramConfig};
pub use keyword::{KeywordConfig, KeywordRouter};
pub use label_scorer::{LabelQuery, LabelScorer, Likelihood, Prompt};
pub use likelihood::LikelihoodRouter;
pub use likelihood_config::{Calibration, LikelihoodConfig, RouterPromptStyle};
pub use oracle::OracleRouter;
pub use question::{Decision, Question};
pub use reliability::ReliabilityBin;
pub use report::{LabelReport, RoutedQuestion, RouterReport};
pub use router::Router;
pub use router_data::{RouterData, TestSet, TrainSet, ValidationSet};
pub use shots::{LabeledQuestion, Shots};
