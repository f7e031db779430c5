//! What counts as the same text: Unicode form, case, white space, punctuation, articles.

pub(crate) mod clause;
pub(crate) mod ending;
mod overlap;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

pub use overlap::{WordOverlap, word_overlap};

/// Whether upper and lower case differ.
///
/// ```
/// use posttrain_answer::text::{Case, Normalizer};
///
/// let auto = Normalizer::default();
/// assert!(auto.matches("paris", "Paris"));
/// assert!(!auto.matches("CO", "Co"), "carbon monoxide is not cobalt");
/// assert!(Normalizer { case: Case::Insensitive, ..auto }.matches("CO", "Co"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Case {
    /// They differ where the reference is one word of one or two letters (`N`, `Co`, `kg`, `CA`),
    /// as symbols and codes are told apart by case, and not elsewhere. `no` is a word, not a
    /// symbol.
    #[default]
    Auto,
    /// They always differ.
    Sensitive,
    /// They never differ.
    Insensitive,
}

/// Whether a leading `a`, `an` or `the` counts.
///
/// ```
/// use posttrain_answer::text::{Articles, Normalizer};
///
/// assert!(Normalizer::default().matches("the Euro", "Euro"));
/// assert!(!Normalizer { articles: Articles::Kept, ..Normalizer::default() }.matches("the Euro", "Euro"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Articles {
    /// `the Euro` is `Euro`.
    #[default]
    Ignored,
    /// They are words like others.
    Kept,
}

/// Whether `é` differs from `e`.
///
/// ```
/// use posttrain_answer::text::{Diacritics, Normalizer};
///
/// assert!(!Normalizer::default().matches("Bogota", "Bogotá"));
/// assert!(Normalizer { diacritics: Diacritics::Folded, ..Normalizer::default() }.matches("Bogota", "Bogotá"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Diacritics {
    /// They differ.
    #[default]
    Kept,
    /// Accents and other marks of the Latin, Greek and Cyrillic scripts are dropped: `Bogotá` is
    /// `Bogota`.
    Folded,
}

/// When two texts are the same: NFKC, then equal words, where a word is what stands between white
/// space, without punctuation at its edges. Signs that carry meaning (`+`, `-`, `%`, `°`, `#`, `/`)
/// are kept: `C++` is not `C`.
///
/// ```
/// use posttrain_answer::text::Normalizer;
///
/// let normalizer = Normalizer::default();
/// assert!(normalizer.matches(" **The  Euro**. ", "euro"));
/// assert!(normalizer.matches("Ｗashington D.C.", "Washington, D.C."));
/// assert!(!normalizer.matches("Paris or London", "Paris"));
/// assert!(!normalizer.matches("Parisian", "Paris"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Normalizer {
    /// Whether case differs. Default: by the reference's length.
    pub case: Case,
    /// Whether a leading article counts. Default: ignored, as in SQuAD's evaluation script.
    pub articles: Articles,
    /// Whether marks above and below letters count. Default: kept.
    pub diacritics: Diacritics,
}

impl Normalizer {
    /// Whether `text` is the same as `reference`. `reference` decides about case under
    /// [`Case::Auto`].
    ///
    /// ```
    /// use posttrain_answer::text::Normalizer;
    ///
    /// assert!(Normalizer::default().matches("paris!", "Paris"));
    /// assert!(!Normalizer::default().matches("n", "N"));
    /// ```
    #[must_use]
    pub fn matches(&self, text: &str, reference: &str) -> bool {
        let prepared = self.prepare(text, reference);
        let words_of_text = words(&prepared);
        let found = self.without_article(&words_of_text);

        let prepared = self.prepare(reference, reference);
        let words_of_reference = words(&prepared);
        let wanted = self.without_article(&words_of_reference);

        !wanted.is_empty() && same_words(found, wanted)
    }

    /// Whether `text` has the words of `phrase`, as whole words in a row. That they are denied is
    /// not seen.
    ///
    /// ```
    /// use posttrain_answer::text::Normalizer;
    ///
    /// let normalizer = Normalizer::default();
    /// assert!(normalizer.contains("Neon and helium are.", "Helium"));
    /// assert!(!normalizer.contains("a party", "art"));
    /// ```
    #[must_use]
    pub fn contains(&self, text: &str, phrase: &str) -> bool {
        let prepared = self.prepare(text, phrase);
        let words_of_text = words(&prepared);

        let prepared = self.prepare(phrase, phrase);
        let words_of_phrase = words(&prepared);
        let wanted = self.without_article(&words_of_phrase);

        !wanted.is_empty()
            && words_of_text.windows(wanted.len()).any(|window| same_words(window, wanted))
    }

    /// `text` in the form in which it is compared with `reference`, its words not yet separated.
    pub(crate) fn prepare(&self, text: &str, reference: &str) -> String {
        let composed = match self.diacritics {
            Diacritics::Kept => text.nfkc().filter(|&c| !is_invisible(c)).collect::<String>(),
            Diacritics::Folded => {
                text.nfkd().filter(|&c| !is_invisible(c) && !is_mark(c)).nfkc().collect()
            }
        };
        let plain = composed.replace(['’', '‘', 'ʼ'], "'").replace(['−', '‐', '‑'], "-");
        if self.is_sensitive(reference) { plain } else { plain.to_lowercase() }
    }

    pub(crate) fn without_article<'w, 't>(&self, words: &'w [Word<'t>]) -> &'w [Word<'t>] {
        match words {
            [first, rest @ ..] if !rest.is_empty() && self.is_article(first) => rest,
            _ => words,
        }
    }

    pub(crate) fn is_article(&self, word: &Word) -> bool {
        let article =
            ["a", "an", "the"].iter().any(|article| word.core.eq_ignore_ascii_case(article));
        self.articles == Articles::Ignored && article
    }

    fn is_sensitive(&self, reference: &str) -> bool {
        let symbol = reference.trim_matches(|c: char| !c.is_alphanumeric());
        let short = symbol.chars().take(3).count() <= 2 && symbol.chars().all(char::is_alphabetic);
        match self.case {
            Case::Auto => short && !symbol.eq_ignore_ascii_case("no"),
            Case::Sensitive => true,
            Case::Insensitive => false,
        }
    }
}

/// Whether two texts have the same words in the same order.
fn same_words(left: &[Word], right: &[Word]) -> bool {
    left.iter().map(|word| word.core).eq(right.iter().map(|word| word.core))
}

/// Whether a letter or digit continues the word that it touches: not in scripts that write without
/// blanks, where a letter or number may stand between two words (`故选B。`).
pub(crate) fn joins_words(c: char) -> bool {
    c.is_alphanumeric() && (c as u32) < 0x0590
}

/// A word of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Word<'t> {
    /// Without punctuation at its edges; never empty.
    pub core: &'t str,
    /// Where `core` begins, in bytes.
    pub start: usize,
}

impl Word<'_> {
    /// Where `core` ends.
    pub fn end(&self) -> usize {
        self.start + self.core.len()
    }
}

/// The words of a text that have more to them than punctuation.
pub(crate) fn words(text: &str) -> Vec<Word<'_>> {
    let cores = text.split_whitespace().map(core).filter(|core| !core.is_empty());
    cores
        .map(|core| Word { core, start: core.as_ptr() as usize - text.as_ptr() as usize })
        .collect()
}

/// `raw` without the punctuation around it. A lone sign is nothing: a bullet, a dash.
fn core(raw: &str) -> &str {
    let core = raw.trim_matches(is_punctuation);
    if core.chars().all(|c| "-+/#%°".contains(c)) { "" } else { core }
}

fn is_punctuation(c: char) -> bool {
    let unicode = "“”„«»‹›…–—·•→。、「」『』【】《》〈〉¿¡।؟،؛";
    (c.is_ascii_punctuation() && !"-+/#%".contains(c)) || unicode.contains(c)
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}' | '\u{AD}')
}

fn is_mark(c: char) -> bool {
    ('\u{300}'..='\u{36F}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::{Articles, Case, Diacritics, Normalizer};

    #[test]
    fn sameness() {
        let normalizer = Normalizer::default();
        let cases = [
            ("Paris", "Paris", true),
            ("paris!", "Paris", true),
            ("\"Paris\"", "Paris", true),
            ("`Paris`", "Paris", true),
            ("São Tomé", "Sa\u{303}o Tome\u{301}", true),
            ("New  York\n", "new york", true),
            ("The Bahamas", "Bahamas", true),
            ("Bahamas", "The Bahamas", true),
            ("St. John’s", "St. John's", true),
            ("ﬁsh", "fish", true),
            ("CO₂", "CO2", true),
            ("ＦＩＳＨ", "fish", true),
            ("Ελλάδα", "ΕΛΛΆΔΑ", true),
            ("Москва", "москва", true),
            ("巴黎。", "巴黎", true),
            ("हिन्दी", "हिन्दी", true),
            ("Paris\u{200B}", "Paris", true),
            ("No.", "no", true),
            ("N", "N", true),
            ("n", "N", false),
            ("CO", "Co", false),
            ("KG", "kg", false),
            ("Bogota", "Bogotá", false),
            ("C", "C++", false),
            ("Na", "Na+", false),
            ("-5", "5", false),
            ("Paris France", "Paris", false),
            ("", "Paris", false),
            ("...", "Paris", false),
            ("", "...", false),
            ("A", "A", true),
        ];
        for (text, reference, same) in cases {
            assert_eq!(normalizer.matches(text, reference), same, "{text} = {reference}");
        }
    }

    #[test]
    fn options() {
        let kept = Normalizer { articles: Articles::Kept, ..Normalizer::default() };
        assert!(!kept.matches("the Euro", "Euro"));
        let folded = Normalizer { diacritics: Diacritics::Folded, ..Normalizer::default() };
        assert!(folded.matches("Bogota", "Bogotá") && folded.matches("Asunción", "Asuncion"));
        let sensitive = Normalizer { case: Case::Sensitive, ..Normalizer::default() };
        assert!(!sensitive.matches("paris", "Paris"));
    }
}
