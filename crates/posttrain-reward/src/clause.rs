//! Whether a statement is denied: `It is not 12.`

/// Words that deny the clause that they stand in, beside all that end in `n't`.
const NEGATIONS: [&str; 8] = ["not", "never", "neither", "nor", "cannot", "without", "isnt", "except"];

/// Words that deny what they follow: `5 is wrong`. Before an answer they describe it: `the wrong digit is 5`.
const REFUSALS: [&str; 4] = ["wrong", "false", "incorrect", "untrue"];

/// Whether the clause around an answer denies it; `before` and `after` are the texts on its two sides.
///
/// A clause ends at a comma, semicolon, line, sentence or the word `but`, so that `not 12, but 13` affirms 13.
pub(crate) fn is_denied(before: &str, after: &str) -> bool {
    let start = breaks(before).last().unwrap_or(0);
    let end = breaks(after).next().unwrap_or(after.len());
    if is_excluded(&before[start..]) {
        return true;
    }
    let before = before[start..].split_whitespace().rev().take_while(|word| !word.eq_ignore_ascii_case("but"));
    let after = after[..end].split_whitespace().take_while(|word| !word.eq_ignore_ascii_case("but"));
    before.chain(after.clone()).any(is_negation) || after.map(bare).any(|word| REFUSALS.contains(&word.as_str()))
}

/// Whether a clause before an answer takes it out: `rule out 5`, `all but 5`, `other than 5`.
fn is_excluded(before: &str) -> bool {
    let words: Vec<String> = before.split_whitespace().rev().take(8).map(bare).collect();
    let pairs = words.windows(2).map(|pair| (pair[1].as_str(), pair[0].as_str()));
    let out = |(first, second): (&str, &str)| {
        second == "out" && matches!(first, "rule" | "ruled" | "rules" | "ruling" | "cross" | "crossed")
    };
    let but = |first: &str| matches!(first, "all" | "any" | "anything" | "everything");
    let last = pairs.clone().next();
    let taken = words.iter().any(|word| matches!(word.as_str(), "eliminate" | "eliminated" | "exclude" | "excluded"));
    let alone = matches!(last, Some((first, "but")) if but(first)) || last == Some(("other", "than"));
    taken || alone || pairs.into_iter().any(out)
}

/// The places right after what ends a clause.
fn breaks(text: &str) -> impl Iterator<Item = usize> {
    text.char_indices().filter_map(|(at, c)| {
        let end = at + c.len_utf8();
        let ends = match c {
            ',' | ';' | '!' | '?' | '\n' | '。' | '，' | '；' | '—' => true,
            '.' | ':' => text[end..].chars().next().is_none_or(char::is_whitespace),
            _ => false,
        };
        ends.then_some(end)
    })
}

/// A word in lower case without what is around it; empty where it is too long to deny anything.
fn bare(word: &str) -> String {
    let word = word.trim_matches(|c: char| !c.is_alphanumeric());
    if word.len() > 16 { String::new() } else { word.to_lowercase().replace('’', "'") }
}

fn is_negation(word: &str) -> bool {
    let word = bare(word);
    word.ends_with("n't") || NEGATIONS.contains(&word.as_str())
}

#[cfg(test)]
mod tests {
    use super::is_denied;

    #[test]
    fn denial_stays_in_its_clause() {
        let cases = [
            ("It is not ", ".", true),
            ("It isn’t ", ".", true),
            ("It's not London, it is ", ".", false),
            ("not 12 but ", "", false),
            ("", " is not the answer", true),
            ("", " is wrong.", true),
            ("The wrong digit is ", ".", false),
            ("", ", and 6 is wrong", false),
            ("", ", not 13", false),
            ("I do not know. It is ", ".", false),
            ("I would rule out ", "", true),
            ("all but ", "", true),
            ("nothing but ", "", false),
            ("any number other than ", "", true),
            ("I eliminate ", "", true),
            ("Having ruled out the others, it is ", "", false),
            ("the product rule gives ", "", false),
        ];
        for (before, after, denied) in cases {
            assert_eq!(is_denied(before, after), denied, "{before}_{after}");
        }
    }
}
