//! Whether a text ends on an answer in words: `The capital of France is Paris.`

use crate::text::clause::is_denied;
use crate::text::{Normalizer, Word, words};

/// Words after which a phrase answers.
const LEADS: [&str; 20] = [
    "is", "are", "was", "were", "be", "equals", "equal", "called", "named", "as", "in", "by",
    "use", "uses", "speak", "it's", "that's", "answer", "being", "symbol",
];

/// Whether the last words of `text` are exactly those of `reference` and stand there as its answer.
///
/// They do where, an article aside, nothing is before them, or the end of a line or sentence, or a
/// colon, an equals sign or an arrow, or a word that leads to an answer (`is`, `called`, `in`), and
/// their clause is not denied. So `Virginia` is not the answer of `It is West Virginia`, nor
/// `Paris` that of `London or Paris` or `It is not Paris`.
pub(crate) fn ends_on(text: &str, reference: &str, normalizer: &Normalizer) -> bool {
    let (text, reference) =
        (normalizer.prepare(text, reference), normalizer.prepare(reference, reference));
    let (all, wanted) = (words(&text), words(&reference));
    let wanted = normalizer.without_article(&wanted);
    let Some(at) = all.len().checked_sub(wanted.len()).filter(|_| !wanted.is_empty()) else {
        return false;
    };
    let (before, last) = all.split_at(at);
    let same = last.iter().map(|word| word.core).eq(wanted.iter().map(|word| word.core));
    same && is_led(&text, before, last[0].start, normalizer)
        && !is_denied(&text[..last[0].start], "")
}

/// Whether what stands before `start` makes it the beginning of an answer.
fn is_led(text: &str, before: &[Word], start: usize, normalizer: &Normalizer) -> bool {
    let Some((previous, earlier)) = before.split_last() else { return true };
    let gap = &text[previous.end()..start];
    if gap.contains(['\n', '.', '!', '?', ':', '=', '→', '>', '。']) {
        return true;
    }
    if normalizer.is_article(previous) && gap.trim().is_empty() {
        return is_led(text, earlier, previous.start, normalizer);
    }
    !gap.contains([',', ';']) && LEADS.iter().any(|lead| previous.core.eq_ignore_ascii_case(lead))
}

#[cfg(test)]
mod tests {
    use super::ends_on;
    use crate::text::Normalizer;

    #[test]
    fn the_last_phrase_answers() {
        let cases = [
            ("The capital of France is Paris.", "Paris", true),
            ("The capital of France is **Paris**.", "Paris", true),
            ("Paris", "Paris", true),
            ("paris", "Paris", true),
            ("**Answer:** Paris", "Paris", true),
            ("Answer = Paris", "Paris", true),
            ("France → Paris", "Paris", true),
            ("Let me think. Paris.", "Paris", true),
            ("The country is France.\n\nParis", "Paris", true),
            ("- London\n- Paris", "Paris", true),
            ("It is called the Euro.", "Euro", true),
            ("Kenya is in Africa.", "Africa", true),
            ("It's Paris!", "Paris", true),
            ("It’s Paris!", "Paris", true),
            ("It is not London, it is Paris.", "Paris", true),
            ("The capital is St. John's.", "St. John's", true),
            ("The capital is Washington, D.C.", "Washington, D.C.", true),
            ("They are Trinidad and Tobago.", "Trinidad and Tobago", true),
            ("The symbol for nitrogen is N.", "N", true),
            ("The capital is \"Paris\".", "Paris", true),
            ("Die Hauptstadt ist: Paris", "Paris", true),
            ("Paris or London", "Paris", false),
            ("London or Paris", "Paris", false),
            ("It is London or Paris.", "Paris", false),
            ("London, Paris", "Paris", false),
            ("It is London, Paris.", "Paris", false),
            ("It is not Paris.", "Paris", false),
            ("It isn't Paris.", "Paris", false),
            ("Kenya is not in Africa.", "Africa", false),
            ("It is West Virginia.", "Virginia", false),
            ("It is Papua New Guinea.", "Guinea", false),
            ("Paris is in France.", "Paris", false),
            ("Paris is London", "Paris", false),
            ("The symbol for nitrogen is n.", "N", false),
            ("The symbol for cobalt is CO.", "Co", false),
            ("It is Parisian.", "Paris", false),
            ("", "Paris", false),
            ("is", "Paris", false),
            ("Paris", "Paris Paris", false),
        ];
        for (text, reference, expected) in cases {
            assert_eq!(
                ends_on(text, reference, &Normalizer::default()),
                expected,
                "{text} | {reference}"
            );
        }
    }
}
