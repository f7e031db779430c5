//! What of a sample a judge is shown, and when nobody need be asked.

use posttrain_answer::response::without_thinking;

use crate::judge::JudgeConfig;
use crate::judge::data::{JudgeData, quote, quote_bounded};
use crate::{Sample, Score, Truncated};

/// A response without its thinking; empty where the thinking never ends.
pub(crate) fn visible(response: &str) -> &str {
    without_thinking(response).unwrap_or_default().trim()
}

/// The score of a response that nobody need be asked about.
pub(crate) fn without_asking(config: &JudgeConfig, sample: &Sample) -> Option<Score> {
    if visible(&sample.response).is_empty() {
        return Some(
            Score::binary(false).with_note("no answer after the thinking: the judge was not asked"),
        );
    }
    let cut = sample.termination.is_truncated() && config.truncated == Truncated::Wrong;
    cut.then(|| Score::binary(false).with_note("cut off: the judge was not asked"))
}

/// What the judge is shown.
pub(crate) fn data(
    config: &JudgeConfig,
    sample: &Sample,
    reference: Option<&str>,
    responses: &[(&str, &str)],
) -> JudgeData {
    let mut fields = vec![("question", quote(&sample.question))];
    fields.extend(reference.map(|reference| ("reference", quote(reference))));
    let bounded = |text: &str| quote_bounded(text, config.max_response_characters);
    fields.extend(responses.iter().map(|(name, text)| (*name, bounded(text))));
    JudgeData::new(&fields)
}

/// Every text of a sample that a judge is shown, whose words are not to be taken for the judge's
/// own.
pub(crate) fn shown<'s>(sample: &'s Sample, reference: Option<&'s str>) -> Vec<&'s str> {
    let mut shown = vec![sample.response.as_str(), sample.question.as_str()];
    shown.extend(reference);
    shown
}
