//! Rewards that ask a language model: a verdict, a rubric, a comparison.

mod ballot;
mod binary;
mod case;
mod config;
mod data;
mod no_verdict;
mod pair;
mod panel;
mod prompt;
mod rubric;
mod sampling;
mod served;
mod transcript;

pub use binary::Judge;
pub use config::{JudgeConfig, ReferenceUse, Ties};
pub use no_verdict::NoVerdict;
pub use pair::{Opponent, PairConfig, PairJudge, Preference};
pub use prompt::JudgePrompt;
pub use rubric::{Criterion, RubricConfig, RubricJudge};
pub use sampling::{JudgeProvenance, JudgeSampling};
pub use served::Served;
