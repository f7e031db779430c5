//! Python's methods of strings, lists and dicts, within bounds.
//!
//! The engine bounds what its own operators and filters may allocate. Methods are the compatibility
//! library's, and are only charged once their result is there.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// The largest text that a method may make, in bytes.
const MAX_BYTES: usize = 1 << 24;
/// The widest field of `format`, in digits of its width: 9,999.
const MAX_WIDTH_DIGITS: usize = 4;

/// The method `name` of `value`.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    if value.kind() == ValueKind::String
        && !is_bounded(value.as_str().unwrap_or_default(), name, arguments)
    {
        let detail = format!("`{name}` would make a text of more than {MAX_BYTES} bytes");
        return Err(Error::new(ErrorKind::InvalidOperation, detail));
    }

    unknown_method_callback(state, value, name, arguments)
}

/// Whether a method's result cannot be much larger than what it is made of.
fn is_bounded(text: &str, name: &str, arguments: &[Value]) -> bool {
    let length = |value: &Value| value.as_str().map_or(32, str::len);

    match name {
        // A width may also be an argument: `{:{}}`.
        "format" => !(has_wide_field(text) || text.contains(":{") && arguments.iter().any(is_wide)),
        "replace" => {
            let [old, new, ..] = arguments else { return true };
            let places = match length(old) {
                0 => text.len() + 1,
                old => text.len() / old,
            };
            places.saturating_mul(length(new)).saturating_add(text.len()) <= MAX_BYTES
        }
        "join" => {
            let items = arguments.first().and_then(Value::len).unwrap_or_default();
            items.saturating_mul(text.len()) <= MAX_BYTES
        }
        _ => true,
    }
}

/// Whether a format string has a number too large for a width or a precision.
fn has_wide_field(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > MAX_WIDTH_DIGITS)
}

/// Whether a value is a number too large for a width.
fn is_wide(value: &Value) -> bool {
    value.kind() == ValueKind::Number
        && usize::try_from(value.clone()).map_or(true, |width| width > 9_999)
}
