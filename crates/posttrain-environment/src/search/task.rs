//! One question to a corpus.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use posttrain_chat::{Message, Role, Tool, ToolCall};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::search::Corpus;
use crate::{Action, Environment, EnvironmentError, EpisodeEnd, EpisodeError, Opening, Step};

/// How a policy may search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SearchConfig {
    /// Passages that a search shows, 1 and up. What is in the context already is not shown again.
    pub results: usize,
    /// Whether the policy may prune. Without it, what was read stays until the end: the
    /// comparison.
    pub prune: bool,
    /// Tokens of the context below which the policy is asked to prune.
    pub soft: usize,
    /// Tokens of the context below which nothing but pruning and answering is done. It must hold what
    /// a search shows, and the call that prunes it.
    pub hard: usize,
    /// Whether the policy is told of its tools by their schemas, or in a line: a small context has
    /// no room for schemas, and a policy that was warmed up needs none.
    pub schemas: bool,
    /// What an episode is worth.
    pub reward: SearchReward,
}

impl Default for SearchConfig {
    fn default() -> Self {
        Self {
            results: 4,
            prune: true,
            soft: 160,
            hard: 96,
            schemas: true,
            reward: SearchReward::default(),
        }
    }
}

impl SearchConfig {
    /// Checks every field's range.
    ///
    /// # Errors
    /// [`EpisodeError::Config`] names the first field that is out of range.
    pub fn validate(&self) -> Result<(), EpisodeError> {
        let check = |field, ok: bool, expected, got: String| match ok {
            true => Ok(()),
            false => Err(EpisodeError::Config { field, expected, got }),
        };
        check("search.results", self.results > 0, "at least 1", "0".into())?;
        check("search.hard", self.hard <= self.soft, "at most `soft`", self.hard.to_string())?;
        let reward = &self.reward;
        let betas = [
            ("search.reward.beta", reward.beta),
            ("search.reward.final_beta", reward.final_beta.unwrap_or(1.0)),
        ];
        for (field, beta) in betas {
            check(field, beta.is_finite() && beta > 0.0, "finite and above 0", beta.to_string())?;
        }
        let finite = [reward.f_beta, reward.found, reward.turn].iter().all(|w| w.is_finite());
        check("search.reward", finite, "finite weights", format!("{reward:?}"))
    }
}

/// What an episode is worth: `f_beta · F_beta + found · (all found) − turn · turns`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SearchReward {
    /// The weight of recall beside precision in `F_beta`: above 1 recall counts more.
    pub beta: f64,
    /// What `beta` becomes by a run's last step, for a curriculum from recall to precision; it stays
    /// where this is left out.
    pub final_beta: Option<f64>,
    /// The weight of `F_beta` of the passages that were answered.
    pub f_beta: f64,
    /// What it is worth that all are among them.
    pub found: f64,
    /// What each turn costs.
    pub turn: f64,
}

impl Default for SearchReward {
    /// Recall before precision, as Context-1 begins its curriculum.
    fn default() -> Self {
        Self { beta: 2.0, final_beta: None, f_beta: 1.0, found: 0.5, turn: 0.01 }
    }
}

impl SearchReward {
    /// The reward at a share of a run, from 0 to 1: `beta` goes from its first value to its last in
    /// equal ratios.
    ///
    /// ```
    /// use posttrain_environment::search::SearchReward;
    ///
    /// let reward = SearchReward { beta: 4.0, final_beta: Some(1.0), ..SearchReward::default() };
    /// let beta = |progress| reward.at(progress).beta;
    /// assert_eq!((beta(0.0), beta(0.5), beta(1.0)), (4.0, 2.0, 1.0));
    /// ```
    #[must_use]
    pub fn at(self, progress: f64) -> Self {
        let last = self.final_beta.unwrap_or(self.beta);
        let beta = self.beta * (last / self.beta).powf(progress.clamp(0.0, 1.0));
        Self { beta, final_beta: None, ..self }
    }

    fn value(&self, right: usize, answered: usize, wanted: usize, turns: usize) -> f64 {
        let square = self.beta * self.beta;
        // (1 + b²)·right / (b²·wanted + answered), which is 0 for nothing.
        let below = square * wanted as f64 + answered as f64;
        let f_beta = if below > 0.0 { (1.0 + square) * right as f64 / below } else { 0.0 };
        let found = f64::from(u8::from(wanted > 0 && right == wanted));
        self.f_beta * f_beta + self.found * found - self.turn * turns as f64
    }
}

/// Of a text in English with names and numbers.
const BYTES_A_TOKEN: usize = 3;

/// A question whose answer is a set of passages.
pub struct SearchTask {
    corpus: Arc<Corpus>,
    config: SearchConfig,
    question: String,
    wanted: BTreeSet<u32>,
    /// What was asked and what was read, in the present context.
    asked: Vec<String>,
    shown: Vec<u32>,
    seen: BTreeSet<u32>,
    answered: BTreeSet<u32>,
    pruned: usize,
    pruned_rightly: usize,
    turns: usize,
}

impl SearchTask {
    /// A question that the passages `wanted` answer.
    pub fn new(
        corpus: Arc<Corpus>,
        config: SearchConfig,
        question: impl Into<String>,
        wanted: impl IntoIterator<Item = u32>,
    ) -> Self {
        Self {
            corpus,
            config,
            question: question.into(),
            wanted: wanted.into_iter().collect(),
            asked: Vec::new(),
            shown: Vec::new(),
            seen: BTreeSet::new(),
            answered: BTreeSet::new(),
            pruned: 0,
            pruned_rightly: 0,
            turns: 0,
        }
    }

    fn tools(&self) -> Vec<Tool> {
        let object = |properties: Value, required: &str| json!({"type": "object", "properties": properties, "required": [required]});
        let text = |name: &str| object(json!({ name: {"type": "string"} }), name);
        let ids = || object(json!({"ids": {"type": "array", "items": {"type": "integer"}}}), "ids");
        let mut tools = vec![
            Tool::new("search", "Finds passages.", text("query")),
            Tool::new("grep", "Finds passages with a text.", text("text")),
            Tool::new("answer", "Ends with these passages.", ids()),
        ];
        if self.config.prune {
            tools.insert(2, Tool::new("prune", "Forgets passages.", ids()));
        }
        tools
    }

    /// One call: what the policy reads, or that its context begins anew.
    fn call(&mut self, call: &ToolCall, left: usize) -> Outcome {
        let arguments = &call.function.arguments;
        let ids = || -> Option<BTreeSet<u32>> {
            let ids = arguments["ids"].as_array()?.iter();
            ids.map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
        };
        let full = left < self.config.hard;
        match (call.function.name.as_str(), arguments) {
            ("search" | "grep", _) if full => Outcome::read(if self.config.prune {
                "Error: the context is full: prune or answer."
            } else {
                "Error: the context is full: answer."
            }),
            ("search", arguments) => match arguments["query"].as_str() {
                Some(query) => self.found(query, |corpus, most| corpus.search(query, most)),
                None => Outcome::read("Error: `query` must be a text."),
            },
            ("grep", arguments) => match arguments["text"].as_str() {
                Some(text) => self.found(text, |corpus, most| corpus.grep(text, most)),
                None => Outcome::read("Error: `text` must be a text."),
            },
            ("prune", _) if self.config.prune => match ids() {
                Some(ids) => self.prune(&ids),
                None => Outcome::read("Error: `ids` must be a list of numbers."),
            },
            ("answer", _) => match ids() {
                Some(ids) => Outcome::Answer(ids),
                None => Outcome::read("Error: `ids` must be a list of numbers."),
            },
            _ => Outcome::read("Error: there is no such tool."),
        }
    }

    /// What a search has found that is not in the context yet.
    fn found(&mut self, asked: &str, find: impl FnOnce(&Corpus, usize) -> Vec<u32>) -> Outcome {
        self.asked.push(asked.chars().take(200).collect());
        let most = self.config.results + self.shown.len();
        let found = find(&self.corpus, most).into_iter().filter(|id| !self.shown.contains(id));
        let new: Vec<u32> = found.take(self.config.results).collect();
        self.shown.extend(&new);
        self.seen.extend(&new);
        Outcome::Read(if new.is_empty() { "Nothing new.".into() } else { self.passages(&new) })
    }

    fn prune(&mut self, ids: &BTreeSet<u32>) -> Outcome {
        let gone: Vec<u32> = self.shown.iter().filter(|id| ids.contains(id)).copied().collect();
        if gone.is_empty() {
            return Outcome::read("Error: none of these passages is in the context.");
        }
        self.pruned += gone.len();
        self.pruned_rightly += gone.iter().filter(|id| !self.wanted.contains(id)).count();
        self.shown.retain(|id| !ids.contains(id));
        Outcome::Pruned
    }

    fn passages(&self, ids: &[u32]) -> String {
        let lines = ids.iter().filter_map(|id| Some(format!("[{id}] {}", self.corpus.text(*id)?)));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The context as it begins: the question, what was asked, and what is kept of what was read.
    fn context(&self) -> Vec<Message> {
        let mut text = self.question.clone();
        if !self.asked.is_empty() {
            let _ = write!(text, "\nSearched: {}", self.asked.join("; "));
        }
        if !self.shown.is_empty() {
            let _ = write!(text, "\nKept:\n{}", self.passages(&self.shown));
        }
        if self.config.schemas {
            return vec![Message::user(text)];
        }
        let prune = if self.config.prune { ", prune(ids)" } else { "" };
        let tools = format!("Tools: search(query), grep(text){prune}, answer(ids).");
        vec![Message::system(tools), Message::user(text)]
    }

    /// What the policy is told of its budget once it has read `text`. Its tokens are counted when
    /// they are in the context: here by a length that few words are below.
    fn status(&self, left: usize, text: &str) -> String {
        let left = left.saturating_sub(text.len().div_ceil(BYTES_A_TOKEN));
        let ask = match (left < self.config.soft, self.config.prune) {
            (true, true) => "; prune soon",
            (true, false) => "; answer soon",
            _ => "",
        };
        format!("(about {left} tokens left{ask})")
    }

    /// How many of the passages that were answered are right. One that was never read is not: nobody
    /// guesses numbers.
    fn right(&self) -> usize {
        let seen = |id: &&u32| self.seen.contains(id);
        self.answered.intersection(&self.wanted).filter(seen).count()
    }

    fn value(&self) -> f64 {
        let (answered, wanted) = (self.answered.len(), self.wanted.len());
        self.config.reward.value(self.right(), answered, wanted, self.turns)
    }
}

/// What comes of a call.
enum Outcome {
    Read(String),
    Pruned,
    Answer(BTreeSet<u32>),
}

impl Outcome {
    fn read(text: &str) -> Self {
        Self::Read(text.to_owned())
    }
}

impl Environment for SearchTask {
    fn start(&mut self) -> BoxFuture<'_, Result<Opening, EnvironmentError>> {
        let tools = if self.config.schemas { self.tools() } else { Vec::new() };
        let opening = Opening::new(self.context()).with_tools(tools);
        std::future::ready(Ok(opening)).boxed()
    }

    fn act<'a>(&'a mut self, action: Action<'a>) -> BoxFuture<'a, Result<Step, EnvironmentError>> {
        self.turns += 1;
        let left = action.left.context_tokens;
        let reply = action.reply;
        let outcome = match (reply.calls.as_slice(), reply.malformed.as_slice()) {
            ([call], []) if action.left.tool_calls == Some(0) && call.function.name != "answer" => {
                Outcome::read("Error: no calls are left: answer.")
            }
            ([call], []) => self.call(call, left),
            ([], []) => Outcome::read("Error: call one of the tools."),
            ([], [malformed]) => {
                Outcome::Read(format!("Error: the call cannot be read: {}", malformed.reason))
            }
            _ => Outcome::read("Error: nothing was done: one call a turn."),
        };
        let step = match outcome {
            Outcome::Read(text) => {
                let text = format!("{text}\n{}", self.status(left, &text));
                Step::next(Message::new(Role::Tool, text))
            }
            Outcome::Pruned => Step::rewritten(self.context()),
            Outcome::Answer(ids) => {
                self.answered = ids;
                Step::done(self.value())
            }
        };
        std::future::ready(Ok(step)).boxed()
    }

    /// Whoever does not answer has found nothing, and had turns.
    fn cut(&mut self, _end: &EpisodeEnd) -> BoxFuture<'_, Result<f64, EnvironmentError>> {
        std::future::ready(Ok(-self.config.reward.turn * self.turns as f64)).boxed()
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        let right = self.right() as f64;
        let share = |of: f64, all: usize| if all == 0 { 0.0 } else { of / all as f64 };
        let mut metrics = BTreeMap::from([
            ("recall".to_owned(), share(right, self.wanted.len())),
            ("precision".to_owned(), share(right, self.answered.len())),
            ("searches".to_owned(), self.asked.len() as f64),
            (
                "unwanted".to_owned(),
                share(self.seen.difference(&self.wanted).count() as f64, self.seen.len()),
            ),
            ("pruned".to_owned(), self.pruned as f64),
        ]);
        if self.pruned > 0 {
            let rightly = share(self.pruned_rightly as f64, self.pruned);
            metrics.insert("prune_accuracy".to_owned(), rightly);
        }
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reward_is_f_beta_with_what_turns_cost() {
        let reward = SearchReward { beta: 1.0, turn: 0.1, ..SearchReward::default() };
        // Precision 1/2, recall 1: F1 = 2/3.
        assert!((reward.value(2, 4, 2, 3) - (2.0 / 3.0 + 0.5 - 0.3)).abs() < 1e-12);
        assert_eq!(reward.value(0, 0, 2, 0), 0.0);
        assert!((reward.value(1, 1, 2, 0) - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let field = |config: SearchConfig| match config.validate() {
            Err(EpisodeError::Config { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(SearchConfig { results: 0, ..SearchConfig::default() }), "search.results");
        assert_eq!(field(SearchConfig { hard: 999, ..SearchConfig::default() }), "search.hard");
        let reward = SearchReward { beta: 0.0, ..SearchReward::default() };
        assert_eq!(field(SearchConfig { reward, ..SearchConfig::default() }), "search.reward.beta");
        let reward = SearchReward { final_beta: Some(-1.0), ..SearchReward::default() };
        let last = field(SearchConfig { reward, ..SearchConfig::default() });
        assert_eq!(last, "search.reward.final_beta");
    }
}
