//! A text on a JSON line: as a conversation, as plain text, or as tokens.

use anyhow::Result;
use posttrain::model::{Message, TextModel};
use serde::Deserialize;
use serde_json::Value;

/// A text in one of three forms; a line that gives two, or a field that is not known, is refused.
///
/// ```
/// use examples::TextLine;
///
/// let line = |text| serde_json::from_str::<TextLine>(text).map_err(|error| error.to_string());
/// assert!(matches!(line(r#"{"tokens": [1, 2]}"#), Ok(TextLine::Tokens(_))));
/// assert!(matches!(line(r#"{"text": "7 + 5 ="}"#), Ok(TextLine::Text(_))));
/// for messages in [r#"{"messages": [{"role": "user", "content": "Hi!"}]}"#, r#"[{"role": "user", "content": "Hi!"}]"#] {
///     assert!(matches!(line(messages), Ok(TextLine::Messages(_))));
/// }
///
/// let error = line(r#"{"tokens": [1], "messages": []}"#).err().unwrap();
/// assert_eq!(error, "expected one of `messages`, `text` and `tokens`, got `messages` and `tokens`");
/// assert!(line(r#"{"text": "", "stop": "x"}"#).err().unwrap().contains("unknown field `stop`"));
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Value")]
pub enum TextLine {
    /// A conversation, to be put in the model's chat template.
    Messages(Vec<Message>),
    /// A plain text from its beginning.
    Text(String),
    /// Token ids.
    Tokens(Vec<i64>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    messages: Option<Vec<Message>>,
    text: Option<String>,
    tokens: Option<Vec<i64>>,
}

impl TryFrom<Value> for TextLine {
    type Error = String;

    fn try_from(line: Value) -> Result<Self, String> {
        if line.is_array() {
            let messages = serde_json::from_value(line);
            return messages.map(Self::Messages).map_err(|error| error.to_string());
        }

        let fields: Fields = serde_json::from_value(line).map_err(|error| error.to_string())?;
        match (fields.messages, fields.text, fields.tokens) {
            (Some(messages), None, None) => Ok(Self::Messages(messages)),
            (None, Some(text), None) => Ok(Self::Text(text)),
            (None, None, Some(tokens)) => Ok(Self::Tokens(tokens)),
            (messages, text, tokens) => {
                let given = [
                    messages.map(|_| "`messages`"),
                    text.map(|_| "`text`"),
                    tokens.map(|_| "`tokens`"),
                ];
                let given: Vec<&str> = given.into_iter().flatten().collect();
                let got = if given.is_empty() { "none".into() } else { given.join(" and ") };
                Err(format!("expected one of `messages`, `text` and `tokens`, got {got}"))
            }
        }
    }
}

impl TextLine {
    /// Its token ids; a conversation ends where the assistant's answer begins, if
    /// `generation_prompt`.
    ///
    /// # Errors
    /// What the template or the tokenizer refuses.
    pub fn encode(&self, model: &TextModel, generation_prompt: bool) -> Result<Vec<i64>> {
        Ok(match self {
            Self::Messages(messages) => {
                model.template.encode(&model.tokenizer, messages, generation_prompt)?
            }
            Self::Text(text) => model.tokenizer.encode_prompt(text)?,
            Self::Tokens(tokens) => tokens.clone(),
        })
    }
}
