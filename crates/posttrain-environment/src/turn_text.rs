//! Messages to tokens, a turn at a time.

use posttrain_chat::{Message, Role, Tool, ToolFormat};
use posttrain_model::{ChatTemplate, ModelError, Start, TextModel};

use crate::Observation;

/// Puts an episode's observations to a model.
#[derive(Debug)]
pub(crate) struct TurnText<'a> {
    model: &'a TextModel,
    template: ChatTemplate,
    /// What tells of the tools where the template does not.
    instructions: Option<String>,
}

impl<'a> TurnText<'a> {
    /// For a policy that has these tools.
    pub fn new(
        model: &'a TextModel,
        format: ToolFormat,
        tools: &[Tool],
    ) -> Result<Self, ModelError> {
        let template = (*model.template).clone();
        if tools.is_empty() {
            return Ok(Self { model, template, instructions: None });
        }
        Ok(match template.tells_tools()? {
            true => {
                Self { model, template: template.with_tools(tools.to_vec()), instructions: None }
            }
            false => Self { model, template, instructions: Some(format.instructions(tools)) },
        })
    }

    /// Where the completion of a conversation begins.
    pub fn start(&self) -> Result<Start, ModelError> {
        self.template.start()
    }

    /// A context that begins with this.
    pub fn fresh(&self, observation: &Observation) -> Result<Vec<i64>, ModelError> {
        let messages = match observation {
            Observation::Messages(messages) => messages,
            Observation::Tokens(tokens) => return Ok(tokens.clone()),
        };
        let tokenizer = &self.model.tokenizer;
        match &self.instructions {
            None => self.template.encode(tokenizer, messages, true),
            Some(text) => self.template.encode(tokenizer, &with_instructions(messages, text), true),
        }
    }

    /// What stands behind a turn that ends in `last`: its end, if the turn has not written it
    /// itself, and the observation.
    pub fn continuation(
        &self,
        last: Option<i64>,
        observation: &Observation,
    ) -> Result<Vec<i64>, ModelError> {
        let messages = match observation {
            Observation::Messages(messages) => messages,
            Observation::Tokens(tokens) => return Ok(tokens.clone()),
        };
        let mut tokens = self.template.encode_continuation(&self.model.tokenizer, messages)?;

        let ends_turn = |token: &i64| self.model.decoder.config().eos_token_ids.contains(token);
        if last.is_some_and(|last| ends_turn(&last)) && tokens.first().is_some_and(ends_turn) {
            tokens.remove(0);
        }
        Ok(tokens)
    }
}

/// Messages whose first is a system message that tells of tools.
fn with_instructions(messages: &[Message], instructions: &str) -> Vec<Message> {
    let mut messages = messages.to_vec();
    match messages.first_mut() {
        Some(first) if first.role == Role::System => {
            let text = format!("{}\n\n{instructions}", first.text());
            first.content = text.into();
        }
        _ => messages.insert(0, Message::system(instructions)),
    }
    messages
}
