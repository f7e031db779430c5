//! Python's `json.dumps`, as chat templates call it.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// How deep a value may be nested.
const MAX_DEPTH: usize = 100;
/// The most blanks of an indentation level.
const MAX_INDENT: usize = 64;
/// The longest text, in bytes: a value may hold itself many times over.
const MAX_BYTES: usize = 1 << 24;

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`: the
/// filter `tojson` of transformers, which the engine's own is not (it escapes what HTML would read,
/// and writes no blanks).
#[expect(
    clippy::needless_pass_by_value,
    reason = "a filter of minijinja takes its named arguments by value"
)]
pub(super) fn tojson(
    value: &Value,
    ensure_ascii: Option<bool>,
    arguments: Kwargs,
) -> Result<Value, Error> {
    let indent = indentation(&arguments)?;
    let separators: Option<(String, String)> = match arguments.get::<Option<Value>>("separators")? {
        Some(pair) if !pair.is_none() => Some(pair_of_texts(&pair)?),
        _ => None,
    };
    let ensure_ascii = match ensure_ascii {
        Some(given) => given,
        None => arguments.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
    };
    let sort_keys = arguments.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    arguments.assert_all_used()?;

    // Python leaves out the blank behind a comma that a line's end follows.
    let comma = if indent.is_some() { "," } else { ", " };
    let (item, key) = separators.unwrap_or_else(|| (comma.to_owned(), ": ".to_owned()));
    let mut dumper = Dumper { out: String::new(), ensure_ascii, indent, item, key, sort_keys };
    dumper.value(value, 0)?;
    Ok(Value::from_safe_string(dumper.out))
}

/// What one level of nesting is indented by.
fn indentation(arguments: &Kwargs) -> Result<Option<String>, Error> {
    let Some(indent) = arguments.get::<Option<Value>>("indent")?.filter(|indent| !indent.is_none())
    else {
        return Ok(None);
    };

    if let Some(text) = indent.as_str() {
        return Ok(Some(text.chars().take(MAX_INDENT).collect()));
    }
    let blanks = usize::try_from(indent).unwrap_or(0);
    if blanks > MAX_INDENT {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("tojson: an indentation of {blanks} blanks"),
        ));
    }
    Ok(Some(" ".repeat(blanks)))
}

fn pair_of_texts(pair: &Value) -> Result<(String, String), Error> {
    let texts: Vec<String> = pair.try_iter()?.map(|text| text.to_string()).collect();

    match <[String; 2]>::try_from(texts) {
        Ok([item, key]) => Ok((item, key)),
        Err(_) => {
            Err(Error::new(ErrorKind::InvalidOperation, "tojson: `separators` must be two texts"))
        }
    }
}

struct Dumper {
    out: String,
    ensure_ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    sort_keys: bool,
}

impl Dumper {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::new(ErrorKind::InvalidOperation, "tojson: nested too deep"));
        }
        if self.out.len() > MAX_BYTES {
            let detail = format!("tojson: a text of more than {MAX_BYTES} bytes");
            return Err(Error::new(ErrorKind::InvalidOperation, detail));
        }

        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value),
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            ValueKind::Map => self.object(value, depth)?,
            kind => {
                let detail = format!("tojson: a value of type {kind} is no JSON");
                return Err(Error::new(ErrorKind::InvalidOperation, detail));
            }
        }
        Ok(())
    }

    /// As Python has it: a float always shows that it is one.
    fn number(&mut self, value: &Value) {
        let text = value.to_string();
        self.out.push_str(match text.as_str() {
            "inf" => "Infinity",
            "-inf" => "-Infinity",
            text => text,
        });
    }

    fn list(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut is_empty = true;
        self.out.push('[');
        for item in value.try_iter()? {
            self.part(is_empty, depth + 1);
            self.value(&item, depth + 1)?;
            is_empty = false;
        }
        self.close(']', is_empty, depth);
        Ok(())
    }

    fn object(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.sort_keys {
            keys.sort();
        }

        self.out.push('{');
        for (index, key) in keys.iter().enumerate() {
            self.part(index == 0, depth + 1);
            self.text(&key.to_string());
            self.out.push_str(&self.key.clone());
            self.value(&value.get_item(key)?, depth + 1)?;
        }
        self.close('}', keys.is_empty(), depth);
        Ok(())
    }

    /// What stands before a member.
    fn part(&mut self, is_first: bool, depth: usize) {
        if !is_first {
            self.out.push_str(&self.item.clone());
        }
        self.line(depth);
    }

    fn close(&mut self, bracket: char, is_empty: bool, depth: usize) {
        if !is_empty {
            self.line(depth);
        }
        self.out.push(bracket);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.push_str(&indent.repeat(depth));
        }
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}
