//! What a chat model is asked.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ChatError, Message, Tool};

/// The form that an answer must have.
///
/// ```
/// use posttrain_chat::ResponseFormat;
///
/// assert_eq!(ResponseFormat::default(), ResponseFormat::Text);
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ResponseFormat {
    /// Anything.
    #[default]
    Text,
    /// JSON of this schema.
    JsonSchema {
        /// A name for it, of letters, digits, `_` and `-`; servers ask for one.
        name: String,
        /// The schema.
        schema: Value,
    },
    /// One of these texts.
    Choice(Vec<String>),
}

/// A conversation to be continued, and how.
///
/// ```
/// use posttrain_chat::{ChatRequest, Message};
///
/// let request = ChatRequest { max_tokens: 16, ..ChatRequest::new([Message::user("2 + 2?")]) };
/// assert_eq!((request.temperature, request.max_tokens), (0.0, 16));
/// request.validate()?;
/// # Ok::<(), posttrain_chat::ChatError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatRequest {
    /// The conversation so far, at least one message.
    pub messages: Vec<Message>,
    /// The tools that the model may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// Tokens of the answer at most, at least 1.
    pub max_tokens: u32,
    /// From 0 (the most probable token every time) to 2, as in OpenAI's interface.
    pub temperature: f64,
    /// The smallest set of tokens with this probability together, more than 0 and at most 1; the
    /// server's choice if none.
    pub top_p: Option<f64>,
    /// Texts that end the answer; most servers take at most four.
    pub stop: Vec<String>,
    /// The same seed draws the same answer, where a server can promise that.
    pub seed: Option<u64>,
    /// The form of the answer.
    pub format: ResponseFormat,
    /// Log-probabilities of the answer's tokens, each with this many alternatives (0 to 20); none
    /// if `None`.
    pub logprobs: Option<u8>,
}

impl ChatRequest {
    /// At most 1024 tokens at temperature 0, in any form.
    ///
    /// ```
    /// use posttrain_chat::{ChatRequest, Message};
    ///
    /// assert_eq!(ChatRequest::new([Message::user("2 + 2?")]).max_tokens, 1024);
    /// ```
    pub fn new(messages: impl IntoIterator<Item = Message>) -> Self {
        Self {
            messages: messages.into_iter().collect(),
            tools: Vec::new(),
            max_tokens: 1024,
            temperature: 0.0,
            top_p: None,
            stop: Vec::new(),
            seed: None,
            format: ResponseFormat::Text,
            logprobs: None,
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`ChatError::InvalidRequest`] naming the first field that is out of its range.
    ///
    /// ```
    /// use posttrain_chat::ChatRequest;
    ///
    /// assert_eq!(ChatRequest::new([]).validate().unwrap_err().cause(), "invalid_request");
    /// ```
    pub fn validate(&self) -> Result<(), ChatError> {
        if self.messages.is_empty() {
            return Err(ChatError::invalid_request("messages", "empty", "at least one message"));
        }
        if self.max_tokens == 0 {
            return Err(ChatError::invalid_request("max_tokens", 0, "at least 1"));
        }
        if !(0.0..=2.0).contains(&self.temperature) {
            return Err(ChatError::invalid_request("temperature", self.temperature, "from 0 to 2"));
        }
        if let Some(top_p) = self.top_p.filter(|top_p| !(*top_p > 0.0 && *top_p <= 1.0)) {
            return Err(ChatError::invalid_request("top_p", top_p, "more than 0 and at most 1"));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(ChatError::invalid_request(
                "stop",
                "an empty text",
                "texts that can be found",
            ));
        }
        if let Some(logprobs) = self.logprobs.filter(|logprobs| *logprobs > 20) {
            return Err(ChatError::invalid_request("logprobs", logprobs, "at most 20"));
        }
        self.format.validate()
    }

    /// A rough count of the tokens that the request will use: a token for every 3 bytes of text and
    /// the whole answer.
    ///
    /// ```
    /// use posttrain_chat::{ChatRequest, Message};
    ///
    /// let request = ChatRequest { max_tokens: 10, ..ChatRequest::new([Message::user("123456")]) };
    /// assert_eq!(request.expected_tokens(), 2 + 10);
    /// ```
    #[must_use]
    pub fn expected_tokens(&self) -> u64 {
        let bytes: usize = self.messages.iter().map(|message| message.text().len()).sum();
        bytes.div_ceil(3) as u64 + u64::from(self.max_tokens)
    }
}

impl ResponseFormat {
    fn validate(&self) -> Result<(), ChatError> {
        match self {
            Self::Text => Ok(()),
            Self::JsonSchema { name, schema } => {
                let letters =
                    name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
                if !letters || !(1..=64).contains(&name.len()) {
                    return Err(ChatError::invalid_request(
                        "format.name",
                        format!("{name:?}"),
                        "1 to 64 letters, digits, `_` and `-`",
                    ));
                }
                let fits = schema.is_object();
                fits.then_some(()).ok_or_else(|| {
                    ChatError::invalid_request(
                        "format.schema",
                        "no object",
                        "a JSON schema, an object",
                    )
                })
            }
            Self::Choice(choices) => {
                let distinct: std::collections::BTreeSet<_> =
                    choices.iter().map(|choice| choice.trim()).collect();
                let fits =
                    choices.len() > 1 && distinct.len() == choices.len() && !distinct.contains("");
                let expected = "at least two different texts, none blank";
                fits.then_some(()).ok_or_else(|| {
                    ChatError::invalid_request("format.choice", format!("{choices:?}"), expected)
                })
            }
        }
    }
}
