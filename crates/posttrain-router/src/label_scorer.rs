//! The `LabelScorer` trait: how likely a language model finds each continuation of a prompt.

use posttrain_chat::Message;
use serde::{Deserialize, Serialize};

use crate::RouterError;

/// What a language model is asked to continue.
///
/// ```
/// use posttrain_router::Prompt;
///
/// assert_ne!(Prompt::Text("2 + 2 =".into()), Prompt::Chat(vec![]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// Text, as it is.
    Text(String),
    /// A conversation, in the model's own template, up to where the assistant begins to speak.
    Chat(Vec<Message>),
}

/// A prompt with what may follow it.
///
/// ```
/// use posttrain_router::{LabelQuery, Prompt};
///
/// let query = LabelQuery { prompt: Prompt::Text("2 + 2 =".into()), continuations: vec![" 4".into(), " 5".into()] };
/// assert_eq!(query.continuations.len(), 2);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelQuery {
    /// What comes first.
    pub prompt: Prompt,
    /// What may follow, each on its own; none is empty.
    pub continuations: Vec<String>,
}

/// How likely a continuation is.
///
/// ```
/// let likelihood = posttrain_router::Likelihood { logprob: -3.0, tokens: 2 };
/// assert_eq!(likelihood.per_token(), -1.5);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Likelihood {
    /// The sum of its tokens' log-probabilities, nats.
    pub logprob: f64,
    /// How many tokens it has, at least 1.
    pub tokens: usize,
}

impl Likelihood {
    /// The log-probability of a token on average, nats; −∞ of no token.
    ///
    /// ```
    /// assert_eq!(posttrain_router::Likelihood { logprob: 0.0, tokens: 0 }.per_token(), f64::NEG_INFINITY);
    /// ```
    #[must_use]
    pub fn per_token(self) -> f64 {
        if self.tokens == 0 { f64::NEG_INFINITY } else { self.logprob / self.tokens as f64 }
    }
}

/// Says how likely continuations are. A local language model is one; a test's stand-in another.
///
/// ```
/// use posttrain_router::{LabelQuery, LabelScorer, Likelihood, RouterError};
///
/// /// Likes short answers.
/// struct Brief;
///
/// impl LabelScorer for Brief {
///     fn score(&self, queries: &[LabelQuery]) -> Result<Vec<Vec<Likelihood>>, RouterError> {
///         let brief = |text: &String| Likelihood { logprob: -(text.len() as f64), tokens: 1 };
///         Ok(queries.iter().map(|query| query.continuations.iter().map(brief).collect()).collect())
///     }
/// }
/// assert!(Brief.score(&[])?.is_empty());
/// # Ok::<(), RouterError>(())
/// ```
pub trait LabelScorer {
    /// One list a query, one likelihood a continuation, in the same orders.
    ///
    /// # Errors
    /// Whatever kept the model from scoring; [`RouterError::foreign`] carries an implementor's own
    /// error.
    fn score(&self, queries: &[LabelQuery]) -> Result<Vec<Vec<Likelihood>>, RouterError>;
}

macro_rules! forward {
    ($pointer:ty) => {
        impl<S: LabelScorer + ?Sized> LabelScorer for $pointer {
            fn score(&self, queries: &[LabelQuery]) -> Result<Vec<Vec<Likelihood>>, RouterError> {
                (**self).score(queries)
            }
        }
    };
}

forward!(&S);
forward!(Box<S>);
forward!(std::rc::Rc<S>);
forward!(std::sync::Arc<S>);
