//! What a template prints, as Python prints it.

use std::fmt::{self, Write};

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Output, State, Value, escape_formatter};

/// The longest text of a list or a dict, in bytes: one may hold itself many times over.
const MAX_BYTES: usize = 1 << 24;

/// Python's words for a value that is no text: `None`, `True`, `False`.
pub(super) fn as_python(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    let text = match value.kind() {
        ValueKind::None => "None".to_owned(),
        ValueKind::Bool if value.is_true() => "True".to_owned(),
        ValueKind::Bool => "False".to_owned(),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => bounded(value)?,
        _ => return escape_formatter(out, state, value),
    };

    out.write_str(&text).map_err(Error::from)
}

fn bounded(value: &Value) -> Result<String, Error> {
    let mut text = Bounded(String::new());

    if let Ok(()) = write!(text, "{value}") {
        Ok(text.0)
    } else {
        let detail = format!("a value prints as more than {MAX_BYTES} bytes");
        Err(Error::new(ErrorKind::InvalidOperation, detail))
    }
}

/// A text that takes no more than [`MAX_BYTES`].
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_BYTES {
            return Err(fmt::Error);
        }

        self.0.push_str(text);
        Ok(())
    }
}
