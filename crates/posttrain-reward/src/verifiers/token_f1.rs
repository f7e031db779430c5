//! The share of words that response and reference have in common: SQuAD's F1.

use posttrain_answer::response::{ending, without_thinking};
use posttrain_answer::text::word_overlap;

use crate::{RewardError, Sample, Score, Verifier};

/// The longest response that is looked at, in bytes; of a longer one, the end.
const MAX_BYTES: usize = 64 * 1024;

/// `F1 = 2pr / (p + r)` over words: precision `p` is the share of the response's words that the
/// reference has, recall `r` the share of the reference's that the response has ([`word_overlap`]).
///
/// Thinking is not looked at. A long response loses precision, so that repeating the question or
/// every candidate does not pay.
///
/// ```
/// use posttrain_reward::verifiers::TokenF1;
/// use posttrain_reward::{Sample, Verifier};
///
/// let value = |response: &str| TokenF1.verify(&Sample::new("?", "the Eiffel Tower", response)).map(|score| score.value());
/// assert_eq!(value("Eiffel tower!")?, 1.0);
/// // Two of four words are right, and both of the reference's are there: p = 1/2, r = 1.
/// assert_eq!(value("Tower Eiffel in Paris")?, 2.0 / 3.0);
/// assert_eq!(value("Big Ben")?, 0.0);
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenF1;

impl Verifier for TokenF1 {
    fn name(&self) -> &str {
        "f1"
    }

    fn verify(&self, sample: &Sample) -> Result<Score, RewardError> {
        let reference = sample.checked_reference()?;
        let Some(spoken) = without_thinking(&sample.response) else {
            return Score::new(0.0);
        };

        let overlap = word_overlap(reference, ending(spoken, MAX_BYTES));
        Score::new(overlap.f1())?
            .with_part("precision", overlap.precision)?
            .with_part("recall", overlap.recall)
    }
}

#[cfg(test)]
mod tests {
    use super::TokenF1;
    use crate::{Sample, Verifier};

    #[test]
    fn thinking_earns_nothing() {
        let value =
            |response: &str| TokenF1.verify(&Sample::new("?", "Paris", response)).unwrap().value();
        assert_eq!(value("<think>Paris"), 0.0);
        assert_eq!(value("<think>London</think>Paris"), 1.0);
        assert_eq!(
            TokenF1.verify(&Sample::new("?", " ", "x")).unwrap_err().cause(),
            "empty_reference"
        );
    }
}
