//! What an agent program does that nobody here wrote: its calls of a chat model, joined to
//! trajectories.

use posttrain_chat::{Message, Tool, ToolFormat};
use posttrain_model::TextModel;
use posttrain_rollout::Completion;
use serde_json::Value;

use crate::turn_text::TurnText;
use crate::{EpisodeEnd, EpisodeError, Observation, Segment, Trajectory, Turn};

/// One episode of an agent program, which sends whole conversations and knows nothing of tokens.
///
/// A call whose messages go on from what an earlier call ended with is put to the model behind the
/// very tokens that were read and sampled there: the prompt's beginning is the last turn's context,
/// token for token, whatever encoding its text again would give. Where a program goes back to an
/// earlier place (a fork), or sends something else (a summary in place of the conversation, another
/// system message, another set of tools), a new [`Segment`] begins.
#[derive(Debug)]
pub struct Capture {
    trajectory: Trajectory,
    /// Places that a conversation can go on from, the latest last.
    nodes: Vec<Node>,
}

/// The end of a turn.
#[derive(Debug)]
struct Node {
    /// The conversation up to here, the model's answer included.
    messages: Vec<Message>,
    tools: Vec<Tool>,
    segment: usize,
    /// How many tokens of its segment stand up to here.
    tokens: usize,
}

/// A call that is to be sampled.
#[derive(Debug, Clone)]
pub struct CapturedCall {
    /// The prompt.
    pub tokens: Vec<i64>,
    messages: Vec<Message>,
    tools: Vec<Tool>,
    /// What the prompt begins with: a segment, and how many of its tokens.
    from: Option<(usize, usize)>,
    /// How many of the messages are new.
    new: usize,
}

impl Capture {
    /// An episode of a role's.
    pub fn new(role: impl Into<String>) -> Self {
        Self { trajectory: Trajectory::new(role), nodes: Vec::new() }
    }

    /// Puts a call's conversation to the model.
    ///
    /// # Errors
    /// [`EpisodeError::Text`] if the template or the tokenizer refuses.
    pub fn prepare(
        &self,
        model: &TextModel,
        format: ToolFormat,
        (messages, tools): (Vec<Message>, Vec<Tool>),
    ) -> Result<CapturedCall, EpisodeError> {
        let failed = |source| EpisodeError::Text { turn: self.trajectory.turns.len(), source };
        let text = TurnText::new(model, format, &tools).map_err(failed)?;
        let goes_on = |node: &&Node| {
            let known = node.messages.len();
            node.tools == tools
                && messages.len() > known
                && messages.iter().zip(&node.messages).all(|(one, other)| same(one, other))
                // An answer that was not sampled here has to be read like anything else.
                && messages[known..].iter().all(|m| m.role != posttrain_chat::Role::Assistant)
        };
        let longest = self.nodes.iter().filter(goes_on).max_by_key(|node| node.messages.len());

        let (from, tokens, new) = match longest {
            None => {
                let tokens = text.fresh(&Observation::Messages(messages.clone()));
                (None, tokens.map_err(failed)?, messages.len())
            }
            Some(node) => {
                let before = &self.trajectory.segments[node.segment].tokens[..node.tokens];
                let added = messages[node.messages.len()..].to_vec();
                let new = added.len();
                let behind =
                    text.continuation(before.last().copied(), &Observation::Messages(added));
                let tokens = [before, &behind.map_err(failed)?].concat();
                (Some((node.segment, node.tokens)), tokens, new)
            }
        };
        Ok(CapturedCall { tokens, messages, tools, from, new })
    }

    /// Takes down what was sampled for a call, and the message that the program was answered with.
    pub fn record(&mut self, call: CapturedCall, completion: &Completion, answer: Message) {
        let tip = |(segment, tokens): (usize, usize)| {
            (self.trajectory.segments[segment].tokens.len() == tokens).then_some(segment)
        };
        let segment = if let Some(segment) = call.from.and_then(tip) {
            let known = self.trajectory.segments[segment].tokens.len();
            self.trajectory.segments[segment].read(&call.tokens[known..]);
            segment
        } else {
            // A fork, or a beginning: what was sampled elsewhere is read here, and trained on there.
            self.trajectory.segments.push(Segment::new(call.tokens.clone()));
            self.trajectory.segments.len() - 1
        };

        let read = &call.messages[call.messages.len() - call.new..];
        match self.trajectory.turns.last_mut() {
            Some(last) => last.answer = read.to_vec(),
            None => self.trajectory.opening = read.to_vec(),
        }
        let place = self.trajectory.segments[segment].write(segment, &completion.tokens);
        let tokens = place.range.end;
        self.trajectory.turns.push(Turn {
            text: completion.text.clone(),
            finish_reason: completion.finish_reason,
            tool_calls: answer.tool_calls.as_ref().map_or(0, Vec::len),
            ..Turn::sampled(place, completion.logprobs.clone(), completion.token_versions.clone())
        });

        let mut messages = call.messages;
        messages.push(answer);
        self.nodes.push(Node { messages, tools: call.tools, segment, tokens });
    }

    /// The episode so far.
    #[must_use]
    pub fn trajectory(&self) -> &Trajectory {
        &self.trajectory
    }

    /// The episode, with what it earned in all.
    #[must_use]
    pub fn finish(mut self, reward: f64) -> Trajectory {
        self.trajectory.end = EpisodeEnd::Done;
        self.trajectory.end_reward = reward;
        self.trajectory
    }
}

/// Whether two messages say the same: a client may send content as parts, or `null` for nothing,
/// and a call's arguments as a text.
fn same(one: &Message, other: &Message) -> bool {
    let calls = |message: &Message| -> Vec<Call> {
        let calls = message.tool_calls.iter().flatten().map(|call| {
            let arguments = match &call.function.arguments {
                Value::String(text) => {
                    serde_json::from_str(text).unwrap_or_else(|_| text.clone().into())
                }
                value => value.clone(),
            };
            (call.id.clone(), call.function.name.clone(), arguments)
        });
        calls.collect()
    };
    one.role == other.role
        && one.text() == other.text()
        && one.tool_call_id == other.tool_call_id
        && same_calls(&calls(one), &calls(other))
}

/// A call's id, its tool, and its arguments.
type Call = (Option<String>, String, Value);

fn same_calls(one: &[Call], other: &[Call]) -> bool {
    let same = |(one, other): (&Call, &Call)| {
        (&one.0, &one.1) == (&other.0, &other.1) && alike(&one.2, &other.2)
    };
    one.len() == other.len() && one.iter().zip(other).all(same)
}

/// Whether two values are the same, numbers by what they are worth: a client may read `2.0` and write
/// `2`.
fn alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| alike(a, b))
        }
        (Value::Object(one), Value::Object(other)) => {
            let same = |(name, a): (&String, &Value)| other.get(name).is_some_and(|b| alike(a, b));
            one.len() == other.len() && one.iter().all(same)
        }
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_what_they_are_worth() {
        let one = json!({ "a": [2.0, { "b": 9_007_199_254_740_993_u64 }], "c": "2" });
        let other = json!({ "c": "2", "a": [2, { "b": 9_007_199_254_740_992_u64 }] });
        assert!(alike(&one, &other) && alike(&other, &one));
        for wrong in
            [json!({ "a": [2], "c": "2" }), json!({ "a": [2, { "b": 1 }], "c": "2" }), json!(2)]
        {
            assert!(!alike(&one, &wrong), "{wrong}");
        }
    }
}
