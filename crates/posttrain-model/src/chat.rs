//! Chat templates: messages to the text, and the tokens, that a model was trained on.

use crate::thinking::{Start, Thinking, start_after};
use crate::{ModelError, TextTokenizer};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A message of that role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }

    fn to_value(&self) -> Value {
        Value::from_pairs([("role", self.role.as_str()), ("content", self.content.as_str())])
    }

    /// A message of the user's.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }
}

/// Steps that a template may take before it counts as endless.
const FUEL: u64 = 10_000_000;

/// A chat template in Jinja, with what Hugging Face's templates expect of their engine: `trim_blocks` and
/// `lstrip_blocks`, Python's string methods, loop controls, `raise_exception`, `strftime_now`.
///
/// ```
/// use posttrain_model::{ChatTemplate, Message};
/// let source = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'].strip() }}\n{% endfor %}\
///               {% if add_generation_prompt %}[assistant]{% endif %}";
/// let template = ChatTemplate::new(source)?;
/// assert_eq!(template.render(&[Message::user(" Hi! ")], true)?, "[user] Hi!\n[assistant]");
/// # Ok::<(), posttrain_model::ModelError>(())
/// ```
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    begin: Option<String>,
    end: Option<String>,
    thinking: Thinking,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// [`ModelError::Template`] with the line of a syntax error.
    pub fn new(source: &str) -> Result<Self, ModelError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|source| ModelError::Template { source })?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", tojson);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        let compiled = environment.add_template_owned("chat", without_generation_marks(source));
        compiled.map_err(|source| ModelError::Template { source })?;
        Ok(Self { environment, begin: None, end: None, thinking: Thinking::default() })
    }

    /// The same with the tokens that a template knows as `bos_token` and `eos_token`.
    pub fn with_tokens(self, begin: Option<String>, end: Option<String>) -> Self {
        Self { begin, end, ..self }
    }

    /// The same, asking the model to think or not (`enable_thinking`, which Qwen3's template knows; others do as they do).
    ///
    /// ```
    /// use posttrain_model::{ChatTemplate, Message, Thinking};
    /// let source = "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}";
    /// let template = ChatTemplate::new(source)?;
    /// assert_eq!(template.render(&[Message::user("Hi!")], true)?, "");
    /// assert_eq!(template.with_thinking(Thinking::Off).render(&[], true)?, "<think></think>");
    /// # Ok::<(), posttrain_model::ModelError>(())
    /// ```
    pub fn with_thinking(self, thinking: Thinking) -> Self {
        Self { thinking, ..self }
    }

    /// Where completions of this template's prompts begin: inside a thinking block where the template opens one itself.
    ///
    /// # Errors
    /// [`ModelError::Template`] if the template refuses a lone message of the user's.
    pub fn start(&self) -> Result<Start, ModelError> {
        Ok(start_after(&self.render(&[Message::user("?")], true)?))
    }

    /// The text of a conversation; with `generation_prompt` it ends where the assistant's answer begins.
    ///
    /// # Errors
    /// [`ModelError::Template`] if the template refuses the messages.
    pub fn render(&self, messages: &[Message], generation_prompt: bool) -> Result<String, ModelError> {
        let template = self.environment.get_template("chat");
        let messages: Value = messages.iter().map(Message::to_value).collect();
        // transformers passes these two as None; templates test for them.
        let none = || Value::from(());
        // Templates ask whether it is defined.
        let enable_thinking = match self.thinking {
            Thinking::AsTemplate => Value::UNDEFINED,
            Thinking::On => Value::from(true),
            Thinking::Off => Value::from(false),
        };
        let context = context! {
            messages,
            add_generation_prompt => generation_prompt,
            bos_token => self.begin.as_deref(),
            eos_token => self.end.as_deref(),
            tools => none(),
            documents => none(),
            enable_thinking,
        };
        template.and_then(|t| t.render(context)).map_err(|source| ModelError::Template { source })
    }

    /// The token ids of a conversation.
    ///
    /// Where a message's content holds the text of a special token, that text is encoded as the characters that it is,
    /// so that no question or answer can end its own turn or open another's. (`transformers` would take it for the
    /// token; on every other content the two agree.)
    ///
    /// # Errors
    /// Those of [`ChatTemplate::render`] and of the tokenizer.
    pub fn encode(
        &self,
        tokenizer: &TextTokenizer,
        messages: &[Message],
        generation_prompt: bool,
    ) -> Result<Vec<i64>, ModelError> {
        let special = tokenizer.special_tokens();
        let hostile = messages.iter().any(|m| special.iter().any(|s| m.content.contains(s.as_str())));
        if !hostile {
            return tokenizer.encode_markup(&self.render(messages, generation_prompt)?);
        }
        let mark = unused_mark(messages);
        let marked: Vec<Message> =
            messages.iter().map(|m| Message::new(&m.role, marked(&m.content, &special, mark))).collect();
        let mut tokens = Vec::new();
        // Marks come in pairs, so every second piece is the text of a special token.
        for (index, piece) in self.render(&marked, generation_prompt)?.split(mark).enumerate() {
            let encoded = if index % 2 == 0 { tokenizer.encode_markup(piece) } else { tokenizer.encode_text(piece) };
            tokens.extend(encoded?);
        }
        Ok(tokens)
    }
}

/// A private-use character that no message holds.
fn unused_mark(messages: &[Message]) -> char {
    let used = |mark: &char| messages.iter().any(|m| m.content.contains(*mark) || m.role.contains(*mark));
    ('\u{e000}'..='\u{f8ff}').find(|mark| !used(mark)).unwrap_or('\u{e000}')
}

/// `content` with every special token's text between two marks; the longest match wins.
fn marked(content: &str, special: &[String], mark: char) -> String {
    let mut out = String::with_capacity(content.len() + 8);
    let mut rest = content;
    while !rest.is_empty() {
        let found = special.iter().filter(|s| !s.is_empty() && rest.starts_with(s.as_str())).max_by_key(|s| s.len());
        let length = found.map_or_else(|| rest.chars().next().map_or(1, char::len_utf8), |s| s.len());
        let (head, tail) = rest.split_at(length);
        if found.is_some() {
            out.extend([mark].iter());
            out.push_str(head);
            out.push(mark);
        } else {
            out.push_str(head);
        }
        rest = tail;
    }
    out
}

/// `{% generation %}` marks the assistant's tokens for transformers' masks and renders nothing.
fn without_generation_marks(source: &str) -> String {
    let marks = ["{% generation %}", "{%- generation %}", "{% generation -%}", "{%- generation -%}"];
    let ends = ["{% endgeneration %}", "{%- endgeneration %}", "{% endgeneration -%}", "{%- endgeneration -%}"];
    marks.iter().chain(&ends).fold(source.to_string(), |text, mark| text.replace(mark, ""))
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// Python's `json.dumps(value, ensure_ascii=False)`: the engine's own filter also escapes what HTML would read.
fn tojson(value: &Value, indent: Option<Value>, args: Kwargs) -> Result<Value, Error> {
    let json = minijinja::filters::tojson(value, indent, args)?.to_string();
    Ok(Value::from_safe_string(without_html_escapes(&json)))
}

fn without_html_escapes(json: &str) -> String {
    const ESCAPES: [(&str, char); 4] = [("\\u003c", '<'), ("\\u003e", '>'), ("\\u0026", '&'), ("\\u0027", '\'')];
    let (mut out, mut rest) = (String::with_capacity(json.len()), json);
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        // An escape that is none of the four is two characters at least; the second may be a backslash of its own.
        let escape = ESCAPES.iter().find(|(escape, _)| rest.starts_with(escape));
        let length = escape.map_or(2.min(rest.len()), |(escape, _)| escape.len());
        match escape {
            Some((_, character)) => out.push(*character),
            None => out.push_str(&rest[..length]),
        }
        rest = &rest[length..];
    }
    out + rest
}

fn strftime_now(format: String) -> Result<String, Error> {
    use std::fmt::Write;
    let mut text = String::new();
    let now = chrono::Local::now();
    match write!(text, "{}", now.format(&format)) {
        Ok(()) => Ok(text),
        Err(_) => Err(Error::new(ErrorKind::InvalidOperation, format!("strftime_now: unknown format `{format}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_may_refuse_and_the_reason_arrives() {
        let template = ChatTemplate::new("{{ raise_exception('roles must alternate') }}").unwrap();
        let error = template.render(&[], false).unwrap_err().to_string();
        assert!(error.contains("roles must alternate"), "{error}");
    }

    #[test]
    fn an_endless_template_ends_and_a_broken_one_names_its_line() {
        let endless = "{% for i in range(9999) %}{% for j in range(9999) %}{{ i * j }}{% endfor %}{% endfor %}";
        assert!(ChatTemplate::new(endless).unwrap().render(&[], false).is_err());
        let error = ChatTemplate::new("line one\n{% if %}").unwrap_err().to_string();
        assert!(error.contains("chat:2"), "{error}");
    }

    #[test]
    fn special_text_is_marked_and_the_rest_left() {
        let special = vec!["<|im|>".to_string(), "<|im|>x".to_string()];
        assert_eq!(marked("a<|im|>xé<|im|>", &special, '#'), "a#<|im|>x#é#<|im|>#");
    }

    #[test]
    fn json_is_pythons() {
        let template = ChatTemplate::new("{{ messages[0].content | tojson }}").unwrap();
        let rendered = template.render(&[Message::user("<b> & 'é' \\u003c \"q\"\n")], false).unwrap();
        assert_eq!(rendered, r#""<b> & 'é' \\u003c \"q\"\n""#);
    }

    #[test]
    fn a_date_can_be_asked_for() {
        let template = ChatTemplate::new("{{ strftime_now('%Y') }}").unwrap();
        assert!(template.render(&[], false).unwrap().parse::<u32>().unwrap() >= 2024);
        assert!(ChatTemplate::new("{{ strftime_now('%!') }}").unwrap().render(&[], false).is_err());
    }
}
