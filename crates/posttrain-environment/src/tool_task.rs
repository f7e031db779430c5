//! A question that a policy may use tools for.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use posttrain_chat::Message;
use posttrain_reward::{Reward, Sample};

use crate::{Action, Environment, EnvironmentError, Opening, Step, Tools};

/// A question with tools: a turn that calls some is answered with their results, and the first
/// that calls none is the answer, which is scored. An episode that ends without an answer earns 0:
/// the policy had its turns.
pub struct ToolTask {
    messages: Vec<Message>,
    tools: Arc<Tools>,
    sample: Sample,
    reward: Arc<dyn Reward>,
    calls: usize,
    malformed: usize,
    value: Option<f64>,
}

impl ToolTask {
    /// A task. `sample` is the question as the reward reads it, without a response.
    #[must_use]
    pub fn new(
        messages: Vec<Message>,
        tools: Arc<Tools>,
        sample: Sample,
        reward: Arc<dyn Reward>,
    ) -> Self {
        Self { messages, tools, sample, reward, calls: 0, malformed: 0, value: None }
    }
}

impl ToolTask {
    /// Has the answer scored.
    async fn score(&mut self, action: &Action<'_>) -> Result<Step, EnvironmentError> {
        action.text.clone_into(&mut self.sample.response);
        self.sample.termination = action.finish_reason;
        self.sample.tokens = Some(action.tokens);

        let value = self.reward.score(&self.sample).await?.value();
        self.value = Some(value);
        Ok(Step::done(value))
    }
}

impl Environment for ToolTask {
    fn start(&mut self) -> BoxFuture<'_, Result<Opening, EnvironmentError>> {
        let opening = Opening::new(self.messages.clone()).with_tools(self.tools.tools());
        std::future::ready(Ok(opening)).boxed()
    }

    fn act<'a>(&'a mut self, action: Action<'a>) -> BoxFuture<'a, Result<Step, EnvironmentError>> {
        async move {
            let reply = action.reply;
            self.calls += reply.calls.len();
            self.malformed += reply.malformed.len();
            if reply.calls.is_empty() && reply.malformed.is_empty() {
                return self.score(&action).await;
            }
            Ok(Step::next(self.tools.answers(reply, action.left.tool_calls).await?))
        }
        .boxed()
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        BTreeMap::from([
            ("tool_calls".to_owned(), self.calls as f64),
            ("malformed_calls".to_owned(), self.malformed as f64),
            // Whoever does not answer is not right.
            ("right".to_owned(), self.value.unwrap_or(0.0)),
        ])
    }
}
