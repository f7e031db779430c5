//! Letters that stand as a choice.

/// The most options: A to Z.
pub(super) const MAX_OPTIONS: usize = 26;
/// Words before a letter that make it a choice, `A` included.
const LEADS: [&str; 10] = ["is", "option", "choice", "answer", "be", "choose", "pick", "select", "letter", "options"];

/// A letter that stands as a choice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mention {
    pub(super) index: usize,
    /// Where the letter is.
    pub(super) at: usize,
    /// Where its mark ends: behind `(B)`, `B.`.
    pub(super) end: usize,
}

/// The capital letters of a text that stand as a choice, in its order.
pub(super) fn mentions(text: &str) -> Vec<Mention> {
    let alone = text.char_indices().filter(|&(at, c)| {
        let before = text[..at].chars().next_back();
        let after = text[at + c.len_utf8()..].chars().next();
        let apart = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && !"'’-^_=+".contains(c));
        c.is_ascii_uppercase() && apart(before) && apart(after)
    });
    alone.filter_map(|(at, c)| mention(text, at, index(c)?)).collect()
}

/// The mention at a letter that stands alone; an `A` or `I` in a sentence is a word.
fn mention(text: &str, at: usize, index: usize) -> Option<Mention> {
    let (before, after) = (&text[..at], &text[at + 1..]);
    let mark = after.strip_prefix([')', '.', ':', ']', '*']).map_or(0, |_| 1);
    let led = before.trim_end_matches(|c: char| !c.is_alphanumeric()).rsplit(|c: char| !c.is_alphanumeric()).next();
    let led = led.is_some_and(|word| LEADS.iter().any(|lead| word.eq_ignore_ascii_case(lead)));
    let ends = after
        .trim_start_matches(['.', ')', '*', ':', ' '])
        .chars()
        .next()
        .is_none_or(|c| c == '\n' || c == ',' || c == ';');
    let bracketed = before.ends_with(['(', '[', '*']) && mark == 1;
    // `A cat`, `I think`: letters that are words need more than standing alone.
    let word = index == 0 || index == 8;
    let goes_on = after.starts_with(' ') && after[1..].starts_with(|c: char| c.is_lowercase());
    let joined = after.starts_with(" or ") || after.starts_with(" and ");
    let sure = bracketed || joined || mark == 1 || ends || (led && !(word && goes_on));
    let plain = !word && !after.starts_with(" .");
    (sure || plain).then_some(Mention { index, at, end: at + 1 + mark })
}

/// The letter that a line begins with as an option's mark, `A)`, `(A)`, `A.` or `A:`, and what follows.
pub(super) fn marked(line: &str) -> Option<(usize, &str)> {
    let open = line.strip_prefix('(');
    let rest = open.unwrap_or(line);
    let index = rest.chars().next().and_then(index)?;
    let rest = &rest[1..];
    let rest = match open {
        Some(_) => rest.strip_prefix(')')?,
        None => rest.strip_prefix([')', '.', ':'])?,
    };
    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then_some((index, rest))
}

pub(super) fn index(letter: char) -> Option<usize> {
    letter.is_ascii_uppercase().then(|| letter as usize - 'A' as usize)
}

pub(super) fn letter(index: usize) -> char {
    char::from(b'A' + u8::try_from(index.min(MAX_OPTIONS - 1)).unwrap_or(0))
}
