//! The last `\boxed{…}` with its braces balanced.

/// Words that part two boxes without making them two attempts.
const JOINS: [&str; 2] = ["and", "or"];
/// Words between two boxes after which the second takes the first back.
const TAKES_BACK: [&str; 12] = [
    "so",
    "then",
    "thus",
    "hence",
    "no",
    "not",
    "wait",
    "actually",
    "rather",
    "therefore",
    "finally",
    "is",
];
/// The longest text between two boxes of one answer, in bytes.
const MAX_GAP: usize = 70;

/// The contents of the box that begins last; none where it never closes, since it takes an earlier
/// answer back.
pub(crate) fn last_boxed(text: &str) -> Option<&str> {
    let last = boxes(text).into_iter().max_by_key(|one| one.start)?;

    last.end.map(|end| &text[last.start..end])
}

/// Whether the box that begins last never closes.
pub(crate) fn is_left_open(text: &str) -> bool {
    boxes(text).into_iter().max_by_key(|one| one.start).is_some_and(|last| last.end.is_none())
}

/// The contents of the last box and of those before it from which only commas, `and` or `or` and at
/// most a word part it: `\boxed{1} and \boxed{2}`. In the order of the text; equal neighbors once.
/// None where the last never closes.
pub(crate) fn last_boxes(text: &str) -> Vec<&str> {
    let mut boxes = boxes(text);
    boxes.sort_unstable_by_key(|one| one.start);
    if boxes.last().is_some_and(|last| last.end.is_none()) {
        return Vec::new();
    }

    let mut joined: Vec<(usize, usize)> = Vec::new();
    for one in boxes.into_iter().rev() {
        let Some(end) = one.end else { continue };
        let start = one.start;
        match joined.last() {
            Some(&(next, _)) if end < next && joins(&text[end..next]) => joined.push((start, end)),
            // A box around the ones that stand already.
            Some(&(next, _)) if end >= next => {}
            Some(_) => break,
            None => joined.push((start, end)),
        }
    }

    let mut contents: Vec<&str> =
        joined.into_iter().rev().map(|(start, end)| &text[start..end]).collect();
    contents.dedup();
    contents
}

/// Whether what stands between two boxes, from the brace that closes the first to the contents of
/// the second, joins them.
fn joins(gap: &str) -> bool {
    let gap = gap.trim_start_matches('}').trim_end_matches('{').trim_end();
    let gap = gap.strip_suffix("boxed").or_else(|| gap.strip_suffix("fbox")).unwrap_or(gap);
    if gap.len() > MAX_GAP || gap.contains(['.', '=', '\u{2192}']) || gap.contains("\n\n") {
        return false;
    }
    let words = gap.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
    let others: Vec<&str> =
        words.filter(|word| !is_markup(word) && !is_one_of(word, &JOINS)).collect();
    others.len() <= 1 && !others.iter().any(|word| is_one_of(word, &TAKES_BACK))
}

fn is_markup(word: &str) -> bool {
    is_one_of(word, &["text", "quad", "qquad", "left", "right", "mathrm", "textbf"])
}

fn is_one_of(word: &str, words: &[&str]) -> bool {
    words.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// Where the contents of a box begin, and where they end, if the box is ever closed.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: usize,
    end: Option<usize>,
}

/// All boxes. One pass; the stack is on the heap.
fn boxes(text: &str) -> Vec<Place> {
    let bytes = text.as_bytes();
    // For each open brace: where its contents begin, and whether it opens a box.
    let mut open: Vec<(usize, bool)> = Vec::new();
    let mut boxes = Vec::new();
    let mut at = 0;

    while at < bytes.len() {
        match bytes[at] {
            // An escaped character: `\{` is a set's brace, `\\` a new line.
            b'\\' if !bytes.get(at + 1).is_some_and(u8::is_ascii_alphabetic) => at += 1,
            b'{' => open.push((at + 1, opens_box(&text[..at]))),
            b'}' => {
                if let Some((start, true)) = open.pop() {
                    boxes.push(Place { start, end: Some(at) });
                }
            }
            _ => {}
        }
        at += 1;
    }

    let left_open = open.into_iter().filter(|(_, is_box)| *is_box);
    boxes.extend(left_open.map(|(start, _)| Place { start, end: None }));
    boxes
}

fn opens_box(before: &str) -> bool {
    let before = before.strip_suffix(' ').unwrap_or(before);
    before.ends_with("\\boxed") || before.ends_with("\\fbox")
}

#[cfg(test)]
mod tests {
    use super::{last_boxed, last_boxes};

    #[test]
    fn boxes_of_one_answer_are_joined() {
        let cases: [(&str, &[&str]); 10] = [
            (r"\boxed{1}", &["1"]),
            (r"\boxed{1} and \boxed{2}", &["1", "2"]),
            (r"\(\boxed{1}\) or \(\boxed{2}\)", &["1", "2"]),
            (r"$\boxed{1}$, $\boxed{2}$", &["1", "2"]),
            (r"\boxed{1} papers and \boxed{2} bins", &["1", "2"]),
            (r"\boxed{1}, no, \boxed{2}", &["2"]),
            (r"\boxed{1}. So it is \boxed{2}", &["2"]),
            (r"\boxed{\boxed{1}}", &["1"]),
            (r"\boxed{1} \boxed{1}", &["1"]),
            (r"\boxed{1} and \boxed{2", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(last_boxes(text), expected, "{text}");
        }
    }

    #[test]
    fn boxes_are_found() {
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
            (r"\boxed{1} \boxed{2", None),
            (r"\boxed{1} \boxed{", None),
            (r"\boxed{\boxed{1}", Some("1")),
            (r"\boxed{ \boxed{1}", Some("1")),
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
