//! Which JSON a response gives.

// Functions outside #[test] unwrap, too.
#![allow(clippy::unwrap_used)]

use posttrain_answer::AnswerError;
use posttrain_answer::json::Json;

fn is_right(rule: &Json, reference: &str, response: &str) -> bool {
    rule.compare(reference, response).unwrap().verdict.is_same()
}

#[test]
fn values_are_compared() {
    let cases = [
        (r#"{"a": 1, "b": 2}"#, r#"{"b": 2, "a": 1.0}"#, true),
        (r#"{"a": 1}"#, r#"{"a": 1, "b": 2}"#, false),
        (r#"{"a": 1, "b": 2}"#, r#"{"a": 1}"#, false),
        ("[1, 2]", "[2, 1]", false),
        ("[1, 2]", "[1, 2, 3]", false),
        (r#""a""#, r#""A""#, false),
        ("1", "true", false),
        ("null", "null", true),
        ("9007199254740993", "9007199254740992", false),
        ("18446744073709551615", "18446744073709551614", false),
        (r#"{"n": 18446744073709551616}"#, r#"{"n": 18446744073709551617}"#, false),
        (r#"{"n": 18446744073709551616}"#, r#"{"n": 18446744073709551616}"#, true),
        ("0.1", "0.10000000000000000001", false),
        ("0.1", "0.100", true),
        ("[1]", "<think>[1]</think>[2]", false),
        ("[1]", "<think>[1]", false),
        (r#"{"a": 2}"#, r#"{"a": 1, "a": 2}"#, false),
        (r#"{"a": 1}"#, r#"{"a": 1, "a": 1}"#, false),
        (r#"{"answer": "```[1, 2]```"}"#, r#"{"answer": "```[1, 2]```"}"#, true),
        ("[1, 2]", r#"{"answer": "```[1, 2]```"}"#, false),
        ("[1, 2]", r#"It is {"answer": "```[1, 2]```"}"#, false),
    ];
    for (reference, response, expected) in cases {
        assert_eq!(
            is_right(&Json::default(), reference, response),
            expected,
            "{reference} | {response}"
        );
    }
}

#[test]
fn a_tolerance_is_relative_to_the_reference() {
    let close = Json { relative_tolerance: 0.01, ..Json::default() };
    assert!(is_right(&close, r#"{"a": 100}"#, r#"{"a": 101}"#));
    assert!(!is_right(&close, r#"{"a": 100}"#, r#"{"a": 102}"#));
}

#[test]
fn a_reference_must_be_json_in_which_no_name_stands_twice() {
    let error = |reference: &str| Json::default().compare(reference, "[1]").unwrap_err();
    for reference in ["{a: 1}", r#"{"a": 1, "a": 2}"#, "nothing"] {
        assert!(matches!(error(reference), AnswerError::BadReference { .. }), "{reference}");
    }
    assert_eq!(error(" "), AnswerError::EmptyReference);
}

#[test]
fn hostile_text_ends() {
    let rule = Json { max_bytes: 1 << 20, ..Json::default() };
    for fragment in
        ["[", "{", "[1,", "{\"a\":", "[\"", "```", "```[", "\"", "\\", "[[],", "[\"[", "{\"a\":1}"]
    {
        let response = fragment.repeat(1_000_000 / fragment.len());
        assert!(!is_right(&rule, "[77]", &response), "{fragment}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(rule.compare(&deep, "[1]"), Err(AnswerError::BadReference { .. })));
}
