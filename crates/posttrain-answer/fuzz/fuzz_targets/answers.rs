//! Every rule but mathematics on any two texts: a verdict or an error, within its bounds.
//!
//! The input is a reference, a zero byte and a response; without the zero byte it is both.

#![no_main]

use libfuzzer_sys::fuzz_target;
use posttrain_answer::choice::{Choice, Options};
use posttrain_answer::json::{Json, find};
use posttrain_answer::list::List;
use posttrain_answer::number::Numeric;
use posttrain_answer::short::ShortAnswer;
use posttrain_answer::text::word_overlap;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (reference, response) = text.split_once('\0').unwrap_or((text, text));

    let _ = ShortAnswer::default().compare(reference, response);
    let _ = Numeric::default().compare(reference, response);
    let _ = Choice::default().compare(reference, response, &Options::in_question(reference));

    // JSON is itself, and so is a list that is a set.
    if let Some(json) = find(response) {
        assert!(Json::default().same(json, json).expect("it was found as JSON"));
    }
    let _ = Json::default().compare(reference, response);

    if let Ok(overlap) = List::default().compare(reference, response) {
        assert!(overlap.common <= overlap.all);
    }
    let overlap = word_overlap(reference, response);
    assert!((0.0..=1.0).contains(&overlap.f1()));
});
