//! Whether a `tokenizer.json` can be computed with, before anything is.
//!
//! The tokenizers crate takes a file's word for what it computes by: a map that points outside of
//! itself is a panic at the first text, a chain of replacements multiplies a text without end.

use super::charsmap;
use serde::Deserialize;
use serde_json::Value;

/// What a chain of replacements may make of a text, as a multiple of its bytes.
const MAX_GROWTH: usize = 1024;
/// The most often that a pattern may repeat a part of itself, by a count that is written in it: the
/// engine writes each repetition out.
const MAX_REPEAT: usize = 1000;

/// The parts of a `tokenizer.json` that compute; a vocabulary is only looked up.
#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    model: Model,
}

#[derive(Default, Deserialize)]
struct Model {
    #[serde(default)]
    dropout: Option<f64>,
}

/// What is wrong with a file, with the path of the field.
pub(super) fn check(json: &[u8]) -> Result<(), String> {
    let parts: Parts = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    let named = [
        ("normalizer", &parts.normalizer),
        ("pre_tokenizer", &parts.pre_tokenizer),
        ("post_processor", &parts.post_processor),
        ("decoder", &parts.decoder),
    ];

    for (name, part) in named {
        let mut growth = 1;
        check_steps(name, part, &mut growth)?;
    }

    match parts.model.dropout {
        Some(dropout) if dropout != 0.0 => Err(format!(
            "`model.dropout` is {dropout}: the same text would have other tokens each time"
        )),
        _ => Ok(()),
    }
}

/// Checks a step and those within it; `growth` is what the steps before may make of a text.
fn check_steps(path: &str, value: &Value, growth: &mut usize) -> Result<(), String> {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check_steps(&format!("{path}[{index}]"), item, growth)?;
            }
        }
        Value::Object(fields) => {
            check_step(path, value, growth)?;
            for (name, field) in fields {
                check_steps(&format!("{path}.{name}"), field, growth)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn check_step(path: &str, step: &Value, growth: &mut usize) -> Result<(), String> {
    let pattern = &step["pattern"];
    if let Some(regex) = pattern["Regex"].as_str()
        && let Some(count) = repeats(regex).filter(|count| *count > MAX_REPEAT)
    {
        return Err(format!("`{path}.pattern` repeats a part of itself {count} times"));
    }

    match step["type"].as_str() {
        Some("Replace") => {
            let text = pattern["String"].as_str().or(pattern["Regex"].as_str()).unwrap_or_default();
            if text.is_empty() {
                return Err(format!("`{path}.pattern` is empty: there is nothing to replace"));
            }

            let content = step["content"].as_str().unwrap_or_default().len();
            *growth = growth.saturating_mul(match pattern["String"].as_str() {
                Some(text) => content.div_ceil(text.len()).max(1),
                // It may match between any two bytes.
                None => content + 1,
            });
            if *growth > MAX_GROWTH {
                return Err(format!(
                    "`{path}`: the replacements up to here may make a text {growth} times as long \
                     (at most {MAX_GROWTH} times is computed)"
                ));
            }
        }
        Some("FixedLength") if step["length"] == 0 => {
            return Err(format!("`{path}.length` is 0"));
        }
        Some("Precompiled") => {
            let map = step["precompiled_charsmap"].as_str().unwrap_or_default();
            charsmap::check(map)
                .map_err(|reason| format!("`{path}.precompiled_charsmap` {reason}"))?;
        }
        Some("TemplateProcessing") => {
            let pieces = step["single"].as_array();
            let texts =
                pieces.map(|pieces| pieces.iter().filter(|p| !p["Sequence"].is_null()).count());
            if texts.is_some_and(|texts| texts != 1) {
                return Err(format!("`{path}.single` does not hold the text once"));
            }
        }
        _ => {}
    }
    Ok(())
}

/// The product of the counts that a pattern repeats its parts by: no less than what it is written
/// out to.
fn repeats(regex: &str) -> Option<usize> {
    let counts = regex.split('{').skip(1).filter_map(|part| {
        let (count, _) = part.split_once('}')?;
        count.split(',').filter_map(|number| number.trim().parse::<usize>().ok()).max()
    });
    counts.reduce(usize::saturating_mul)
}
