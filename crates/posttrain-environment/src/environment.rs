//! The `Environment` trait: anything that a policy acts in, turn by turn.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use posttrain_chat::{FinishReason, Message, Tool, ToolReply};

use crate::{BudgetLeft, EnvironmentError, EpisodeEnd, Trajectory};

/// What a policy reads.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// Messages, which the model's chat template turns into tokens.
    Messages(Vec<Message>),
    /// Token ids, as they are.
    Tokens(Vec<i64>),
}

impl From<Vec<Message>> for Observation {
    fn from(messages: Vec<Message>) -> Self {
        Self::Messages(messages)
    }
}

impl From<Message> for Observation {
    fn from(message: Message) -> Self {
        Self::Messages(vec![message])
    }
}

/// How an episode begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Opening {
    /// What the policy reads first.
    pub observation: Observation,
    /// The tools that it is told of: by its chat template if that knows how, else in the system
    /// message.
    pub tools: Vec<Tool>,
}

impl Opening {
    /// An opening without tools.
    pub fn new(observation: impl Into<Observation>) -> Self {
        Self { observation: observation.into(), tools: Vec::new() }
    }

    /// Tells the policy of tools.
    #[must_use]
    pub fn with_tools(self, tools: Vec<Tool>) -> Self {
        Self { tools, ..self }
    }
}

/// What a policy did in one turn.
#[derive(Debug, Clone, Copy)]
pub struct Action<'a> {
    /// What it wrote, without special tokens and without what it thought before.
    pub text: &'a str,
    /// The same, taken apart into words and calls of tools.
    pub reply: &'a ToolReply,
    /// How the turn ended.
    pub finish_reason: FinishReason,
    /// Tokens of the turn.
    pub tokens: usize,
    /// What is left of the episode's budget behind the turn; its calls of tools are not counted
    /// yet.
    pub left: BudgetLeft,
}

/// What comes of an action. A reward is any finite number; an episode's is the sum of its turns'.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The policy reads on, behind everything that it has read and written so far.
    Next {
        /// What it reads.
        observation: Observation,
        /// What the turn earned.
        reward: f64,
    },
    /// The policy's context is replaced: it reads this and nothing of what was before. What was
    /// sampled before is still trained on, in the context that it was sampled in.
    Rewritten {
        /// All that it reads from now on.
        observation: Observation,
        /// What the turn earned.
        reward: f64,
    },
    /// The episode is over.
    Done {
        /// What the turn earned.
        reward: f64,
    },
}

impl Step {
    /// Goes on without a reward.
    pub fn next(observation: impl Into<Observation>) -> Self {
        Self::Next { observation: observation.into(), reward: 0.0 }
    }

    /// Goes on in a new context, without a reward.
    pub fn rewritten(observation: impl Into<Observation>) -> Self {
        Self::Rewritten { observation: observation.into(), reward: 0.0 }
    }

    /// Ends the episode.
    #[must_use]
    pub fn done(reward: f64) -> Self {
        Self::Done { reward }
    }

    /// What the turn earned.
    #[must_use]
    pub fn reward(&self) -> f64 {
        match self {
            Self::Next { reward, .. } | Self::Rewritten { reward, .. } | Self::Done { reward } => {
                *reward
            }
        }
    }
}

/// What a policy acts in: one episode of it, from its opening to its end.
///
/// An environment is async, since tools wait; hundreds of episodes run beside each other, and while
/// one waits the others are sampled. It never sees a tensor, and a question with a reward is the
/// environment of one turn ([`crate::QuestionEnvironment`]).
///
/// ```
/// use futures::FutureExt;
/// use futures::future::BoxFuture;
/// use posttrain_chat::Message;
/// use posttrain_environment::{Action, Environment, EnvironmentError, Opening, Step};
///
/// /// Guess a number; three guesses at most, by the episode's budget of turns.
/// struct Guess(u32);
///
/// impl Environment for Guess {
///     fn start(&mut self) -> BoxFuture<'_, Result<Opening, EnvironmentError>> {
///         async { Ok(Opening::new(Message::user("Guess a number below 8."))) }.boxed()
///     }
///
///     fn act<'a>(&'a mut self, action: Action<'a>) -> BoxFuture<'a, Result<Step, EnvironmentError>> {
///         async move {
///             Ok(match action.text.trim().parse::<u32>() {
///                 Ok(guess) if guess == self.0 => Step::done(1.0),
///                 Ok(guess) if guess < self.0 => Step::next(Message::user("Higher.")),
///                 Ok(_) => Step::next(Message::user("Lower.")),
///                 Err(_) => Step::next(Message::user("A number, please.")),
///             })
///         }
///         .boxed()
///     }
/// }
/// ```
pub trait Environment: Send {
    /// Begins the episode. It is called once, before anything else.
    ///
    /// # Errors
    /// Whatever keeps it from beginning. An environment that fails is no zero: its episode has no
    /// reward, and is not trained on.
    fn start(&mut self) -> BoxFuture<'_, Result<Opening, EnvironmentError>>;

    /// Takes what the policy wrote. It is not called any more once it has said
    /// [`Step::Done`].
    ///
    /// # Errors
    /// Whatever keeps it from an answer. What the policy did wrong is an observation, or a reward.
    fn act<'a>(&'a mut self, action: Action<'a>) -> BoxFuture<'a, Result<Step, EnvironmentError>>;

    /// What an episode earns whose budget ended it: 0 unless the environment says otherwise.
    ///
    /// # Errors
    /// As [`Environment::act`].
    fn cut(&mut self, end: &EpisodeEnd) -> BoxFuture<'_, Result<f64, EnvironmentError>> {
        let _ = end;
        Box::pin(std::future::ready(Ok(0.0)))
    }

    /// Numbers to be told beside the reward, by name. Called once, at the end.
    fn metrics(&self) -> BTreeMap<String, f64> {
        BTreeMap::new()
    }

    /// Episodes that other policies had on this one's behalf: sub-agents'. Called after each turn.
    fn take_children(&mut self) -> Vec<Trajectory> {
        Vec::new()
    }
}
