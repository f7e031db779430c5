//! What an episode may use up.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::EpisodeError;

/// Limits of one episode. What is left is told to the environment with every action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Turns of the policy, 1 and up.
    pub turns: usize,
    /// Tokens that the policy may write in all its turns, 1 and up; a turn that would pass it is
    /// cut there. `None`: as its turns allow.
    pub sampled_tokens: Option<usize>,
    /// Tokens of its context, those of a turn included, 1 and up. `None`: the model's own.
    pub context_tokens: Option<usize>,
    /// Calls of tools. What is left of them is told with every action, and environments with tools
    /// refuse what goes beyond it: [`crate::ToolTask`] and [`crate::search::SearchTask`] do.
    pub tool_calls: Option<usize>,
    /// Seconds from its beginning, more than 0.
    pub seconds: Option<f64>,
}

impl Default for Budget {
    /// Eight turns.
    fn default() -> Self {
        Self {
            turns: 8,
            sampled_tokens: None,
            context_tokens: None,
            tool_calls: None,
            seconds: None,
        }
    }
}

impl Budget {
    /// Checks every field's range.
    ///
    /// # Errors
    /// [`EpisodeError::Config`] names the first field that is out of range.
    pub fn validate(&self) -> Result<(), EpisodeError> {
        let counts = [
            ("budget.turns", Some(self.turns)),
            ("budget.sampled_tokens", self.sampled_tokens),
            ("budget.context_tokens", self.context_tokens),
        ];
        if let Some((field, _)) = counts.into_iter().find(|(_, count)| *count == Some(0)) {
            return Err(EpisodeError::Config { field, expected: "at least 1", got: "0".into() });
        }

        let seconds = self.seconds.unwrap_or(1.0);
        if Duration::try_from_secs_f64(seconds).is_ok_and(|span| !span.is_zero()) {
            return Ok(());
        }
        Err(EpisodeError::Config {
            field: "budget.seconds",
            expected: "a finite number above 0",
            got: seconds.to_string(),
        })
    }
}

/// What is left of a budget before the next turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetLeft {
    /// Turns.
    pub turns: usize,
    /// Tokens of the context that nothing stands in yet.
    pub context_tokens: usize,
    /// Tokens to write.
    pub sampled_tokens: Option<usize>,
    /// Calls of tools, where they are limited.
    pub tool_calls: Option<usize>,
    /// Time.
    pub time: Option<Duration>,
}

/// Which part of a budget an episode has used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BudgetPart {
    /// Its turns.
    Turns,
    /// The tokens that the policy may write.
    SampledTokens,
    /// The context.
    ContextTokens,
    /// The time.
    Seconds,
}

/// A budget that is being used up.
#[derive(Debug)]
pub(crate) struct Meter<'a> {
    budget: &'a Budget,
    context: usize,
    began: Instant,
    turns: usize,
    sampled: usize,
    tool_calls: usize,
}

impl<'a> Meter<'a> {
    /// A fresh one, for a model with a context of so many tokens.
    pub fn new(budget: &'a Budget, model_context: usize) -> Self {
        let context = budget.context_tokens.map_or(model_context, |c| c.min(model_context));
        Self { budget, context, began: Instant::now(), turns: 0, sampled: 0, tool_calls: 0 }
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// What is left behind a context of so many tokens.
    pub fn left(&self, context: usize) -> BudgetLeft {
        let less = |budget: Option<usize>, used| budget.map(|b: usize| b.saturating_sub(used));
        let time = self.budget.seconds.map(|seconds| {
            Duration::try_from_secs_f64(seconds).unwrap_or_default().saturating_sub(self.elapsed())
        });
        BudgetLeft {
            turns: self.budget.turns.saturating_sub(self.turns),
            context_tokens: self.context.saturating_sub(context),
            sampled_tokens: less(self.budget.sampled_tokens, self.sampled),
            tool_calls: less(self.budget.tool_calls, self.tool_calls),
            time,
        }
    }

    /// Tokens that the next turn may have at most; the part of the budget that leaves it none.
    pub fn next_turn(&self, context: usize, most: usize) -> Result<usize, BudgetPart> {
        let left = self.left(context);
        let parts = [
            (BudgetPart::Turns, left.turns),
            (BudgetPart::Seconds, left.time.map_or(1, |time| usize::from(!time.is_zero()))),
            (BudgetPart::SampledTokens, left.sampled_tokens.unwrap_or(usize::MAX)),
            (BudgetPart::ContextTokens, left.context_tokens),
        ];
        if let Some((part, _)) = parts.into_iter().find(|(_, left)| *left == 0) {
            return Err(part);
        }
        let sampled = left.sampled_tokens.unwrap_or(usize::MAX);
        Ok(most.min(left.context_tokens).min(sampled))
    }

    /// Counts a turn of so many tokens.
    pub fn wrote(&mut self, tokens: usize) {
        self.turns += 1;
        self.sampled += tokens;
    }

    /// Counts calls of tools.
    pub fn called(&mut self, calls: usize) {
        self.tool_calls += calls;
    }
}
