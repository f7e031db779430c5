//! Two sides on the same questions.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_experiment::{head_to_head, head_to_head_by_domain};
use posttrain_statistics::Share;

#[test]
fn a_failed_verdict_leaves_its_question_out_of_everything() {
    let mut routed: Vec<Option<bool>> = (0..250).map(|i| Some(i < 140)).collect();
    let mut generalist: Vec<Option<bool>> =
        (0..250).map(|i| Some((40..165).contains(&i))).collect();
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
    assert_eq!(by_domain.per_domain["math"].routed, Share::of(40, 40));
    assert_eq!(by_domain.per_domain["social"].routed, Share::of(0, 30));
}
