//! What verifiers add to the comparison of answers.

// Functions outside #[test] unwrap, too.
#![allow(clippy::unwrap_used)]

use posttrain_answer::math::Math;
use posttrain_chat::FinishReason;
use posttrain_reward::verifiers::{
    AnswerConfig, ExactMatch, MathConfig, NormalizedMatch, Unreadable,
};
use posttrain_reward::{Sample, Truncated, Verifier};

/// `1`, `0` or the cause of an error.
fn math(config: MathConfig, reference: &str, response: &str) -> String {
    match config.build().unwrap().verify(&Sample::new("?", reference, response)) {
        Ok(score) => score.value().to_string(),
        Err(error) => error.cause().to_owned(),
    }
}

#[test]
fn what_cannot_be_read_is_worth_what_is_configured() {
    let wrong = MathConfig::default();
    let undecided = MathConfig { unreadable: Unreadable::Undecided, ..MathConfig::default() };
    let tower = r"\boxed{9^{9^{9^{9^9}}}}";
    let deep = format!(r"\boxed{{{}13{}}}", "(".repeat(200), ")".repeat(200));
    for response in [r"\boxed{\frac}", "no idea", tower, &deep, ""] {
        assert_eq!(math(wrong.clone(), "9", response), "0", "{response}");
        assert_eq!(math(undecided.clone(), "9", response), "undecided", "{response}");
    }
    assert_eq!(math(wrong.clone(), "x^2", r"\boxed{x^{9^{9^{9^9}}}}"), "undecided");
    assert_eq!(math(wrong.clone(), r"\int_0^1 x", "9"), "bad_reference");
    assert_eq!(math(wrong, " ", "9"), "empty_reference");
}

#[test]
fn what_was_cut_off_is_worth_what_is_configured() {
    let cut = Sample {
        termination: FinishReason::Length,
        ..Sample::new("?", "12", r"It is 12, \boxed{12}")
    };
    let answer = |truncated| AnswerConfig { truncated, ..AnswerConfig::default() }.build().unwrap();
    assert_eq!(answer(Truncated::Judged).verify(&cut).unwrap().value(), 1.0);
    assert_eq!(answer(Truncated::Wrong).verify(&cut).unwrap().value(), 0.0);
    let math = |truncated| MathConfig { truncated, ..MathConfig::default() }.build().unwrap();
    assert_eq!(math(Truncated::Judged).verify(&cut).unwrap().value(), 1.0);
    assert_eq!(math(Truncated::Wrong).verify(&cut).unwrap().value(), 0.0);
    // A reference that agrees with nothing is an error all the same.
    let unanswerable = Sample { reference: " ".into(), ..cut };
    assert_eq!(
        answer(Truncated::Wrong).verify(&unanswerable).unwrap_err().cause(),
        "empty_reference"
    );
}

#[test]
fn an_error_names_the_sample() {
    let sample = Sample { id: "q7".into(), ..Sample::new("?", " ", "12") };
    let error = AnswerConfig::default().build().unwrap().verify(&sample).unwrap_err();
    assert_eq!((error.cause(), error.to_string().contains("q7")), ("empty_reference", true));
    for reference in ["First,\nthen.", "\u{c}rac12"] {
        let sample = Sample { id: "q7".into(), ..Sample::new("?", reference, "12") };
        let error = AnswerConfig::default().build().unwrap().verify(&sample).unwrap_err();
        assert_eq!(
            (error.cause(), error.to_string().contains("q7")),
            ("bad_reference", true),
            "{error}"
        );
    }
}

#[test]
fn long_responses_are_bounded() {
    let text = "77 ".repeat(400_000);
    let sample = Sample::new("?", "77", text);
    assert_eq!(NormalizedMatch::default().verify(&sample).unwrap().value(), 0.0);
    assert_eq!(ExactMatch.verify(&sample).unwrap().value(), 0.0);
}

#[test]
fn a_configuration_is_read_from_toml() {
    let parsed: MathConfig = toml::from_str("decimals = 3\nunreadable = \"undecided\"").unwrap();
    let rule = Math { decimals: 3, ..Math::default() };
    assert_eq!(
        parsed,
        MathConfig { rule, unreadable: Unreadable::Undecided, ..MathConfig::default() }
    );
    assert!(toml::from_str::<MathConfig>("decimal = 3").is_err());
    assert!(toml::from_str::<AnswerConfig>("stricktness = 1").is_err());
    assert!(toml::from_str::<AnswerConfig>("[numeric]\ntolerance = 1").is_err());
    assert!(toml::from_str::<AnswerConfig>("[normalizer]\ncases = 1").is_err());
}
