//! Mathematics on any two texts: a verdict or an error, within its bounds.
//!
//! The input is a reference, a zero byte and a response; without the zero byte it is both.

#![no_main]

use libfuzzer_sys::fuzz_target;
use posttrain_answer::math::Math;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (reference, response) = text.split_once('\0').unwrap_or((text, text));

    let _ = Math::default().compare(reference, response);
    // Either side may be hostile.
    let _ = Math::default().compare(response, reference);
});
