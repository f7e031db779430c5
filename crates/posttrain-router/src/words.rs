//! A text's words, in any script.

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
use unicode_segmentation::UnicodeSegmentation;

/// The words of a text as Unicode segments them (UAX #29: where there are no blanks, most characters
/// are words), and each symbol that tells subjects apart. Signs at the end of a word are part of it:
/// `C`, `C++` and `C#` are three words.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut taken = 0;
    text.split_word_bound_indices().filter_map(move |(start, segment)| {
        if start < taken {
            return None;
        }
        let first = segment.chars().next()?;
        if !first.is_alphanumeric() {
            return is_symbol(first).then_some(segment);
        }

        taken = start + segment.len() + signs(segment, &text[start + segment.len()..]);
        Some(&text[start..taken])
    })
}

/// The bytes of the signs that end a word, of what follows it. Between numbers they calculate.
fn signs(word: &str, rest: &str) -> usize {
    let end = rest.find(|c| !"+#".contains(c)).unwrap_or(rest.len());
    let goes_on = rest[end..].chars().next().is_some_and(char::is_alphanumeric);
    if word.ends_with(char::is_alphabetic) && !goes_on { end } else { 0 }
}

fn is_symbol(c: char) -> bool {
    matches!(c.general_category(), GeneralCategory::MathSymbol | GeneralCategory::CurrencySymbol)
        || "#%&*/@^°".contains(c)
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn words_and_symbols_are_apart_in_any_script() {
        let of = |text| words(text).collect::<Vec<_>>();
        assert_eq!(of("what is 7+5?"), ["what", "is", "7", "+", "5"]);
        assert_eq!(of("x = 3 - y"), ["x", "=", "3", "y"]);
        assert_eq!(of("++ 20% ünï"), ["+", "+", "20", "%", "ünï"]);
        assert_eq!(of("is 2x+3 > √y?"), ["is", "2x", "+", "3", ">", "√", "y"]);
        assert_eq!(of(" ?! "), [""; 0]);
        assert_eq!(of("C, C++ or C#?"), ["C", "C++", "or", "C#"]);
        assert_eq!(of("it isn't 3.5"), ["it", "isn't", "3.5"]);
        assert_eq!(of("合同应该"), ["合", "同", "应", "该"]);
        assert_eq!(of("第15次"), ["第", "15", "次"]);
    }
}
