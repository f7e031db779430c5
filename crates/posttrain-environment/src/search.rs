//! Search by a policy that edits its own context: it searches, reads, prunes what is of no use, and
//! answers with the passages that the question needs (Chroma's Context-1, Harness-1).

mod corpus;
mod task;

pub use corpus::{Corpus, Passage};
pub use task::{SearchConfig, SearchReward, SearchTask};
