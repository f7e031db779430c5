//! What a chat model answers.

mod json_text;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ChatError, FinishReason, ToolCall};
use json_text::{JsonText, find_json};

/// Tokens that a call used; zeros where the server does not say.
///
/// ```
/// assert_eq!(posttrain_chat::Usage { prompt_tokens: 3, completion_tokens: 4 }.total(), 7);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Of the conversation.
    pub prompt_tokens: u64,
    /// Of the answer, its reasoning included.
    pub completion_tokens: u64,
}

impl Usage {
    /// Both together.
    ///
    /// ```
    /// assert_eq!(posttrain_chat::Usage::default().total(), 0);
    /// ```
    #[must_use]
    pub fn total(&self) -> u64 {
        self.prompt_tokens.saturating_add(self.completion_tokens)
    }
}

/// A token of an answer with its natural log-probability.
///
/// ```
/// let token = posttrain_chat::TokenLogprob { token: "4".into(), logprob: -0.5, top: vec![("4".into(), -0.5)] };
/// assert_eq!(token.top[0].0, token.token);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token's text.
    pub token: String,
    /// `ln p`, nats.
    pub logprob: f64,
    /// The most probable tokens at its place with theirs, as many as were asked for.
    pub top: Vec<(String, f64)>,
}

/// An answer.
///
/// ```
/// use posttrain_chat::ChatResponse;
///
/// let response = ChatResponse::from_text("The answer is:\n```json\n{\"verdict\": true}\n```");
/// assert_eq!(response.json()?["verdict"], true);
/// assert_eq!(ChatResponse::from_text(" Yes. ").choice(&["yes", "no"])?, "yes");
/// # Ok::<(), posttrain_chat::ChatError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatResponse {
    /// The answer's text; empty where the model refused or thought until its tokens ran out.
    pub text: String,
    /// What the model thought before it answered, where the server keeps the two apart.
    pub reasoning: Option<String>,
    /// Why the model refuses, where the server says so.
    pub refusal: Option<String>,
    /// The tools that the model calls, their arguments as the server's text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// How it ended.
    pub finish_reason: FinishReason,
    /// Tokens used.
    pub usage: Usage,
    /// The text's tokens, where they were asked for and the server gives them.
    pub logprobs: Option<Vec<TokenLogprob>>,
    /// The model that answered, in the server's word.
    pub model: String,
}

impl ChatResponse {
    /// A complete answer of this text, from a model without a name: for tests and models of one's
    /// own.
    ///
    /// ```
    /// use posttrain_chat::{ChatResponse, FinishReason};
    ///
    /// assert_eq!(ChatResponse::from_text("4").finish_reason, FinishReason::Stop);
    /// ```
    pub fn from_text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            reasoning: None,
            refusal: None,
            tool_calls: Vec::new(),
            finish_reason: FinishReason::Stop,
            usage: Usage::default(),
            logprobs: None,
            model: String::new(),
        }
    }

    /// The text as JSON: all of it; or else what stands in its one fenced block; or else its one
    /// object. Which one is meant where there are several is not guessed.
    ///
    /// # Errors
    /// [`ChatError::OffFormat`] where there is none, or several.
    ///
    /// ```
    /// use posttrain_chat::ChatResponse;
    ///
    /// assert_eq!(ChatResponse::from_text("Sure: {\"a\": [1]} Anything else?").json()?["a"][0], 1);
    /// assert!(ChatResponse::from_text("{\"a\": 1} or {\"a\": 2}").json().is_err());
    /// # Ok::<(), posttrain_chat::ChatError>(())
    /// ```
    pub fn json(&self) -> Result<Value, ChatError> {
        match find_json(&self.text) {
            JsonText::One(value) => Ok(value),
            JsonText::None => Err(self.off_format("JSON")),
            JsonText::Several => Err(self.off_format("one JSON value, but several")),
        }
    }

    /// Which of `choices` the text is, without regard to case and to white space, quotes and
    /// punctuation around it.
    ///
    /// # Errors
    /// [`ChatError::OffFormat`] where it is none of them.
    ///
    /// ```
    /// use posttrain_chat::ChatResponse;
    ///
    /// assert_eq!(ChatResponse::from_text("\"B\"").choice(&["A", "B"])?, "B");
    /// assert!(ChatResponse::from_text("A or B").choice(&["A", "B"]).is_err());
    /// # Ok::<(), posttrain_chat::ChatError>(())
    /// ```
    pub fn choice<'c>(&self, choices: &'c [impl AsRef<str>]) -> Result<&'c str, ChatError> {
        let plain = |text: &str| {
            let around = |c: char| {
                c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '*' | '.' | '!' | ',' | ':')
            };
            text.trim_matches(around).to_lowercase()
        };
        let exact = choices.iter().find(|choice| choice.as_ref() == self.text.trim());
        let found = exact
            .or_else(|| choices.iter().find(|choice| plain(choice.as_ref()) == plain(&self.text)));
        found.map(AsRef::as_ref).ok_or_else(|| {
            let choices: Vec<&str> = choices.iter().map(AsRef::as_ref).collect();
            self.off_format(&format!("one of {choices:?}"))
        })
    }

    /// The answer with every text of the server's changed.
    #[cfg(feature = "client")]
    pub(crate) fn map_texts(self, change: &dyn Fn(&str) -> String) -> Self {
        let change_token = |token: TokenLogprob| TokenLogprob {
            token: change(&token.token),
            top: token.top.iter().map(|(text, logprob)| (change(text), *logprob)).collect(),
            ..token
        };

        Self {
            text: change(&self.text),
            reasoning: self.reasoning.as_deref().map(change),
            refusal: self.refusal.as_deref().map(change),
            tool_calls: self.tool_calls.iter().map(|call| call.map_texts(change)).collect(),
            logprobs: self.logprobs.map(|tokens| tokens.into_iter().map(change_token).collect()),
            model: change(&self.model),
            ..self
        }
    }

    fn off_format(&self, expected: &str) -> ChatError {
        let text = self.text.trim();
        let mut beginning: String = text.chars().take(200).collect();
        if beginning.is_empty() {
            beginning = "(empty)".into();
        } else if beginning.len() < text.len() {
            beginning.push('…');
        }
        ChatError::OffFormat { expected: expected.to_owned(), text: beginning }
    }
}
