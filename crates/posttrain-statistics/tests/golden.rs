//! The statistics against statsmodels and scipy (`fixtures/generate.py`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_statistics::{McNemar, PairedBootstrap, PairedVerdicts, Share};
use serde_json::Value;

fn expected(part: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("fixtures/expected.json")).unwrap();
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
    let cells = [
        ("both", true, true),
        ("first_only", true, false),
        ("second_only", false, true),
        ("neither", false, false),
    ];
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
        let got = Share::of(count(&case, "right"), count(&case, "n"));
        assert!((got.low - number(&case, "low")).abs() < 1e-12, "{case}: {got:?}");
        assert!((got.high - number(&case, "high")).abs() < 1e-12, "{case}: {got:?}");
    }
}

#[test]
fn the_bootstrap_agrees_with_scipys() {
    for case in expected("bootstrap") {
        let (first, second) = verdicts(&case);
        let pairs = PairedVerdicts::new(&first, &second).unwrap();
        let (low, high) = PairedBootstrap::default().interval(&pairs.differences(), 11).unwrap();
        assert!((low - number(&case, "low")).abs() < 0.006, "{case}: {low}");
        assert!((high - number(&case, "high")).abs() < 0.006, "{case}: {high}");

        let counts = pairs.counts();
        assert_eq!(counts.first_only, count(&case, "first_only"));
        assert!(low < counts.difference() && counts.difference() < high);
    }
}
