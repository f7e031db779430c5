//! Chat templates: messages to the text, and the tokens, that a model was trained on.

mod json;
mod methods;
mod print;
mod tags;

use crate::thinking::{Start, Thinking, start_after};
use crate::{ModelError, TextTokenizer};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use posttrain_chat::{Message, Tool};
use serde_json::Value as Json;
use std::cell::Cell;

/// What a rendering may cost: an instruction each, and 64 bytes of text or an item of a list that
/// is looked at each.
const FUEL: u64 = 2_000_000;
/// How deep macros may call each other: far from the end of a thread's stack.
const MAX_RECURSION: usize = 100;

/// A chat template in Jinja, with what Hugging Face's templates expect of their engine:
/// `trim_blocks` and `lstrip_blocks`, Python's string methods, loop controls, `tojson`,
/// `raise_exception`, `strftime_now`, `generation`.
///
/// A template is a stranger's program: the instructions that it may take and the text that it may
/// write are bounded, and it loads no other. The engine bounds no list that is added to itself
/// again and again, and no nesting of values.
///
/// ```
/// use posttrain_chat::Message;
/// use posttrain_model::ChatTemplate;
/// let source = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'].strip() }}\n{% endfor %}\
///               {% if add_generation_prompt %}[assistant]{% endif %}";
/// let template = ChatTemplate::new(source)?;
/// assert_eq!(template.render(&[Message::user(" Hi! ")], true)?, "[user] Hi!\n[assistant]");
/// # Ok::<(), posttrain_model::ModelError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    begin: Option<String>,
    end: Option<String>,
    thinking: Thinking,
    tools: Vec<Tool>,
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
        environment.set_recursion_limit(MAX_RECURSION);
        environment.set_unknown_method_callback(methods::call);
        environment.set_formatter(print::as_python);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", json::tojson);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);

        let compiled = tags::without_own_tags(source)
            .and_then(|source| environment.add_template_owned("chat", source));
        compiled.map_err(|source| ModelError::Template { source })?;

        Ok(Self {
            environment,
            begin: None,
            end: None,
            thinking: Thinking::default(),
            tools: Vec::new(),
        })
    }

    /// The same with the tokens that a template knows as `bos_token` and `eos_token`. One that is
    /// `None` is not defined there.
    #[must_use]
    pub fn with_tokens(self, begin: Option<String>, end: Option<String>) -> Self {
        Self { begin, end, ..self }
    }

    /// The same, asking the model to think or not (`enable_thinking`, which Qwen3's template knows;
    /// others do as they do).
    ///
    /// ```
    /// use posttrain_chat::Message;
    /// use posttrain_model::{ChatTemplate, Thinking};
    /// let source = "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}";
    /// let template = ChatTemplate::new(source)?;
    /// assert_eq!(template.render(&[Message::user("Hi!")], true)?, "");
    /// assert_eq!(template.with_thinking(Thinking::Off).render(&[], true)?, "<think></think>");
    /// # Ok::<(), posttrain_model::ModelError>(())
    /// ```
    #[must_use]
    pub fn with_thinking(self, thinking: Thinking) -> Self {
        Self { thinking, ..self }
    }

    /// The same, telling the model of tools that it may call.
    ///
    /// ```
    /// use posttrain_chat::Tool;
    /// use posttrain_model::ChatTemplate;
    /// let template = ChatTemplate::new("{% if tools %}{{ tools[0].function.name }}{% endif %}")?;
    /// let tool = Tool::new("add", "Adds two numbers.", serde_json::json!({"type": "object"}));
    /// assert_eq!(template.with_tools(vec![tool]).render(&[], true)?, "add");
    /// # Ok::<(), posttrain_model::ModelError>(())
    /// ```
    #[must_use]
    pub fn with_tools(self, tools: Vec<Tool>) -> Self {
        Self { tools, ..self }
    }

    /// Where completions of this template's prompts begin: inside a thinking block where the
    /// template opens one itself.
    ///
    /// # Errors
    /// [`ModelError::Template`] if the template refuses a lone message of the user's.
    pub fn start(&self) -> Result<Start, ModelError> {
        Ok(start_after(&self.render(&[Message::user("?")], true)?))
    }

    /// The text of a conversation; with `generation_prompt` it ends where the assistant's answer
    /// begins.
    ///
    /// # Errors
    /// [`ModelError::Template`] if the template refuses the messages.
    pub fn render(
        &self,
        messages: &[Message],
        generation_prompt: bool,
    ) -> Result<String, ModelError> {
        self.render_with(messages, &self.tools, generation_prompt)
    }

    fn render_with(
        &self,
        messages: &[Message],
        tools: &[Tool],
        generation_prompt: bool,
    ) -> Result<String, ModelError> {
        let messages = Value::from(Serde(messages));
        let template = self.environment.get_template("chat");

        // transformers passes these two as None where there are none; templates test for them.
        let none = || Value::from(());
        let tools = if tools.is_empty() { none() } else { Value::from(Serde(tools)) };

        // Templates ask whether it is defined.
        let enable_thinking = match self.thinking {
            Thinking::AsTemplate => Value::UNDEFINED,
            Thinking::On => Value::from(true),
            Thinking::Off => Value::from(false),
        };

        let context = context! {
            messages,
            add_generation_prompt => generation_prompt,
            // transformers leaves out a token that is `null` in the tokenizer's configuration.
            bos_token => self.begin.as_deref().map_or(Value::UNDEFINED, Value::from),
            eos_token => self.end.as_deref().map_or(Value::UNDEFINED, Value::from),
            tools,
            documents => none(),
            enable_thinking,
        };

        template.and_then(|t| t.render(context)).map_err(|source| ModelError::Template { source })
    }

    /// The token ids of a conversation.
    ///
    /// Where any text of a message (its content, its calls of tools, a name) holds the text of a
    /// special token, that text is encoded as the characters that it is, so that no question or
    /// answer can end its own turn or open another's. (`transformers` would take it for the token;
    /// on every other content the two agree.)
    ///
    /// # Errors
    /// Those of [`ChatTemplate::render`] and of the tokenizer.
    pub fn encode(
        &self,
        tokenizer: &TextTokenizer,
        messages: &[Message],
        generation_prompt: bool,
    ) -> Result<Vec<i64>, ModelError> {
        self.encode_between(tokenizer, messages, generation_prompt, None)
    }

    /// The tokens that follow an answer which a model has just sampled: the end of its turn as this
    /// template writes it, `messages` (a tool's results, the next question), and the beginning of
    /// the next answer. Texts of special tokens are characters, as in [`ChatTemplate::encode`].
    ///
    /// What was sampled is not touched. To render a conversation anew with an answer's text in it,
    /// and to encode that, can give other tokens than were sampled, for the same text; and a
    /// template may write an earlier answer otherwise once others follow it. A policy would then be
    /// trained on tokens that it never wrote.
    ///
    /// ```
    /// use posttrain_chat::Message;
    /// use posttrain_model::{ChatTemplate, TextTokenizer};
    /// # let vocab = r#"{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"hi": 0, "<end>": 1, "user": 2, "assistant": 3}, "unk_token": "hi"},
    /// #   "pre_tokenizer": {"type": "Whitespace"}, "added_tokens": [{"id": 1, "content": "<end>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}]}"#;
    /// # let tokenizer = TextTokenizer::from_json(vocab.as_bytes(), "tokenizer.json".as_ref(), 8)?;
    /// let source = "{% for m in messages %}{{ m.role }} {{ m.content }}<end>{% endfor %}\
    ///               {% if add_generation_prompt %}assistant{% endif %}";
    /// let template = ChatTemplate::new(source)?;
    /// let next = template.encode_continuation(&tokenizer, &[Message::user("hi")])?;
    /// assert_eq!(tokenizer.decode_with_special(&next)?, "<end> user hi <end> assistant");
    /// # Ok::<(), posttrain_model::ModelError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`ChatTemplate::encode`]; [`ModelError::Answer`] if the template does not write an
    /// answer as it was given.
    pub fn encode_continuation(
        &self,
        tokenizer: &TextTokenizer,
        messages: &[Message],
    ) -> Result<Vec<i64>, ModelError> {
        let answer = unused_mark(messages, &self.tools, None);
        let mut whole = vec![Message::user("?"), Message::assistant(answer)];
        whole.extend_from_slice(messages);
        self.encode_between(tokenizer, &whole, true, Some(answer))
    }

    /// The tokens of a conversation, or of what stands behind the mark `after` in it.
    fn encode_between(
        &self,
        tokenizer: &TextTokenizer,
        messages: &[Message],
        generation_prompt: bool,
        after: Option<char>,
    ) -> Result<Vec<i64>, ModelError> {
        let behind = |rendered: String| match after {
            None => Ok(rendered),
            Some(mark) => match rendered.split_once(mark) {
                Some((_, behind)) if !behind.contains(mark) => Ok(behind.to_owned()),
                _ => Err(ModelError::Answer),
            },
        };
        let special = tokenizer.special_tokens();
        let is_hostile = |text: &str| {
            special.iter().any(|token| !token.is_empty() && text.contains(token.as_str()))
        };
        if !any_text(messages, &self.tools, &is_hostile) {
            return tokenizer.encode_markup(&behind(self.render(messages, generation_prompt)?)?);
        }

        let mark = unused_mark(messages, &self.tools, after);
        let change = |text: &str| marked(text, &special, mark);
        let messages: Vec<Message> =
            messages.iter().map(|message| map_message(message, &change)).collect();
        let tools: Vec<Tool> = self.tools.iter().map(|tool| map_tool(tool, &change)).collect();
        let rendered = behind(self.render_with(&messages, &tools, generation_prompt)?)?;

        let mut tokens = Vec::new();
        // Marks come in pairs, so every second piece is the text of a special token.
        for (index, piece) in rendered.split(mark).enumerate() {
            let encoded = if index % 2 == 0 {
                tokenizer.encode_markup(piece)
            } else {
                tokenizer.encode_text(piece)
            };
            tokens.extend(encoded?);
        }
        Ok(tokens)
    }

    /// Whether the template itself tells a model of the tools that it has.
    ///
    /// # Errors
    /// [`ModelError::Template`] if it refuses a lone message of the user's.
    ///
    /// ```
    /// use posttrain_model::ChatTemplate;
    ///
    /// assert!(!ChatTemplate::new("{{ messages[0].content }}")?.tells_tools()?);
    /// assert!(ChatTemplate::new("{% if tools %}{{ tools | tojson }}{% endif %}")?.tells_tools()?);
    /// # Ok::<(), posttrain_model::ModelError>(())
    /// ```
    pub fn tells_tools(&self) -> Result<bool, ModelError> {
        const NAME: &str = "tell_of_this_tool";
        let tool = Tool::new(NAME, "", serde_json::json!({"type": "object", "properties": {}}));
        let rendered = self.render_with(&[Message::user("?")], &[tool], true)?;
        Ok(rendered.contains(NAME))
    }
}

/// Whether `is` holds for any text that somebody else may have written.
fn any_text(messages: &[Message], tools: &[Tool], is: &dyn Fn(&str) -> bool) -> bool {
    let found = Cell::new(false);
    let look = |text: &str| {
        found.set(found.get() || is(text));
        String::new()
    };

    for message in messages {
        let _ = map_message(message, &look);
    }
    for tool in tools {
        let _ = map_tool(tool, &look);
    }
    found.get()
}

/// A message with all of its texts changed but its role, which is one of a few words.
fn map_message(message: &Message, change: &dyn Fn(&str) -> String) -> Message {
    let mut message = message.clone();
    message.content = message.content.map(change);

    let texts = [&mut message.reasoning_content, &mut message.tool_call_id, &mut message.name];
    for text in texts.into_iter().flatten() {
        *text = change(text);
    }

    for call in message.tool_calls.iter_mut().flatten() {
        if let Some(id) = &mut call.id {
            *id = change(id);
        }
        call.function.name = change(&call.function.name);
        call.function.arguments = map_json(&call.function.arguments, change);
    }
    message
}

/// A tool with all of its texts changed.
fn map_tool(tool: &Tool, change: &dyn Fn(&str) -> String) -> Tool {
    let mut tool = tool.clone();
    tool.function.name = change(&tool.function.name);
    tool.function.description = tool.function.description.as_deref().map(change);
    tool.function.parameters =
        tool.function.parameters.as_ref().map(|parameters| map_json(parameters, change));
    tool
}

/// A JSON value with all of its texts changed, keys included.
fn map_json(value: &Json, change: &dyn Fn(&str) -> String) -> Json {
    match value {
        Json::String(text) => Json::String(change(text)),
        Json::Array(items) => items.iter().map(|item| map_json(item, change)).collect(),
        Json::Object(fields) => Json::Object(
            fields.iter().map(|(name, item)| (change(name), map_json(item, change))).collect(),
        ),
        other => other.clone(),
    }
}

/// A private-use character that no text holds, other than `taken`.
fn unused_mark(messages: &[Message], tools: &[Tool], taken: Option<char>) -> char {
    let is_used =
        |mark: char| taken == Some(mark) || any_text(messages, tools, &|text| text.contains(mark));

    ('\u{e000}'..='\u{f8ff}').find(|mark| !is_used(*mark)).unwrap_or('\u{e000}')
}

/// `content` with every special token's text between two marks; the longest match wins.
fn marked(content: &str, special: &[String], mark: char) -> String {
    let mut out = String::with_capacity(content.len() + 8);
    let mut rest = content;
    while !rest.is_empty() {
        let found = special
            .iter()
            .filter(|s| !s.is_empty() && rest.starts_with(s.as_str()))
            .max_by_key(|s| s.len());
        let length =
            found.map_or_else(|| rest.chars().next().map_or(1, char::len_utf8), |s| s.len());

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

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "a function of minijinja takes whatever it is given as a text by value"
)]
fn strftime_now(format: String) -> Result<String, Error> {
    use std::fmt::Write;
    let mut text = String::new();
    let now = chrono::Local::now();
    match write!(text, "{}", now.format(&format)) {
        Ok(()) => Ok(text),
        Err(_) => Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("strftime_now: unknown format `{format}`"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error with its source.
    fn told(error: &ModelError) -> String {
        let source = std::error::Error::source(error).map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    }

    #[test]
    fn a_template_may_refuse_and_the_reason_arrives() {
        let template = ChatTemplate::new("{{ raise_exception('roles must alternate') }}").unwrap();
        let error = told(&template.render(&[], false).unwrap_err());
        assert!(error.contains("roles must alternate"), "{error}");
    }

    #[test]
    fn an_endless_template_ends_and_a_broken_one_names_its_line() {
        let endless = "{% for i in range(9999) %}{% for j in range(9999) %}{{ i * j }}{% endfor %}{% endfor %}";
        assert!(ChatTemplate::new(endless).unwrap().render(&[], false).is_err());
        let error = told(&ChatTemplate::new("line one\n{% if %}").unwrap_err());
        assert!(error.contains("chat:2"), "{error}");
    }

    #[test]
    fn special_text_is_marked_and_the_rest_left() {
        let special = vec!["<|im|>".to_owned(), "<|im|>x".to_owned()];
        assert_eq!(marked("a<|im|>xé<|im|>", &special, '#'), "a#<|im|>x#é#<|im|>#");
    }

    #[test]
    fn json_is_pythons() {
        let template = ChatTemplate::new("{{ messages[0].content | tojson }}").unwrap();
        let rendered =
            template.render(&[Message::user("<b> & 'é' \\u003c \"q\"\n")], false).unwrap();
        assert_eq!(rendered, r#""<b> & 'é' \\u003c \"q\"\n""#);
    }

    #[test]
    fn json_takes_pythons_arguments() {
        let cases = [
            ("{{ value | tojson }}", r#"{"é": [1, 2.0, true, null], "b": {}}"#),
            (
                "{{ value | tojson(ensure_ascii=True) }}",
                r#"{"\u00e9": [1, 2.0, true, null], "b": {}}"#,
            ),
            ("{{ value | tojson(separators=(',', ':')) }}", r#"{"é":[1,2.0,true,null],"b":{}}"#),
            ("{{ value | tojson(sort_keys=True) }}", r#"{"b": {}, "é": [1, 2.0, true, null]}"#),
            ("{{ value['é'] | tojson(indent=2) }}", "[\n  1,\n  2.0,\n  true,\n  null\n]"),
            ("{{ '😀' | tojson(ensure_ascii=True) }}", r#""\ud83d\ude00""#),
        ];
        for (source, expected) in cases {
            let head = "{% set value = {'é': [1, 2.0, true, none], 'b': {}} %}";
            assert_eq!(
                ChatTemplate::new(&format!("{head}{source}")).unwrap().render(&[], false).unwrap(),
                expected
            );
        }
        for source in [
            "{{ [] | tojson(indents=2) }}",
            "{{ [] | tojson(indent=1000000) }}",
            "{{ missing | tojson }}",
        ] {
            assert!(ChatTemplate::new(source).unwrap().render(&[], false).is_err(), "{source}");
        }
    }

    #[test]
    fn values_print_as_in_python() {
        let template = ChatTemplate::new(
            "{{ none }} {{ true }} {{ false }} {{ messages[0].content }}{{ missing }}",
        );
        let null = Message { content: posttrain_chat::Content::Null, ..Message::user("") };
        assert_eq!(template.unwrap().render(&[null], false).unwrap(), "None True False None");
    }

    #[test]
    fn a_token_that_is_null_is_not_defined() {
        let source =
            "{{ bos_token }}{% if bos_token is defined %}defined{% endif %}{{ eos_token }}";
        let template = ChatTemplate::new(source).unwrap().with_tokens(None, Some("<e>".into()));
        assert_eq!(template.render(&[], false).unwrap(), "<e>");
    }

    /// Programs that a model's folder may bring along.
    #[test]
    fn a_hostile_template_ends_in_words() {
        let nested = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
        let blocks =
            format!("{}{}", "{% if true %}".repeat(100_000), "{% endif %}".repeat(100_000));
        let hostile = [
            "{% include 'chat' %}".to_owned(),
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned(),
            format!("{{{{ {nested} }}}}"),
            format!("{{{{ {}{} }}}}", "[".repeat(100_000), "]".repeat(100_000)),
            blocks,
            "{{ '%10000000000d' | format(1) }}".to_owned(),
            "{{ '{:>10000000000}'.format(1) }}".to_owned(),
            "{{ '{:{}}'.format(1, 10000000000) }}".to_owned(),
            "{{ 'x' * 10000000000 }}".to_owned(),
            "{% set ns = namespace(l=[]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}"
                .to_owned(),
            "{% set ns = namespace(l=[]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l | tojson }}"
                .to_owned(),
            "{% set ns = namespace(l=[]) %}{% for i in range(101) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l | tojson }}"
                .to_owned(),
            "{% set ns = namespace(l='x') %}{% for i in range(60) %}{% set ns.l = ns.l ~ ns.l %}{% endfor %}"
                .to_owned(),
            "{% set x = 'x' * 1000000 %}{{ x.replace('', x) }}".to_owned(),
            "{% set x = 'x' * 1000000 %}{{ x.join(x.split('')) }}{{ x.join(range(9000)) }}".to_owned(),
            "{{ range(10000000000) | list | length }}".to_owned(),
            "{{ ('x' | indent(10000000000, true)) }}".to_owned(),
        ];
        for source in hostile {
            let start = std::time::Instant::now();
            let rendered =
                ChatTemplate::new(&source).and_then(|template| template.render(&[], false));
            let head: String = source.chars().take(60).collect();
            assert!(rendered.is_err(), "{head}");
            assert!(start.elapsed().as_secs() < 20, "{head}");
        }
    }

    #[test]
    fn a_date_can_be_asked_for() {
        let template = ChatTemplate::new("{{ strftime_now('%Y') }}").unwrap();
        assert!(template.render(&[], false).unwrap().parse::<u32>().unwrap() >= 2024);
        assert!(ChatTemplate::new("{{ strftime_now('%!') }}").unwrap().render(&[], false).is_err());
    }
}
