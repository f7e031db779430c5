//! `The answer is …`

/// What may follow `answer` before the answer itself. Longer ones first.
const VERBS: [&str; 10] =
    ["would be", "should be", "must be", "will be", "comes to", "equals", "is", "was", ":", "="];
/// Words whose full stop ends no sentence.
const ABBREVIATIONS: [&str; 12] =
    ["st", "mr", "mrs", "ms", "dr", "mt", "ft", "no", "vs", "approx", "e.g", "i.e"];
/// White space and markup that are skipped after a verb, at most.
const MAX_GAP: usize = 16;

/// What follows the last `answer is`, `answer:` and their like, up to the end of the sentence or
/// line; the next line where that is blank.
pub(crate) fn last_phrase(text: &str) -> Option<&str> {
    let lower = text.to_ascii_lowercase();
    let mut starts = lower.rmatch_indices("answer").map(|(at, word)| at + word.len());
    let start = starts.find_map(|at| verb_end(&lower, at))?;
    Some(sentence(without_closing_markup(&text[start..])))
}

/// The end of the verb after `answer`, which ends at `at`.
fn verb_end(lower: &str, at: usize) -> Option<usize> {
    let start = skip_gap(lower, at);
    let verb = VERBS.iter().find(|verb| lower[start..].starts_with(**verb))?;
    let end = start + verb.len();
    let whole =
        !verb.ends_with(char::is_alphabetic) || !lower[end..].starts_with(char::is_alphanumeric);
    // `the answer is: 12`
    let colon = skip_gap(lower, end);
    whole.then(|| if lower[colon..].starts_with([':', '=']) { colon + 1 } else { end })
}

fn skip_gap(text: &str, at: usize) -> usize {
    at + text[at..].bytes().take(MAX_GAP).take_while(|byte| b" \t*_".contains(byte)).count()
}

/// Without the asterisks that close `**Answer:**`, and without white space.
fn without_closing_markup(text: &str) -> &str {
    let after = text.trim_start_matches(['*', '_']);
    if after.starts_with(char::is_whitespace) { after.trim_start() } else { text.trim_start() }
}

/// The first sentence or line of `text`, without what ends it.
fn sentence(text: &str) -> &str {
    let line = text.lines().next().unwrap_or("");
    let stops = line.char_indices().filter(|&(_, c)| ".!?。".contains(c));
    let mut ends = stops.filter(|&(at, c)| {
        let after = &line[at + c.len_utf8()..];
        let ends = after
            .trim_start_matches(['*', '"', ')'])
            .chars()
            .next()
            .is_none_or(char::is_whitespace);
        (c == '。' || ends) && !(c == '.' && is_abbreviation(&line[..at]))
    });
    ends.next().map_or(line, |(at, _)| &line[..at])
}

fn is_abbreviation(before: &str) -> bool {
    let length = before
        .bytes()
        .rev()
        .take(8)
        .take_while(|byte| byte.is_ascii_alphabetic() || *byte == b'.')
        .count();
    let word = before[before.len() - length..].to_ascii_lowercase();
    let initials =
        word.rsplit('.').next().is_some_and(|letter| letter.len() == 1) && !word.is_empty();
    initials && word.len() > 1 || ABBREVIATIONS.contains(&word.as_str())
}

#[cfg(test)]
mod tests {
    use super::last_phrase;

    #[test]
    fn phrases() {
        let cases = [
            ("The answer is 12", Some("12")),
            ("The answer is 12.", Some("12")),
            ("The answer is 12. 3 + 9 = 12", Some("12")),
            ("The answer is 3.5. Good.", Some("3.5")),
            ("THE ANSWER IS: 12", Some("12")),
            ("**Answer:** 12", Some("12")),
            ("**Answer**: 12", Some("12")),
            ("Answer: 12\nDone", Some("12")),
            ("Answer:\n12\nDone", Some("12")),
            ("answer=12", Some("12")),
            ("The final answer would be **12**. Yes.", Some("**12**")),
            ("The answer is 12. No, the answer is 13!", Some("13")),
            ("The answer is St. John's. Nice.", Some("St. John's")),
            ("The answer is Washington, D.C. and so on", Some("Washington, D.C. and so on")),
            ("The answer is N. It is a gas.", Some("N")),
            ("The answer is not 12", Some("not 12")),
            ("答案 answer: 是。好", Some("是")),
            ("The answer isotope", None),
            ("I answered 12", None),
            ("twelve", None),
            ("the answer", None),
            ("the answer is", Some("")),
        ];
        for (text, expected) in cases {
            assert_eq!(last_phrase(text), expected, "{text}");
        }
    }
}
