//! How a question becomes a prompt.

use crate::RecipeError;
use posttrain_model::{ChatTemplate, Message, TextTokenizer};
use serde::{Deserialize, Serialize};

/// How a question is put to the model.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptStyle {
    /// As a conversation or as plain text.
    pub form: PromptForm,
    /// What stands before everything else: a system message, without which the chat template's own
    /// applies, or the plain text's first paragraph.
    pub system: Option<String>,
    /// Text after every question, such as " Answer with a number.".
    pub suffix: String,
    /// Questions that are already answered when the prompt begins. They show a small model the form
    /// of an answer.
    pub shots: Vec<Shot>,
}

/// Whether a prompt is a conversation or a plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptForm {
    /// Messages in the model's chat template.
    #[default]
    Chat,
    /// `Question: …` and `Answer:` on lines of their own, to be continued; for the stop text, a new
    /// line will do. It begins as the tokenizer has a text begin.
    Plain,
}

/// A question with its answer, as an example within a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shot {
    /// What is asked.
    pub question: String,
    /// What is answered.
    pub answer: String,
}

impl PromptStyle {
    /// The conversation that asks `question`.
    ///
    /// ```
    /// let style = posttrain_recipes::PromptStyle {
    ///     system: Some("Be brief.".into()),
    ///     suffix: " In one word.".into(),
    ///     ..Default::default()
    /// };
    /// let messages = style.messages("What color is snow?");
    /// assert_eq!(messages[0].text(), "Be brief.");
    /// assert_eq!(messages[1].text(), "What color is snow? In one word.");
    /// ```
    pub fn messages(&self, question: &str) -> Vec<Message> {
        let system = self.system.iter().map(Message::system);
        let asked = |question: &str| Message::user(format!("{question}{}", self.suffix));
        let shots =
            self.shots.iter().flat_map(|s| [asked(&s.question), Message::assistant(&s.answer)]);
        system.chain(shots).chain([asked(question)]).collect()
    }

    /// The plain text that asks `question`.
    ///
    /// ```
    /// use posttrain_recipes::{PromptStyle, Shot};
    ///
    /// let shots = vec![Shot { question: "What is 3 + 4?".into(), answer: "7".into() }];
    /// let style = PromptStyle { shots, ..Default::default() };
    /// assert_eq!(style.text("What is 2 + 2?"), "Question: What is 3 + 4?\nAnswer: 7\n\nQuestion: What is 2 + 2?\nAnswer:");
    /// ```
    #[must_use]
    pub fn text(&self, question: &str) -> String {
        let mut text = self.system.as_ref().map_or(String::new(), |system| format!("{system}\n\n"));
        for Shot { question, answer } in &self.shots {
            text += &format!("Question: {question}{}\nAnswer: {answer}\n\n", self.suffix);
        }
        text + &format!("Question: {question}{}\nAnswer:", self.suffix)
    }

    /// The prompt's token ids for a question.
    ///
    /// # Errors
    /// [`RecipeError::Model`] if the template or the tokenizer refuses.
    pub fn encode(
        &self,
        question: &str,
        tokenizer: &TextTokenizer,
        template: &ChatTemplate,
    ) -> Result<Vec<i64>, RecipeError> {
        Ok(match self.form {
            PromptForm::Chat => template.encode(tokenizer, &self.messages(question), true)?,
            PromptForm::Plain => tokenizer.encode_prompt(&self.text(question))?,
        })
    }
}
