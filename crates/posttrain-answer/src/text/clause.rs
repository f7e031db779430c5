//! Whether a statement is denied: `It is not 12.`

/// Words that deny the clause that they stand in, beside all that end in `n't`.
const NEGATIONS: [&str; 8] =
    ["not", "never", "neither", "nor", "cannot", "without", "isnt", "except"];

/// Words that deny what they follow: `5 is wrong`. Before an answer they describe it:
/// `the wrong digit is 5`.
const REFUSALS: [&str; 4] = ["wrong", "false", "incorrect", "untrue"];

/// What stands right before an answer that is denied, in scripts without blanks.
const DENYING_ENDS: [&str; 14] = [
    "不是",
    "不为",
    "不选",
    "不选择",
    "并非",
    "绝非",
    "而非",
    "不等于",
    "不应选",
    "不能选",
    "不会是",
    "不可能是",
    "排除",
    "不應選",
];

/// What an option may be called, beside its letter.
const OPTION_NOUNS: [&str; 4] = ["选项", "選項", "项", "項"];

/// What stands behind an answer that is denied, in its clause, in scripts that join words.
const DENYING_BEGINNINGS: [&str; 14] = [
    "不对",
    "不對",
    "不正确",
    "不正確",
    "不是",
    "不符",
    "错",
    "錯",
    "是错",
    "是錯",
    "ではな",
    "じゃな",
    "でない",
    "가 아니",
];

/// Whether the clause around an answer denies it; `before` and `after` are the texts on its two
/// sides.
///
/// A clause ends at a comma, semicolon, line, sentence or the word `but`, so that `not 12, but 13`
/// affirms 13.
pub(crate) fn is_denied(before: &str, after: &str) -> bool {
    let start = breaks(before).last().unwrap_or(0);
    let end = breaks(after).next().unwrap_or(after.len());
    if is_excluded(&before[start..]) || is_denied_without_blanks(&before[start..], &after[..end]) {
        return true;
    }

    let before = before[start..]
        .split_whitespace()
        .rev()
        .take_while(|word| !word.eq_ignore_ascii_case("but"));
    let after =
        after[..end].split_whitespace().take_while(|word| !word.eq_ignore_ascii_case("but"));
    before.chain(after.clone()).any(is_negation)
        || after.map(bare).any(|word| REFUSALS.contains(&word.as_str()))
}

/// Whether the words right before an answer take it out: `rule out option 5`, `all but 5`,
/// `other than 5`. Further off they speak of something else: `I ruled out 4 so it is 5`.
fn is_excluded(before: &str) -> bool {
    let words = before.split_whitespace().rev().map(bare).filter(|word| !word.is_empty());
    let named = |word: &String| {
        matches!(word.as_str(), "the" | "option" | "choice" | "answer" | "letter" | "number")
    };
    let mut words = words.skip_while(named);
    let last = words.next().unwrap_or_default();
    let mut after =
        |firsts: &[&str]| words.next().is_some_and(|first| firsts.contains(&first.as_str()));
    match last.as_str() {
        "out" => {
            after(&["rule", "rules", "ruled", "ruling", "cross", "crosses", "crossed", "crossing"])
        }
        "but" => after(&["all", "any", "anything", "everything"]),
        "than" => after(&["other"]),
        last => ["eliminate", "eliminates", "eliminated", "exclude", "excludes", "excluded"]
            .contains(&last),
    }
}

/// Whether a text in a script without blanks denies the answer in its midst: `不是B`, `不选选项B`, `B不对`.
fn is_denied_without_blanks(before: &str, after: &str) -> bool {
    let before = before.trim_end_matches(is_wrapping);
    let before = OPTION_NOUNS.iter().find_map(|noun| before.strip_suffix(noun)).unwrap_or(before);

    let after = after.trim_start_matches(is_wrapping);
    let after = OPTION_NOUNS.iter().find_map(|noun| after.strip_prefix(noun)).unwrap_or(after);

    DENYING_ENDS.iter().any(|end| before.ends_with(end))
        || DENYING_BEGINNINGS.iter().any(|beginning| after.starts_with(beginning))
}

fn is_wrapping(c: char) -> bool {
    c.is_whitespace() || "()[]（）【】「」“”\"*".contains(c)
}

/// The places right after what ends a clause.
fn breaks(text: &str) -> impl Iterator<Item = usize> {
    text.char_indices().filter_map(|(at, c)| {
        let end = at + c.len_utf8();
        let ends = match c {
            ',' | ';' | '!' | '?' | '\n' | '。' | '，' | '；' | '！' | '？' | '—' => true,
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
            ("We can rule out the option (", ")", true),
            ("I ruled out 4 so it is ", "", false),
            ("With 4 and 6 eliminated it must be ", ".", false),
            ("Having ruled out the others, it is ", "", false),
            ("the product rule gives ", "", false),
            ("答案不是", "。", true),
            ("不是C，而是", "。", false),
            ("不是C而是", "。", false),
            ("不选选项", "", true),
            ("", "选项不对，", true),
            ("不难看出答案是", "。", false),
            ("答えは", "ではない", true),
        ];
        for (before, after, denied) in cases {
            assert_eq!(is_denied(before, after), denied, "{before}_{after}");
        }
    }
}
