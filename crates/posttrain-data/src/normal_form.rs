//! The form in which two questions are compared.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// A question without what does not change its meaning: Unicode's compatibility forms (NFKC), case,
/// white space and punctuation.
///
/// Two questions with the same normal form are one question, and stand on the same side of every
/// split. What changes the meaning stays: symbols (`+`, `=`, `€`, `&`, `@`), a decimal point, `#` at the
/// end of a word, and `-`, `*`, `/`, `^` and `%` where they calculate. A question of nothing but punctuation keeps it, lest all
/// such questions be one.
///
/// ```
/// use posttrain_data::normalize_question;
///
/// assert_eq!(normalize_question("  What IS\t7+5 ?"), "what is 7 + 5");
/// assert_eq!(normalize_question("What is ７ + ５?"), normalize_question("what is 7 + 5"));
/// assert_ne!(normalize_question("What is 7 - 5?"), normalize_question("What is 7 + 5?"));
/// assert_eq!(normalize_question("“Well-known”, isn’t it?"), "well known isnt it");
/// assert_eq!(normalize_question("1,000 times 2.5"), "1000 times 2.5");
/// ```
#[must_use]
pub fn normalize_question(question: &str) -> String {
    // Upper case first, because "ß" and "ss", "ς" and "σ" differ in lower case only.
    let folded: Vec<char> =
        question.nfkc().collect::<String>().to_uppercase().to_lowercase().nfkc().collect();

    let mut form = Form::default();
    for at in 0..folded.len() {
        form.push(folded[at], role(&folded, at));
    }

    if form.text.is_empty() {
        folded.into_iter().filter(|c| !c.is_whitespace()).collect()
    } else {
        form.text
    }
}

/// What a character does to the normal form.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    /// Part of a word or a number.
    Letter,
    /// A word of its own.
    Symbol,
    /// Ends a word.
    Break,
    /// Leaves no trace, not even a gap.
    Nothing,
}

/// The normal form as it grows: words with one space between them.
#[derive(Default)]
struct Form {
    text: String,
    gap: bool,
}

impl Form {
    fn push(&mut self, c: char, role: Role) {
        match role {
            Role::Nothing => {}
            Role::Break => self.gap = true,
            Role::Letter => self.word(c),
            Role::Symbol => {
                self.gap = true;
                self.word(c);
                self.gap = true;
            }
        }
    }

    fn word(&mut self, c: char) {
        if self.gap && !self.text.is_empty() {
            self.text.push(' ');
        }
        self.gap = false;
        self.text.push(c);
    }
}

fn role(text: &[char], at: usize) -> Role {
    let c = text[at];
    match c.general_category_group() {
        GeneralCategoryGroup::Letter
        | GeneralCategoryGroup::Mark
        | GeneralCategoryGroup::Number => Role::Letter,
        GeneralCategoryGroup::Symbol if c == '^' => calculation(text, at),
        GeneralCategoryGroup::Symbol if c.general_category() == GeneralCategory::ModifierSymbol => {
            Role::Break
        }
        GeneralCategoryGroup::Symbol => Role::Symbol,
        GeneralCategoryGroup::Punctuation => punctuation(text, at),
        GeneralCategoryGroup::Separator => Role::Break,
        // Control characters are line ends and the like; the other kind is invisible (joiners, byte
        // order marks).
        GeneralCategoryGroup::Other if c.is_control() => Role::Break,
        GeneralCategoryGroup::Other => Role::Nothing,
    }
}

fn punctuation(text: &[char], at: usize) -> Role {
    let before = at.checked_sub(1).map(|i| text[i]);
    let after = text.get(at + 1).copied();
    let between = |test: fn(char) -> bool| before.is_some_and(test) && after.is_some_and(test);

    match text[at] {
        '.' if between(is_digit) => Role::Letter,
        '.' | '\'' | '’' | '‘' | 'ʼ' if between(char::is_alphabetic) => Role::Nothing,
        ',' if between(is_digit) && is_thousands(&text[at + 1..]) => Role::Nothing,
        '%' if before.is_some_and(is_digit) => Role::Symbol,
        '#' if before.is_some_and(char::is_alphabetic) => Role::Symbol,
        '&' | '@' => Role::Symbol,
        '-' | '*' | '/' => calculation(text, at),
        _ => Role::Break,
    }
}

/// `-`, `*`, `/` and `^` calculate where a number follows, and between a number and what is set off
/// by spaces.
fn calculation(text: &[char], at: usize) -> Role {
    let before = text[..at].iter().rev().find(|c| !c.is_whitespace());
    let after = text[at + 1..].iter().find(|c| !c.is_whitespace());
    let spaced = at > 0
        && text[at - 1].is_whitespace()
        && text.get(at + 1).is_some_and(|c| c.is_whitespace());
    let number = |c: Option<&char>| c.is_some_and(|&c| is_digit(c));
    if number(after) || (spaced && number(before) && after.is_some()) {
        Role::Symbol
    } else {
        Role::Break
    }
}

/// Exactly three digits: `1,000`, and not the list `1,2`.
fn is_thousands(rest: &[char]) -> bool {
    rest.iter().take_while(|&&c| is_digit(c)).count() == 3
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_does_not_matter_is_dropped() {
        for (left, right) in [
            ("What is the capital of France?", "WHAT IS THE CAPITAL OF FRANCE"),
            ("café", "cafe\u{301}"),
            ("ﬁnd x", "find X"),
            ("Straße", "STRASSE"),
            ("one\u{a0}two\r\nthree", "one two three"),
            ("zero\u{200b}width", "zerowidth"),
            ("the U.S. economy", "the US economy"),
            ("x = 2", "x=2"),
            ("**bold** words", "bold words"),
        ] {
            assert_eq!(normalize_question(left), normalize_question(right));
        }
    }

    #[test]
    fn what_matters_is_kept() {
        for (left, right) in [
            ("7 + 5", "7 - 5"),
            ("7 * 5", "7 / 5"),
            ("7 * 5", "75"),
            ("x - 3 = 10", "x + 3 = 10"),
            ("2.5 m", "25 m"),
            ("50% of 30", "50 of 30"),
            ("lists 1,2", "lists 12"),
            ("???", "!!!"),
            ("हिन्दी", "हन्द"),
            ("is 3 < 4", "is 3 > 4"),
            ("a list in C", "a list in C#"),
            ("a list in C", "a list in C++"),
            ("a list in C#", "a list in C++"),
            ("the R&D of it", "the RD of it"),
        ] {
            assert_ne!(normalize_question(left), normalize_question(right));
        }
    }

    proptest! {
        #[test]
        fn letters_and_digits_survive_in_order(words in prop::collection::vec("[a-z0-9]{1,6}", 1..8)) {
            let spaced = words.join("  ");
            let shouted = format!("«{}»!", words.join(" \t").to_uppercase());
            prop_assert_eq!(normalize_question(&spaced), words.join(" "));
            prop_assert_eq!(normalize_question(&shouted), words.join(" "));
        }

        #[test]
        fn never_empty_unless_there_is_nothing(text in "\\PC{1,24}") {
            prop_assert_eq!(normalize_question(&text).is_empty(), text.chars().all(char::is_whitespace));
        }
    }
}
