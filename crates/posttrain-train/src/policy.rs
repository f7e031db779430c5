//! What turns a question into tokens: model, tokenizer and chat template together.

use crate::TrainError;
use posttrain_model::{ChatTemplate, Decoder, Message, TextTokenizer};
use serde::{Deserialize, Serialize};

/// How a question is put to the model.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptStyle {
    /// A system message before the question; without one the chat template's own applies.
    pub system: Option<String>,
    /// Text after the question, such as "Answer with a number.".
    pub suffix: String,
}

impl PromptStyle {
    /// The conversation that asks `question`.
    ///
    /// ```
    /// let style = posttrain_train::PromptStyle { system: Some("Be brief.".into()), suffix: " In one word.".into() };
    /// let messages = style.messages("What colour is snow?");
    /// assert_eq!(messages[0].content, "Be brief.");
    /// assert_eq!(messages[1].content, "What colour is snow? In one word.");
    /// ```
    pub fn messages(&self, question: &str) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message::new("system", text));
        system.chain([Message::user(format!("{question}{}", self.suffix))]).collect()
    }
}

/// A base model as a policy sees it.
#[derive(Debug, Clone, Copy)]
pub struct Policy<'m> {
    /// The frozen base.
    pub model: &'m Decoder,
    /// Its tokenizer.
    pub tokenizer: &'m TextTokenizer,
    /// Its chat template.
    pub template: &'m ChatTemplate,
}

impl Policy<'_> {
    /// The prompt's token ids for a question.
    ///
    /// # Errors
    /// [`TrainError::Model`] if the template refuses.
    pub fn prompt(&self, style: &PromptStyle, question: &str) -> Result<Vec<i64>, TrainError> {
        Ok(self.template.encode(self.tokenizer, &style.messages(question), true)?)
    }
}
