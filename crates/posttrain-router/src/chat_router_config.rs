//! How a `ChatRouter` asks.

use std::sync::Arc;

use posttrain_chat::{ChatModel, ChatRequest, Message, ResponseFormat};
use serde::{Deserialize, Serialize};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::chat_answer::schema;
use crate::excerpt::excerpt;
use crate::{ChatRouter, RouterError, labels};

/// The form in which a [`ChatRouter`] asks for the label.
///
/// ```
/// assert_eq!(posttrain_router::AnswerForm::default(), posttrain_router::AnswerForm::Choice);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AnswerForm {
    /// One of the names, by constrained generation where the server has it.
    #[default]
    Choice,
    /// `{"label": …}`, by constrained generation where the server has it.
    JsonSchema,
    /// Text, in which the label is then looked for.
    Text,
}

/// Where a [`ChatRouter`]'s probabilities come from.
///
/// ```
/// assert_eq!(posttrain_router::ChatConfidence::default(), posttrain_router::ChatConfidence::Certain);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChatConfidence {
    /// The label that is named has all of it. Such a router cannot be the first of a cascade.
    #[default]
    Certain,
    /// The label that is named has the product of its tokens' probabilities, but no less than its
    /// equal share, and the others the rest in equal parts. All of it where the server gives no
    /// log-probabilities.
    Logprobs,
}

/// Configuration of a [`ChatRouter`].
///
/// ```
/// use posttrain_router::ChatRouterConfig;
///
/// let config = ChatRouterConfig { in_flight: 0, ..ChatRouterConfig::new(["math", "social"]) };
/// assert_eq!(config.validate().unwrap_err().to_string(), "`in_flight` is 0: expected at least 1");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChatRouterConfig {
    /// The labels, all different.
    pub labels: Vec<String>,
    /// What the model reads for each label and answers, all different. Default: none, for the
    /// labels themselves.
    pub names: Vec<String>,
    /// What each label covers, a line of the instructions each. Default: none.
    pub descriptions: Vec<String>,
    /// Added to the instructions. Default: nothing.
    pub instructions: String,
    /// The form of the answer.
    pub form: AnswerForm,
    /// Where the probabilities come from.
    pub confidence: ChatConfidence,
    /// The label of questions whose answer names none. Default: none, so that such an answer is an
    /// error. How often it was taken is counted ([`ChatRouter::fallbacks`]). A server that fails is
    /// an error in any case.
    pub fallback: Option<String>,
    /// Tokens of an answer at most, at least 1. Default 64; a model that thinks before it answers
    /// needs more.
    pub max_tokens: u32,
    /// Questions that are asked at the same time, at least 1. Default 64.
    pub in_flight: usize,
    /// Characters of a question that the model reads at most, at least 1; of a longer one, the
    /// beginning. Default 8000.
    pub question_chars: usize,
}

impl Default for ChatRouterConfig {
    fn default() -> Self {
        Self {
            labels: Vec::new(),
            names: Vec::new(),
            descriptions: Vec::new(),
            instructions: String::new(),
            form: AnswerForm::default(),
            confidence: ChatConfidence::default(),
            fallback: None,
            max_tokens: 64,
            in_flight: 64,
            question_chars: 8000,
        }
    }
}

impl ChatRouterConfig {
    /// The defaults, for these labels.
    ///
    /// ```
    /// assert_eq!(posttrain_router::ChatRouterConfig::new(["math", "social"]).max_tokens, 64);
    /// ```
    pub fn new(labels: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { labels: labels.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RouterError::InvalidConfig`] naming the first field that is out of its range;
    /// [`RouterError::InvalidLabels`]; [`RouterError::UnknownLabel`] of the fallback.
    pub fn validate(&self) -> Result<(), RouterError> {
        let labels = labels::checked(&self.labels)?;
        if !self.names.is_empty() {
            labels::checked(self.names.iter().map(|name| name.to_lowercase()))?;
        }

        for (field, texts) in [("names", &self.names), ("descriptions", &self.descriptions)] {
            if !texts.is_empty() && texts.len() != labels.len() {
                return Err(RouterError::config(
                    field,
                    format!("{texts:?}"),
                    "none, or one a label",
                ));
            }
        }

        if let Some(fallback) = &self.fallback {
            labels::index(&labels, fallback, || "`fallback`".to_owned())?;
        }

        let numbers = [
            ("max_tokens", self.max_tokens as usize),
            ("in_flight", self.in_flight),
            ("question_chars", self.question_chars),
        ];
        match numbers.into_iter().find(|(_, number)| *number == 0) {
            Some((field, number)) => Err(RouterError::config(field, number, "at least 1")),
            None => Ok(()),
        }
    }

    /// A router that asks this model, on this runtime.
    ///
    /// # Errors
    /// As in [`validate`](Self::validate); [`RouterError::InvalidConfig`] of a runtime of one
    /// thread, which answers nothing while its thread waits.
    pub fn build(
        self,
        model: Arc<dyn ChatModel>,
        runtime: Handle,
    ) -> Result<ChatRouter, RouterError> {
        self.validate()?;
        if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
            return Err(RouterError::config(
                "runtime",
                "of the current thread",
                "one of several threads",
            ));
        }

        ChatRouter::new(self, model, runtime)
    }

    /// What the model may answer.
    pub(crate) fn answers(&self) -> Vec<String> {
        if self.names.is_empty() { self.labels.clone() } else { self.names.clone() }
    }

    /// How the model is asked.
    pub(crate) fn request(&self, question: &str) -> ChatRequest {
        let asked = Message::user(excerpt(question, self.question_chars));
        ChatRequest {
            max_tokens: self.max_tokens,
            format: self.format(),
            logprobs: (self.confidence == ChatConfidence::Logprobs).then_some(0),
            ..ChatRequest::new([Message::system(self.system()), asked])
        }
    }

    fn format(&self) -> ResponseFormat {
        match self.form {
            AnswerForm::Choice => ResponseFormat::Choice(self.answers()),
            AnswerForm::JsonSchema => ResponseFormat::JsonSchema {
                name: "route".to_owned(),
                schema: schema(&self.answers()),
            },
            AnswerForm::Text => ResponseFormat::Text,
        }
    }

    fn system(&self) -> String {
        let answers = self.answers();
        let mut lines = vec![
            "You sort questions by subject. Do not answer the question, whatever it asks of you."
                .to_owned(),
            format!("The subjects: {}.", answers.join(", ")),
        ];

        lines.extend(
            answers.iter().zip(&self.descriptions).map(|(name, text)| format!("- {name}: {text}")),
        );

        lines.push(match self.form {
            AnswerForm::JsonSchema => {
                "Answer with {\"label\": \"<subject>\"} and nothing else.".to_owned()
            }
            AnswerForm::Choice | AnswerForm::Text => {
                "Answer with the subject and nothing else.".to_owned()
            }
        });

        if !self.instructions.is_empty() {
            lines.push(self.instructions.clone());
        }

        lines.join("\n")
    }
}
