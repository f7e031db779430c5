//! JSON lines from standard input.

use std::io::{self, BufRead, Read};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

/// The longest line that is read, in bytes.
const MAX_LINE: u64 = 16 << 20;

/// Reads every line that is not blank.
///
/// # Errors
/// Names the first line that is not what is expected.
pub fn read_lines<T: DeserializeOwned>(input: impl BufRead) -> Result<Vec<T>> {
    let mut values = Vec::new();
    for (index, line) in input.lines().enumerate() {
        let line = line.with_context(|| format!("standard input, line {}", index + 1))?;
        if !line.trim().is_empty() {
            values.push(
                serde_json::from_str(&line)
                    .with_context(|| format!("standard input, line {}", index + 1))?,
            );
        }
    }
    Ok(values)
}

/// What each line holds, or what is wrong with it, one for each line, blank ones included: for an
/// answer to every line.
///
/// The outer error is the input's own; nothing comes after it that is worth reading.
pub fn each_line<T: DeserializeOwned>(
    mut input: impl BufRead,
) -> impl Iterator<Item = Result<Result<T, String>>> {
    let mut number = 0;
    std::iter::from_fn(move || {
        number += 1;
        let line = next_line(&mut input)
            .with_context(|| format!("standard input, line {number}"))
            .transpose()?;
        Some(line.map(|line| {
            line.and_then(|line| parse(&line)).map_err(|error| format!("line {number}{error}"))
        }))
    })
}

fn parse<T: DeserializeOwned>(line: &str) -> Result<T, String> {
    if line.trim().is_empty() {
        return Err(": blank, where a JSON object was expected".into());
    }
    serde_json::from_str(line).map_err(|error| {
        // Its own line is always the first.
        let text = error.to_string();
        let reason = text.rsplit_once(" at line ").map_or(&*text, |(reason, _)| reason);
        format!(", column {}: {reason}", error.column())
    })
}

/// The next line without its end, or why it is none; `None` at the end of the input.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Result<String, String>>> {
    let mut bytes = Vec::new();
    if input.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    } else if bytes.len() as u64 == MAX_LINE {
        input.skip_until(b'\n')?;
        return Ok(Some(Err(format!(": longer than {MAX_LINE} bytes"))));
    }
    Ok(Some(String::from_utf8(bytes).map_err(|error| format!(": not UTF-8: {error}"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Number {
        n: u32,
    }

    fn numbers(input: &[u8]) -> Vec<Result<u32, String>> {
        each_line::<Number>(input).map(|line| line.unwrap().map(|number| number.n)).collect()
    }

    #[test]
    fn every_line_has_an_item_in_its_place() {
        let read = numbers(b"{\"n\": 1}\n\n{\"n\": 2}\r\n{\"m\": 3}\n{\"n\"\n\xff\n[]\n{\"n\": 4}");
        let good: Vec<Option<u32>> = read.iter().map(|item| item.as_ref().ok().copied()).collect();
        assert_eq!(good, [Some(1), None, Some(2), None, None, None, None, Some(4)]);
        let error = |index: usize| read[index].as_ref().unwrap_err().as_str();
        assert_eq!(error(1), "line 2: blank, where a JSON object was expected");
        assert_eq!(error(3), "line 4, column 8: missing field `n`");
        assert!(error(4).starts_with("line 5, column 4: EOF"), "{}", error(4));
        assert!(error(5).starts_with("line 6: not UTF-8"), "{}", error(5));
        assert!(error(6).starts_with("line 7"), "{}", error(6));
        assert!(numbers(b"").is_empty());
    }

    #[test]
    fn a_line_that_is_too_long_costs_only_itself() {
        let mut input = vec![b' '; MAX_LINE as usize + 5];
        input.extend(b"\n{\"n\": 7}\n");
        let read = numbers(&input);
        assert_eq!((read.len(), read[1].as_ref().ok()), (2, Some(&7)));
        assert!(read[0].as_ref().unwrap_err().starts_with("line 1: longer than"));
    }

    #[test]
    fn blank_lines_may_be_left_out_but_mistakes_may_not() {
        let read: Vec<Number> = read_lines(&b"{\"n\": 1}\n \n{\"n\": 2}\n"[..]).unwrap();
        assert_eq!(read.iter().map(|number| number.n).collect::<Vec<_>>(), [1, 2]);
        let error = read_lines::<Number>(&b"{\"n\": 1}\n\n{}\n"[..]).err().unwrap();
        assert_eq!(error.to_string(), "standard input, line 3");
    }
}
