//! The words that a response and a reference have in common: SQuAD's F1.

use std::collections::HashMap;

/// How far the words of two texts agree.
///
/// ```
/// use posttrain_answer::text::word_overlap;
///
/// // Two of four words are right, and both of the reference's are there.
/// let overlap = word_overlap("the Eiffel Tower", "Tower Eiffel in Paris");
/// assert_eq!((overlap.precision, overlap.recall), (0.5, 1.0));
/// assert_eq!(overlap.f1(), 2.0 / 3.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WordOverlap {
    /// `p`: the share of the response's words that the reference has, from 0 to 1.
    pub precision: f64,
    /// `r`: the share of the reference's words that the response has, from 0 to 1.
    pub recall: f64,
}

impl WordOverlap {
    /// `F1 = 2pr / (p + r)`, and 0 where no word is in common.
    ///
    /// ```
    /// use posttrain_answer::text::WordOverlap;
    ///
    /// assert_eq!(WordOverlap { precision: 0.0, recall: 0.0 }.f1(), 0.0);
    /// ```
    #[must_use]
    pub fn f1(self) -> f64 {
        let sum = self.precision + self.recall;
        if sum == 0.0 { 0.0 } else { 2.0 * self.precision * self.recall / sum }
    }
}

/// The words that both texts have, each as often as it stands in both. Linear.
///
/// Words are compared as in SQuAD's evaluation script (version 1.1): in lower case, without ASCII
/// punctuation and without `a`, `an`, `the`. Where a text has no words left, all agree if the other
/// one has none either, else none. The words' order does not count, nor does a `not`.
///
/// ```
/// use posttrain_answer::text::word_overlap;
///
/// assert_eq!(word_overlap("the Eiffel Tower", "Eiffel tower!").f1(), 1.0);
/// assert_eq!(word_overlap("the Eiffel Tower", "Big Ben").f1(), 0.0);
/// ```
#[must_use]
pub fn word_overlap(reference: &str, response: &str) -> WordOverlap {
    let reference = words(reference);
    let response = words(response);
    if reference.is_empty() || response.is_empty() {
        let both = if reference.is_empty() && response.is_empty() { 1.0 } else { 0.0 };
        return WordOverlap { precision: both, recall: both };
    }

    let common = common(&reference, &response) as f64;
    WordOverlap {
        precision: common / response.len() as f64,
        recall: common / reference.len() as f64,
    }
}

/// The words that count.
fn words(text: &str) -> Vec<String> {
    let plain: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let words = plain.split_whitespace().filter(|word| !matches!(*word, "a" | "an" | "the"));

    words.map(str::to_owned).collect()
}

/// How many words the two have in common, each as often as it stands in both.
fn common(left: &[String], right: &[String]) -> usize {
    let mut left_over: HashMap<&str, usize> = HashMap::new();
    for word in left {
        *left_over.entry(word).or_default() += 1;
    }

    let mut common = 0;
    for word in right {
        if let Some(count) = left_over.get_mut(word.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            common += 1;
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::word_overlap;

    #[test]
    fn shares_are_those_of_squad() {
        let cases = [
            ("Paris", "paris", 1.0),
            ("Paris", "Paris Paris", 2.0 / 3.0),
            ("Paris Paris", "Paris", 2.0 / 3.0),
            ("New York City", "York New City", 1.0),
            ("in 1998", "It was in 1998.", 2.0 * 0.5 / 1.5),
            ("U.S.", "us", 1.0),
            ("the", "a", 1.0),
            ("the", "b", 0.0),
            ("Paris", "the", 0.0),
            ("Paris", "", 0.0),
            ("Paris", "London", 0.0),
            ("Ελλάδα", "ΕΛΛΆΔΑ", 1.0),
        ];
        for (reference, response, expected) in cases {
            let value = word_overlap(reference, response).f1();
            assert!((value - expected).abs() < 1e-12, "{reference} | {response}: {value}");
        }
    }
}
