//! Rewards made of rewards.

// Functions outside #[test] unwrap, too.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::executor::block_on;
use posttrain_reward::compose::{FirstThatDecides, GoOn, Product, WeightedSum};
use posttrain_reward::verifiers::{ExactMatch, FormatConfig, LengthConfig, LengthUnit, Opening};
use posttrain_reward::{Reward, RewardError, Sample, Score, Verifier, from_fn};
use proptest::prelude::*;

fn constant(name: &str, value: f64) -> Arc<dyn Reward> {
    Arc::new(from_fn(name, move |_: &Sample| Score::new(value)))
}

fn failing(name: &str, error: RewardError) -> Arc<dyn Reward> {
    Arc::new(from_fn(name, move |_: &Sample| Err(error.clone())))
}

fn undecided() -> RewardError {
    RewardError::Undecided { id: "7".into(), verifier: "math".into(), reason: "a proof" }
}

fn bad_reference() -> RewardError {
    RewardError::BadReference { id: "7".into(), reference: "x".into(), expected: "a number" }
}

fn reported() -> RewardError {
    RewardError::Reported { reward: "remote".into(), message: "no disk".into() }
}

fn score(reward: &dyn Reward) -> Result<Score, RewardError> {
    block_on(reward.score(&Sample::new("?", "4", "4")))
}

#[test]
fn a_product_names_its_factors_and_fails_with_any() {
    let product = Product::new([constant("a", 0.5), constant("b", 0.5)]).unwrap();
    let product = score(&product).unwrap();
    assert_eq!(
        (product.value(), product.parts()),
        (0.25, [("a".to_owned(), 0.5), ("b".to_owned(), 0.5)].as_slice())
    );
    for factors in [
        [constant("zero", 0.0), failing("b", reported())],
        [failing("b", reported()), constant("zero", 0.0)],
    ] {
        assert_eq!(score(&Product::new(factors).unwrap()).unwrap_err().cause(), "reported");
    }
}

#[test]
fn a_cascade_goes_on_only_where_nothing_was_decided() {
    let cascade = |first: RewardError, go_on| {
        score(
            &FirstThatDecides::new([failing("verifier", first), constant("judge", 1.0)], go_on)
                .unwrap(),
        )
    };
    for error in [undecided(), bad_reference()] {
        assert_eq!(cascade(error, GoOn::CannotSay).unwrap().note(), Some("decided by `judge`"));
    }
    let mistakes = [reported(), RewardError::EmptyReference { id: "7".into() }];
    for error in mistakes {
        let cause = error.cause();
        assert_eq!(cascade(error.clone(), GoOn::CannotSay).unwrap_err().cause(), cause);
        assert_eq!(cascade(error, GoOn::AnyFailure).unwrap().value(), 1.0);
    }
}

#[test]
fn a_wrong_answer_is_a_decision_and_costs_no_judge() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let judge = from_fn("judge", move |_: &Sample| {
        counter.fetch_add(1, Ordering::SeqCst);
        Score::new(1.0)
    });
    let cascade =
        FirstThatDecides::new([constant("verifier", 0.0), Arc::new(judge)], GoOn::CannotSay)
            .unwrap();
    assert_eq!(score(&cascade).unwrap().value(), 0.0);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[test]
fn where_none_decides_the_last_error_says_why() {
    let cascade = FirstThatDecides::new(
        [failing("a", bad_reference()), failing("b", undecided())],
        GoOn::CannotSay,
    );
    assert_eq!(score(&cascade.unwrap()).unwrap_err().cause(), "undecided");
}

#[test]
fn compositions_nest() {
    let cascade =
        FirstThatDecides::new([failing("v", undecided()), constant("j", 1.0)], GoOn::CannotSay)
            .unwrap();
    let format = FormatConfig::Pattern("4".into()).build().unwrap().into_reward();
    let gate = Product::new([Arc::new(format) as Arc<dyn Reward>, Arc::new(cascade)]).unwrap();
    let sum = WeightedSum::new([
        (3.0, Arc::new(gate) as Arc<dyn Reward>),
        (1.0, Arc::new(ExactMatch.into_reward()) as Arc<dyn Reward>),
    ]);
    let sum = score(&sum.unwrap()).unwrap();
    assert_eq!(sum.value(), 1.0);
    assert_eq!(sum.parts(), [("product".to_owned(), 1.0), ("exact".to_owned(), 1.0)]);
}

#[test]
fn formats() {
    let think_answer =
        |opening| FormatConfig::Tags { tags: vec!["think".into(), "answer".into()], opening };
    let value = |config: FormatConfig, response: &str| {
        config.build().unwrap().verify(&Sample::new("?", "4", response)).unwrap().value()
    };
    let cases = [
        ("<think>a</think><answer>b</answer>", 1.0),
        (" \n<think>a</think>\n \n<answer>b</answer>\n", 1.0),
        ("a</think><answer>b</answer>", 1.0),
        ("\n\na\n</think>\n\n<answer>b</answer>", 1.0),
        ("<answer>b</answer><think>a</think>", 0.0),
        ("<think>a</think>b", 0.0),
        ("<think>a</think>b<answer>c</answer>", 0.0),
        ("<think>a</think><answer>b", 0.0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0.0),
        ("<think>a</think><answer><answer>b</answer></answer>", 0.0),
        ("<think>a</think></think><answer>b</answer>", 0.0),
        ("<think>a<answer>b</answer></think><answer>c</answer>", 0.0),
        ("<think> </think><answer>b</answer>", 0.0),
        ("<THINK>a</THINK><answer>b</answer>", 0.0),
        ("</think><answer>b</answer>", 0.0),
        ("", 0.0),
    ];
    for (response, expected) in cases {
        assert_eq!(value(think_answer(Opening::Either), response), expected, "{response}");
    }
    assert_eq!(value(think_answer(Opening::Written), cases[2].0), 0.0);
    assert_eq!(value(think_answer(Opening::Prefilled), cases[0].0), 0.0);
    assert_eq!(
        value(FormatConfig::Pattern("a|b".into()), "ab"),
        0.0,
        "the whole response, not its beginning"
    );
    for pattern in ["(", "a)|(b", "(?:(?:(?:a{999}){999}){999})"] {
        assert_eq!(
            FormatConfig::Pattern(pattern.into()).build().unwrap_err().cause(),
            "invalid_config",
            "{pattern}"
        );
    }
    for tags in
        [vec![], vec!["a".to_owned(), "a".to_owned()], vec!["a>".to_owned()], vec![String::new()]]
    {
        assert!(FormatConfig::Tags { tags, opening: Opening::Either }.validate().is_err());
    }
}

#[test]
fn configurations_are_read_from_files() {
    let tags: FormatConfig =
        toml::from_str("tags = { tags = ['think'], opening = 'prefilled' }").unwrap();
    assert_eq!(
        tags,
        FormatConfig::Tags { tags: vec!["think".into()], opening: Opening::Prefilled }
    );
    let pattern: FormatConfig = toml::from_str("pattern = 'Answer: .*'").unwrap();
    assert_eq!(pattern, FormatConfig::Pattern("Answer: .*".into()));
    let length: LengthConfig = toml::from_str("unit = 'words'\nmax_length = 9").unwrap();
    assert_eq!(
        length,
        LengthConfig { unit: LengthUnit::Words, max_length: 9, ..LengthConfig::default() }
    );
    assert!(toml::from_str::<LengthConfig>("max = 9").is_err());
}

#[test]
fn lengths_need_a_count() {
    let term = LengthConfig::default().build().unwrap();
    assert_eq!(term.verify(&Sample::new("?", "4", "4")).unwrap_err().cause(), "missing_field");
    let step =
        LengthConfig { max_length: 10, buffer: 0, ..LengthConfig::default() }.build().unwrap();
    let value = |tokens| {
        step.verify(&Sample { tokens: Some(tokens), ..Sample::default() }).unwrap().value()
    };
    assert_eq!([value(10), value(11)], [1.0, 0.0]);
}

proptest! {
    /// DAPO's equation 13, moved by 1: never rises, reaches both ends, and is a line in between.
    #[test]
    fn length_is_daposs(max_length in 1_usize..5000, share in 0.0..=1.0_f64, tokens in 0_usize..6000) {
        let buffer = (max_length as f64 * share) as usize;
        let term = LengthConfig { max_length, buffer, ..LengthConfig::default() }.build().unwrap();
        let value = |tokens| term.verify(&Sample { tokens: Some(tokens), ..Sample::default() }).unwrap().value();
        let (length, limit, cache) = (tokens as f64, max_length as f64, buffer as f64);
        let dapo = if length <= limit - cache { 0.0 } else if length <= limit { (limit - cache - length) / cache } else { -1.0 };
        prop_assert!((value(tokens) - (1.0 + dapo)).abs() < 1e-12);
        prop_assert!(value(tokens + 1) <= value(tokens));
        prop_assert_eq!((value(0), value(max_length + 1)), (1.0, 0.0));
    }

    #[test]
    fn products_are_below_their_factors(values in prop::collection::vec(0.0..=1.0_f64, 1..5)) {
        let product = Product::new(values.iter().map(|&value| constant("f", value))).unwrap();
        let value = score(&product).unwrap().value();
        prop_assert!(values.iter().all(|&factor| value <= factor));
        prop_assert!((value - values.iter().product::<f64>()).abs() < 1e-15);
    }

    #[test]
    fn formats_read_anything(response in "(<think>|</think>|<answer>|</answer>|a|é| |\n){0,12}") {
        let term = FormatConfig::default().build().unwrap();
        let value = term.verify(&Sample::new("?", "4", response.clone())).unwrap().value();
        let closings = response.matches("</think>").count() == 1 && response.matches("</answer>").count() == 1;
        prop_assert!(value == 0.0 || closings && response.trim_end().ends_with("</answer>"));
    }
}
