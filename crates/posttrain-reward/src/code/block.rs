//! The program in a response: the last fenced block of its language.

/// The contents of the last closed block fenced by ``` whose language is one of `languages`.
///
/// The empty language is a fence without one. A fence is a line that begins with at least three
/// back-quotes after at most three spaces; it ends at a line of at least as many (CommonMark). A
/// block that is never closed is none: it was cut off.
pub(crate) fn last_block<'t>(text: &'t str, languages: &[String]) -> Option<&'t str> {
    let mut last = None;
    let mut open: Option<(usize, bool, usize)> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let (start, end) = (at, at + line.len());
        at = end;
        let Some((ticks, info)) = fence(line) else { continue };
        match open {
            None => {
                let language =
                    info.split([' ', '{', ',']).next().unwrap_or_default().to_ascii_lowercase();
                open = Some((ticks, languages.contains(&language), end));
            }
            Some((opened, wanted, from)) if ticks >= opened && info.is_empty() => {
                last = if wanted { Some(&text[from..start]) } else { last };
                open = None;
            }
            Some(_) => {}
        }
    }
    last
}

/// The back-quotes that a line begins with, and what follows them.
fn fence(line: &str) -> Option<(usize, &str)> {
    let indented = line.trim_start_matches(' ');
    if line.len() - indented.len() > 3 {
        return None;
    }
    let info = indented.trim_start_matches('`');
    let ticks = indented.len() - info.len();
    // In-line code has its closing ticks on the same line.
    (ticks >= 3 && !info.contains('`')).then(|| (ticks, info.trim()))
}

#[cfg(test)]
mod tests {
    use super::last_block;

    #[test]
    fn blocks() {
        let languages = ["python", "py", ""].map(str::to_owned);
        let cases = [
            ("```python\na\n```", Some("a\n")),
            ("text\n```python\na\n```\nmore\n```py\nb\n```\nend", Some("b\n")),
            ("```python\na\n```\n```text\nb\n```", Some("a\n")),
            ("```\na\n```", Some("a\n")),
            ("```Python title=\"x\"\na\n```", Some("a\n")),
            ("  ```python\n  a\n  ```", Some("  a\n")),
            ("    ```python\na\n```", None),
            ("````python\n```\na\n````", Some("```\na\n")),
            ("```python\na", None),
            ("```python\na\n```\n```python\nb", Some("a\n")),
            ("```python\n```", Some("")),
            ("```python print(1)```", None),
            ("a", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(last_block(text, &languages), expected, "{text}");
        }
    }
}
