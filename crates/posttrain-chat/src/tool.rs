//! Tools that a model may call, and its calls.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A tool, in the form in which chat templates and OpenAI-compatible servers are told of one:
/// `{"type": "function", "function": {"name": …, "description": …, "parameters": …}}`.
///
/// ```
/// use posttrain_chat::Tool;
/// use serde_json::json;
///
/// let tool = Tool::new("add", "Adds two numbers.", json!({"type": "object", "properties": {}}));
/// assert_eq!(serde_json::to_value(&tool)?["function"]["name"], "add");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// What kind of tool it is.
    #[serde(rename = "type", default)]
    pub kind: ToolKind,
    /// What is called.
    pub function: FunctionSchema,
}

impl Tool {
    /// A function with a JSON schema of its arguments.
    ///
    /// ```
    /// use posttrain_chat::Tool;
    ///
    /// assert_eq!(Tool::new("now", "Tells the time.", serde_json::json!({})).function.name, "now");
    /// ```
    pub fn new(name: impl Into<String>, description: impl Into<String>, parameters: Value) -> Self {
        let description = Some(description.into());
        let function = FunctionSchema {
            name: name.into(),
            description,
            parameters: Some(parameters),
            strict: None,
        };

        Self { kind: ToolKind::Function, function }
    }
}

/// A function as a model is told of it.
///
/// ```
/// let schema: posttrain_chat::FunctionSchema = serde_json::from_str(r#"{"name": "now"}"#)?;
/// assert_eq!(schema.description, None);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionSchema {
    /// Its name.
    pub name: String,
    /// What it does, in words for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The JSON schema of its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// Whether the server is to keep the model to the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}

/// A call of a tool by a model.
///
/// ```
/// use posttrain_chat::ToolCall;
///
/// let call: ToolCall = serde_json::from_str(
///     r#"{"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}"#,
/// )?;
/// assert_eq!((call.function.name.as_str(), &call.function.arguments["a"]), ("add", &2.into()));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// What the tool's answer names it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What kind of tool it is.
    #[serde(rename = "type", default)]
    pub kind: ToolKind,
    /// What is called.
    pub function: FunctionCall,
}

impl ToolCall {
    /// A call of a function.
    ///
    /// ```
    /// use posttrain_chat::ToolCall;
    ///
    /// let call = ToolCall::new("c1", "add", serde_json::json!({"a": 2, "b": 2}));
    /// assert_eq!(call.id.as_deref(), Some("c1"));
    /// ```
    pub fn new(id: impl Into<String>, name: impl Into<String>, arguments: Value) -> Self {
        let function = FunctionCall { name: name.into(), arguments };

        Self { id: Some(id.into()), kind: ToolKind::Function, function }
    }

    /// The call with its arguments as a JSON text, which OpenAI-compatible servers want. Templates
    /// want an object.
    ///
    /// ```
    /// use posttrain_chat::ToolCall;
    ///
    /// let call = ToolCall::new("c1", "add", serde_json::json!({"a": 2}));
    /// assert_eq!(call.with_arguments_as_text().function.arguments, r#"{"a":2}"#);
    /// ```
    #[must_use]
    pub fn with_arguments_as_text(&self) -> Self {
        let mut call = self.clone();
        if !call.function.arguments.is_string() {
            call.function.arguments = Value::String(self.function.arguments.to_string());
        }
        call
    }
}

#[cfg(feature = "client")]
impl ToolCall {
    /// The call with every text of the server's changed; a server sends its arguments as a text.
    pub(crate) fn map_texts(&self, change: &dyn Fn(&str) -> String) -> Self {
        let arguments = match &self.function.arguments {
            Value::String(text) => Value::String(change(text)),
            other => serde_json::from_str(&change(&other.to_string())).unwrap_or(Value::Null),
        };
        let function = FunctionCall { name: change(&self.function.name), arguments };

        Self { id: self.id.as_deref().map(change), function, kind: self.kind }
    }
}

/// A function's name and arguments.
///
/// ```
/// let call = posttrain_chat::FunctionCall { name: "now".into(), arguments: serde_json::json!({}) };
/// assert!(call.arguments.is_object());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionCall {
    /// The function's name.
    pub name: String,
    /// Its arguments: an object, as chat templates read it, or the text of one, as servers send it.
    pub arguments: Value,
}

/// What kind of tool is told of, or called: functions alone.
///
/// ```
/// assert_eq!(serde_json::to_string(&posttrain_chat::ToolKind::Function)?, "\"function\"");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ToolKind {
    /// A function.
    #[default]
    Function,
}
