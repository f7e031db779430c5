//! Verifiable rewards for language-model completions.
//!
//! A [`Reward`] looks at a [`Sample`] (a question, its reference answer, one completion) and gives
//! a [`Score`] from 0 to 1. It is async, so that a judge that waits and a verifier that computes
//! have one interface; a [`Verifier`] computes on a thread pool of its own. A [`Scorer`] scores a
//! step's completions while others are still being sampled.
//!
//! | module | rewards that |
//! | --- | --- |
//! | [`verifiers`] | compute: numbers, words, mathematics, choices, JSON, lists, patterns, format, length |
//! | [`judge`] | ask a language model: a verdict, a rubric, a comparison |
//! | [`code`] | run the response's program against tests |
//! | [`spreadsheet`] | compare workbooks, also those that a response's program writes |
//! | [`outside`] | live elsewhere: in a program, behind HTTP |
//! | [`compose`] | are made of others: sums, products, cascades, one for each domain |
//!
//! [`RewardConfig`] names any of them in a configuration file, and builds it. [`audit`] measures a
//! judge against a verifier. `docs/rewards.md` says when to choose which. What two texts have in
//! common is [`posttrain_answer`]'s, which is here as [`answer`].
//!
//! # An error is not a zero
//!
//! The reward is what the policy optimizes. Suppose a judge fails on three of a group's eight
//! completions, two of them right, and each failure is written down as 0. The two right ones are
//! now pushed down, as hard as any wrong answer, and the group's mean is too low, so that every
//! other completion is pushed up: the gradient says the opposite of the truth, and nothing in the
//! metrics shows it, since a curve that falls looks like a policy that gets worse. If failures go
//! with some property of the text (long answers time out, odd characters break a parser), the
//! policy even learns to avoid that property. So a reward that cannot say is
//! `Err`([`RewardError`]): that completion leaves its group's baseline and has no gradient, and the
//! failure is counted by its [`cause`](RewardError::cause). A zero always means that something
//! looked at the answer and found it wrong.
//!
//! The other way to ruin a run is a verifier that says "right" too easily, for the policy will find
//! out. So one response has one answer, at its end or where it is marked, and every verifier reads
//! untrusted text: linear time, bounded numbers, no recursion on the input's depth.
//!
//! # Example
//!
//! ```
//! use posttrain_reward::{RewardConfig, RewardError, Sample, Scorer, ScorerConfig};
//!
//! let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
//! let reward = toml::from_str::<RewardConfig>("kind = \"answer\"")?.build()?;
//! let mut scorer = Scorer::new(reward, &ScorerConfig::default(), runtime.handle().clone())?;
//!
//! // From the thread that samples, as completions finish:
//! scorer.push(Sample::new("What is 3 + 9?", "12", "3 + 9 = 12"))?;
//! scorer.push(Sample::new("What is 3 + 9?", "12", "It is 11, 12 or 13."))?;
//! scorer.push(Sample::new("What is 3 + 9?", "", "12"))?;
//!
//! let scores = scorer.finish()?;
//! assert_eq!(scores[0].as_ref().unwrap().value(), 1.0);
//! assert_eq!(scores[1].as_ref().unwrap().value(), 0.0);
//! assert!(matches!(scores[2], Err(RewardError::EmptyReference { .. })));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod audit;
#[cfg(unix)]
pub mod code;
pub mod compose;
mod config;
mod credit;
mod error;
pub mod judge;
pub mod outside;
#[cfg(unix)]
mod process;
mod reward;
mod sample;
#[cfg(unix)]
mod sandbox;
mod score;
mod scorer;
pub mod spreadsheet;
mod truncated;
mod verifier;
pub mod verifiers;

pub use config::{RewardConfig, WeightedReward};
pub use credit::Credit;
pub use error::RewardError;
pub use posttrain_answer as answer;
pub use reward::Reward;
pub use sample::Sample;
pub use score::Score;
pub use scorer::{PendingScores, Scorer, ScorerConfig, ScoringProgress};
pub use truncated::Truncated;
pub use verifier::{OnCpu, Verifier, VerifierFn, from_fn};
