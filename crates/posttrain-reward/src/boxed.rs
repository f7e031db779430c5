//! The last `\boxed{…}` with its braces balanced.

/// The contents of the complete box that begins last. One pass; the stack is on the heap.
pub(crate) fn last_boxed(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    // For each open brace: where its contents begin, and whether it opens a box.
    let mut open: Vec<(usize, bool)> = Vec::new();
    let mut last: Option<(usize, usize)> = None;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            // An escaped character: `\{` is a set's brace, `\\` a new line.
            b'\\' if !bytes.get(at + 1).is_some_and(u8::is_ascii_alphabetic) => at += 1,
            b'{' => open.push((at + 1, opens_box(&text[..at]))),
            b'}' => {
                if let Some((start, true)) = open.pop() {
                    last = last.filter(|box_| box_.0 > start).or(Some((start, at)));
                }
            }
            _ => {}
        }
        at += 1;
    }
    last.map(|(start, end)| &text[start..end])
}

fn opens_box(before: &str) -> bool {
    let before = before.strip_suffix(' ').unwrap_or(before);
    before.ends_with("\\boxed") || before.ends_with("\\fbox")
}

#[cfg(test)]
mod tests {
    use super::last_boxed;

    #[test]
    fn boxes() {
        let cases = [
            (r"\boxed{5}", Some("5")),
            (r"\boxed {5}", Some("5")),
            (r"\fbox{5}", Some("5")),
            (r"\boxed{1} then \boxed{2}", Some("2")),
            (r"\boxed{\frac{1}{2}}", Some(r"\frac{1}{2}")),
            (r"\boxed{\boxed{5}}", Some("5")),
            (r"\boxed{\{1, 2\}}", Some(r"\{1, 2\}")),
            (r"\boxed{\}}", Some(r"\}")),
            (r"\boxed{}", Some("")),
            (r"\boxed{1} \boxed{2", Some("1")),
            (r"\boxed{1", None),
            (r"{\boxed{1}", Some("1")),
            (r"}} \boxed{1} }}", Some("1")),
            (r"boxed{1}", None),
            (r"\boxed", None),
            ("\\", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(last_boxed(text), expected, "{text}");
        }
    }
}
