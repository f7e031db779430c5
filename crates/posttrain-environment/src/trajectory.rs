//! What was read and written in an episode, token for token.

use std::collections::BTreeMap;
use std::ops::Range;

use posttrain_chat::{FinishReason, Message};
use serde::{Deserialize, Serialize};

use crate::BudgetPart;

/// How an episode ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EpisodeEnd {
    /// Its environment said so.
    Done,
    /// A part of its budget was used up.
    OutOf(BudgetPart),
}

/// An episode: every token that the policy read or wrote, in the order in which the model saw them.
///
/// Tokens that were sampled stand here as they were sampled: nothing is rendered or encoded again.
/// What the policy reads of a turn is what it read before it, then what it wrote, then what the
/// environment answered; where an environment replaced the context, a new [`Segment`] begins.
///
/// ```
/// use posttrain_environment::{EpisodeEnd, Segment, Trajectory, Turn};
///
/// let mut segment = Segment::new(vec![1, 2, 3]);
/// let turn = Turn::sampled(segment.write(0, &[7, 8]), vec![-0.5, -1.5], vec![4, 4]);
/// segment.read(&[9]);
/// let mut trajectory = Trajectory::new("policy");
/// trajectory.segments.push(segment);
/// trajectory.turns.push(Turn { reward: 1.0, ..turn });
///
/// assert_eq!(trajectory.segments[0].tokens, [1, 2, 3, 7, 8, 9]);
/// assert_eq!((trajectory.reward(), trajectory.sampled_tokens()), (1.0, 2));
/// assert_eq!(trajectory.end, EpisodeEnd::Done);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trajectory {
    /// Whose episode it was, where several policies act.
    pub role: String,
    /// What a sub-agent worked on, as its environment names it: it is compared with others of the same
    /// name, where it is empty with all of its role in the task.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subtask: String,
    /// What it read at its beginning.
    pub opening: Vec<Message>,
    /// The contexts that it had, one after another.
    pub segments: Vec<Segment>,
    /// Its turns.
    pub turns: Vec<Turn>,
    /// How it ended.
    pub end: EpisodeEnd,
    /// What the end itself earned, beside the turns.
    pub end_reward: f64,
    /// What the environment tells of it.
    pub metrics: BTreeMap<String, f64>,
    /// How long it took.
    pub seconds: f64,
}

/// A context: text that a model has read and written without a break.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Segment {
    /// Its tokens.
    pub tokens: Vec<i64>,
    /// Where the policy wrote: `tokens[range]`, rising.
    pub written: Vec<Range<usize>>,
}

impl Segment {
    /// A context that begins with something to read.
    #[must_use]
    pub fn new(read: Vec<i64>) -> Self {
        Self { tokens: read, written: Vec::new() }
    }

    /// Adds what the policy wrote in the context `segment` of its trajectory; its place.
    pub fn write(&mut self, segment: usize, tokens: &[i64]) -> Place {
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        let range = start..self.tokens.len();
        self.written.push(range.clone());
        Place { segment, range }
    }

    /// Adds what the policy read.
    pub fn read(&mut self, tokens: &[i64]) {
        self.tokens.extend_from_slice(tokens);
    }

    /// For each token, whether the policy wrote it: what is trained on.
    #[must_use]
    pub fn mask(&self) -> Vec<bool> {
        let mut mask = vec![false; self.tokens.len()];
        for range in &self.written {
            mask[range.clone()].fill(true);
        }
        mask
    }
}

/// Where a turn stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Place {
    /// The segment, from 0.
    pub segment: usize,
    /// Its tokens there.
    pub range: Range<usize>,
}

/// A turn of the policy.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Turn {
    /// Where it stands.
    pub place: Place,
    /// Each token's log-probability, nats, under the distribution that it was drawn from. Empty for
    /// a turn that nobody sampled: a demonstration's.
    pub logprobs: Vec<f32>,
    /// The version of the policy that wrote each token.
    pub versions: Vec<u64>,
    /// The text, without special tokens.
    pub text: String,
    /// How it ended.
    pub finish_reason: FinishReason,
    /// How many tools it called.
    pub tool_calls: usize,
    /// How many calls of its could not be read.
    pub malformed_calls: usize,
    /// What the environment answered.
    pub answer: Vec<Message>,
    /// Episodes that other policies had on its behalf, beside each other.
    pub children: Vec<Trajectory>,
    /// What the turn earned.
    pub reward: f64,
    /// Seconds until it was written.
    pub seconds_sampling: f64,
    /// Seconds until the environment had answered.
    pub seconds_acting: f64,
}

impl Turn {
    /// A turn at its place, with what its sampler told.
    #[must_use]
    pub fn sampled(place: Place, logprobs: Vec<f32>, versions: Vec<u64>) -> Self {
        Self { place, logprobs, versions, ..Self::default() }
    }
}

impl Trajectory {
    /// One of no turns yet.
    pub fn new(role: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            subtask: String::new(),
            opening: Vec::new(),
            segments: Vec::new(),
            turns: Vec::new(),
            end: EpisodeEnd::Done,
            end_reward: 0.0,
            metrics: BTreeMap::new(),
            seconds: 0.0,
        }
    }

    /// Names what a sub-agent worked on.
    #[must_use]
    pub fn on(self, subtask: impl Into<String>) -> Self {
        Self { subtask: subtask.into(), ..self }
    }

    /// The episode's reward: the sum of its turns' and its end's.
    #[must_use]
    pub fn reward(&self) -> f64 {
        self.turns.iter().map(|turn| turn.reward).sum::<f64>() + self.end_reward
    }

    /// Tokens that the policy wrote.
    #[must_use]
    pub fn sampled_tokens(&self) -> usize {
        self.turns.iter().map(|turn| turn.place.range.len()).sum()
    }

    /// Tokens that the policy read: every context's, each once.
    #[must_use]
    pub fn observed_tokens(&self) -> usize {
        let all: usize = self.segments.iter().map(|segment| segment.tokens.len()).sum();
        all - self.sampled_tokens()
    }

    /// Calls of tools.
    #[must_use]
    pub fn tool_calls(&self) -> usize {
        self.turns.iter().map(|turn| turn.tool_calls).sum()
    }

    /// How many turns one after another it takes, where sub-agents run beside each other: its own,
    /// and for each of them the longest sub-agent's (Kimi K2.5's critical steps).
    #[must_use]
    pub fn critical_steps(&self) -> usize {
        let longest =
            |turn: &Turn| turn.children.iter().map(Self::critical_steps).max().unwrap_or(0);
        self.turns.iter().map(|turn| 1 + longest(turn)).sum()
    }

    /// The episodes of sub-agents, of whatever turn.
    pub fn children(&self) -> impl Iterator<Item = &Self> {
        self.turns.iter().flat_map(|turn| &turn.children)
    }

    /// The trajectory and all below it.
    #[must_use]
    pub fn with_children(&self) -> Vec<&Self> {
        let mut all = vec![self];
        for child in self.children() {
            all.extend(child.with_children());
        }
        all
    }
}
