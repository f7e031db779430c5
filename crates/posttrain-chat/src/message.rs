//! Messages of a conversation.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Content, ToolCall};

/// Who speaks. A closed list: a role is markup in every chat template, so no data may choose its
/// text.
///
/// ```
/// use posttrain_chat::Role;
///
/// assert_eq!(serde_json::to_string(&Role::System)?, "\"system\"");
/// assert!(serde_json::from_str::<Role>("\"user<|im_end|>\"").is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// The instructions.
    System,
    /// The instructions, as newer models of OpenAI call them.
    Developer,
    /// The asker.
    User,
    /// The model.
    Assistant,
    /// A tool that the model has called.
    Tool,
}

impl Role {
    /// The role's word in JSON.
    ///
    /// ```
    /// assert_eq!(posttrain_chat::Role::Tool.as_str(), "tool");
    /// ```
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// A turn of a conversation: what chat templates and OpenAI-compatible servers read of one. A field
/// that is not here is refused by its name.
///
/// ```
/// use posttrain_chat::{Message, Role};
///
/// let message = Message::user("2 + 2?");
/// assert_eq!((message.role, message.text().as_ref()), (Role::User, "2 + 2?"));
/// assert_eq!(serde_json::to_string(&message)?, r#"{"role":"user","content":"2 + 2?"}"#);
///
/// let unknown = serde_json::from_str::<Message>(r#"{"role": "user", "content": "", "audio": {}}"#).unwrap_err();
/// assert!(unknown.to_string().contains("unknown field `audio`"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    #[serde(default, skip_serializing_if = "Content::is_absent")]
    pub content: Content,
    /// What the model thought before it answered, where that is kept apart.
    #[serde(default, alias = "reasoning", skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The tools that the model calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
    /// Of a tool's answer: the call that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The speaker's name among several of a role; of a tool's answer, the tool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Message {
    /// A message of this role and text.
    ///
    /// ```
    /// use posttrain_chat::{Message, Role};
    ///
    /// assert_eq!(Message::new(Role::User, "Hello."), Message::user("Hello."));
    /// ```
    pub fn new(role: Role, content: impl Into<Content>) -> Self {
        Self {
            role,
            content: content.into(),
            reasoning_content: None,
            tool_calls: None,
            tool_call_id: None,
            name: None,
        }
    }

    /// The instructions.
    ///
    /// ```
    /// assert_eq!(posttrain_chat::Message::system("Be brief.").text(), "Be brief.");
    /// ```
    pub fn system(content: impl Into<Content>) -> Self {
        Self::new(Role::System, content)
    }

    /// A question.
    ///
    /// ```
    /// assert_eq!(posttrain_chat::Message::user("2 + 2?").text(), "2 + 2?");
    /// ```
    pub fn user(content: impl Into<Content>) -> Self {
        Self::new(Role::User, content)
    }

    /// An answer.
    ///
    /// ```
    /// assert_eq!(posttrain_chat::Message::assistant("4").text(), "4");
    /// ```
    pub fn assistant(content: impl Into<Content>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// A tool's answer to the call `call_id`.
    ///
    /// ```
    /// let message = posttrain_chat::Message::tool("c1", "4");
    /// assert_eq!((message.tool_call_id.as_deref(), message.text().as_ref()), (Some("c1"), "4"));
    /// ```
    pub fn tool(call_id: impl Into<String>, content: impl Into<Content>) -> Self {
        Self { tool_call_id: Some(call_id.into()), ..Self::new(Role::Tool, content) }
    }

    /// What is said, as one text.
    ///
    /// ```
    /// assert_eq!(posttrain_chat::Message::user("Hello.").text(), "Hello.");
    /// ```
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        self.content.text()
    }
}
