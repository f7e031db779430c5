//! The statistics against statsmodels and scipy (`fixtures/statistics/generate.py`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_experiment::{Accuracy, McNemar, head_to_head, head_to_head_by_domain};
use serde_json::Value;

fn expected(part: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("fixtures/statistics/expected.json")).unwrap();
    let cases = all[part].as_array().unwrap().clone();
    assert!(cases.len() > 2, "{part} has hardly any case");
    cases
}

fn count(case: &Value, field: &str) -> usize {
    case[field].as_u64().unwrap() as usize
}

fn number(case: &Value, field: &str) -> f64 {
    case[field].as_f64().unwrap()
}

/// Verdicts of two sides with these counts.
fn verdicts(case: &Value) -> (Vec<Option<bool>>, Vec<Option<bool>>) {
    let cells =
        [("both", true, true), ("first_only", true, false), ("second_only", false, true), ("neither", false, false)];
    cells.iter().flat_map(|(field, a, b)| vec![(Some(*a), Some(*b)); count(case, field)]).unzip()
}

#[test]
fn mcnemars_test_is_that_of_statsmodels() {
    for case in expected("mcnemar") {
        let test = McNemar::new(count(&case, "first_only"), count(&case, "second_only"));
        for (field, got) in [("p", test.p), ("mid_p", test.mid_p)] {
            let expected = number(&case, field);
            assert!((got - expected).abs() <= 1e-9 * expected, "{case}: {field} is {got}");
        }
    }
}

#[test]
fn intervals_are_wilsons() {
    for case in expected("wilson") {
        let got = Accuracy::new(count(&case, "right"), count(&case, "n"));
        assert!((got.low - number(&case, "low")).abs() < 1e-12, "{case}: {got:?}");
        assert!((got.high - number(&case, "high")).abs() < 1e-12, "{case}: {got:?}");
    }
}

#[test]
fn the_bootstrap_agrees_with_scipys() {
    for case in expected("bootstrap") {
        let (routed, generalist) = verdicts(&case);
        let outcome = head_to_head(&routed, &generalist, 11).unwrap();
        assert!((outcome.low - number(&case, "low")).abs() < 0.006, "{case}: {outcome:?}");
        assert!((outcome.high - number(&case, "high")).abs() < 0.006, "{case}: {outcome:?}");
        assert_eq!(outcome.routed_only, count(&case, "first_only"));
        assert!(outcome.low < outcome.difference && outcome.difference < outcome.high);
    }
}

#[test]
fn a_failed_verdict_leaves_its_question_out_of_everything() {
    let case = &expected("bootstrap")[0];
    let (mut routed, mut generalist) = verdicts(case);
    let whole = head_to_head(&routed, &generalist, 5).unwrap();
    routed.extend([None, None, Some(true)]);
    generalist.extend([Some(true), None, None]);
    let outcome = head_to_head(&routed, &generalist, 5).unwrap();
    assert_eq!(outcome.left_out, 3);
    assert_eq!(posttrain_experiment::HeadToHead { left_out: 0, ..outcome }, whole);
}

#[test]
fn domains_add_up_and_narrow_the_interval() {
    // All of the difference is between the domains: 40 right on one side alone, 30 on the other.
    let routed: Vec<Option<bool>> = (0..70).map(|i| Some(i < 40)).collect();
    let generalist: Vec<Option<bool>> = (0..70).map(|i| Some(i >= 40)).collect();
    let domains: Vec<&str> = (0..70).map(|i| if i < 40 { "math" } else { "social" }).collect();
    let plain = head_to_head(&routed, &generalist, 1).unwrap();
    let by_domain = head_to_head_by_domain(&routed, &generalist, &domains, 1).unwrap();
    assert_eq!((by_domain.difference, by_domain.mcnemar_p), (plain.difference, plain.mcnemar_p));
    assert!(by_domain.high - by_domain.low < 1e-12 && plain.high - plain.low > 0.2);
    assert_eq!(by_domain.per_domain["math"].routed, Accuracy::new(40, 40));
    assert_eq!(by_domain.per_domain["social"].routed, Accuracy::new(0, 30));
}
