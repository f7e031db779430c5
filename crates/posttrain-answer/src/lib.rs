//! Text to answer: what a response says, and whether it is what the reference says.
//!
//! A language model answers in prose; a data set has a reference. [`same`] says whether the two
//! agree, and is all that most users need. Where there are options, each kind of answer has a rule
//! of its own, a plain struct whose `compare` takes a reference and a response:
//!
//! | rule | the answer is | modules beside it |
//! | --- | --- | --- |
//! | [`math::Math`] | mathematics, compared by its value | [`number`] for what `,`, `%` and units mean |
//! | [`short::ShortAnswer`] | a number or a few words | [`text`] for what counts as the same word |
//! | [`number::Numeric`] | a number and nothing else | |
//! | [`choice::Choice`] | a letter of a multiple choice | |
//! | [`list::List`] | a set or a sequence | |
//! | [`json::Json`] | JSON | |
//!
//! All but `Numeric` first find the answer in the response ([`Extraction`]); thinking
//! (`<think>…</think>`) is never looked at ([`response`]). The outcome is a [`Comparison`]: a
//! [`Verdict`] and the text that it is about. A wrong answer is a verdict; [`AnswerError`] is a
//! reference that can agree with nothing, which is the data set's mistake.
//!
//! # Hostile text
//!
//! Texts come from a policy that is paid for what is accepted here. So one response has one answer,
//! at its end or where it is marked, and what is doubtful earns nothing. No text takes more than
//! bounded time: one pass over at most `max_bytes` of it, grammars of bounded depth and size,
//! arithmetic of bounded precision. There are no regular expressions, no threads and no clock.
//!
//! # Example
//!
//! ```
//! use posttrain_answer::math::Math;
//! use posttrain_answer::{Verdict, same};
//!
//! assert!(same("72", "48 + 24 = 72 clips altogether.\n#### 72"));
//! assert!(!same("72", "It is 70, 71 or 72."));
//!
//! let rough = Math { decimals: 2, ..Math::default() };
//! let comparison = rough.compare(r"\sqrt{2}", "about 1.414")?;
//! assert_eq!(comparison.verdict, Verdict::Same);
//! # Ok::<(), posttrain_answer::AnswerError>(())
//! ```

pub mod choice;
mod comparison;
mod error;
mod extraction;
pub mod json;
pub mod list;
pub mod math;
pub mod number;
mod reference;
pub mod response;
mod same;
pub mod short;
pub mod text;

pub use comparison::{Comparison, Found, Verdict};
pub use error::AnswerError;
pub use extraction::{Extraction, extract};
pub use same::{compare, same};
