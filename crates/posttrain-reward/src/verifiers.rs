//! Rewards that compute: the answer's text against the reference's, and the form of a response.
//!
//! What is the same, and where in a response its answer stands, is [`posttrain_answer`]'s; here it
//! becomes a score.

mod answer;
mod choice;
mod contains_all;
mod exact;
mod format;
mod json;
mod length;
mod list;
mod math;
mod normalized;
mod numeric;
mod partial;
mod pattern;
mod token_f1;

pub use answer::{AnswerConfig, AnswerMatch};
pub use choice::{ChoiceConfig, ChoiceMatch};
pub use contains_all::{ContainsAll, ContainsConfig};
pub use exact::ExactMatch;
pub use format::{FormatConfig, FormatTerm, Opening};
pub use json::{JsonConfig, JsonMatch};
pub use length::{LengthConfig, LengthTerm, LengthUnit};
pub use list::{ListConfig, ListMatch};
pub use math::{MathConfig, MathMatch, Unreadable};
pub use normalized::NormalizedMatch;
pub use numeric::NumericMatch;
pub use partial::Partial;
pub use pattern::{RegexConfig, RegexMatch, RegexUse};
pub use token_f1::TokenF1;
