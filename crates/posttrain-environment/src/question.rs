//! A question with a reward: the environment of one turn.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use posttrain_reward::{Reward, Sample};

use crate::{Action, Environment, EnvironmentError, Observation, Opening, Step};

/// Asks one question, and has the answer scored.
///
/// ```
/// use std::sync::Arc;
/// use posttrain_chat::Message;
/// use posttrain_environment::QuestionEnvironment;
/// use posttrain_reward::{Sample, Score, from_fn};
///
/// let reward = from_fn("exact", |sample: &Sample| Ok(Score::binary(sample.response == sample.reference)));
/// let sample = Sample::new("2 + 2?", "4", "");
/// let environment = QuestionEnvironment::new(Message::user("2 + 2?"), sample, Arc::new(reward));
/// ```
pub struct QuestionEnvironment {
    prompt: Observation,
    sample: Sample,
    reward: Arc<dyn Reward>,
    parts: BTreeMap<String, f64>,
}

impl QuestionEnvironment {
    /// A question as the policy reads it, and as the reward does: `sample` without a response.
    pub fn new(prompt: impl Into<Observation>, sample: Sample, reward: Arc<dyn Reward>) -> Self {
        Self { prompt: prompt.into(), sample, reward, parts: BTreeMap::new() }
    }
}

impl Environment for QuestionEnvironment {
    fn start(&mut self) -> BoxFuture<'_, Result<Opening, EnvironmentError>> {
        let opening = Opening::new(self.prompt.clone());
        std::future::ready(Ok(opening)).boxed()
    }

    fn act<'a>(&'a mut self, action: Action<'a>) -> BoxFuture<'a, Result<Step, EnvironmentError>> {
        async move {
            action.text.clone_into(&mut self.sample.response);
            self.sample.termination = action.finish_reason;
            self.sample.tokens = Some(action.tokens);

            let score = self.reward.score(&self.sample).await?;
            self.parts = score.parts().iter().cloned().collect();
            Ok(Step::done(score.value()))
        }
        .boxed()
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        self.parts.clone()
    }
}
