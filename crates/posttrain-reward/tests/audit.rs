//! The audit: groups, failures, what is written and shown.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_reward::audit::{Audit, AuditConfig};
use posttrain_reward::{RewardError, Sample, Score};
use serde_json::json;

fn verdict(word: char) -> Result<Score, RewardError> {
    match word {
        '1' => Ok(Score::binary(true)),
        '0' => Ok(Score::binary(false)),
        _ => Err(RewardError::Cancelled { reward: "x".into() }),
    }
}

/// Adds a sample of this domain and length for each pair of judge's and verifier's verdict.
fn add(audit: &mut Audit, domain: &str, length: usize, pairs: &str) {
    for pair in pairs.split(' ') {
        let sample = Sample { domain: domain.into(), ..Sample::new("?", "1", "é".repeat(length)) };
        let mut words = pair.chars();
        audit.add(&sample, &verdict(words.next().unwrap()), &verdict(words.next().unwrap()));
    }
}

fn audit() -> Audit {
    let mut audit = AuditConfig::default().build().unwrap();
    add(&mut audit, "law", 199, "11 11 10 00 01 x1 1x xx");
    add(&mut audit, "math", 200, "11 00 00 00");
    add(&mut audit, "", 4000, "10 10");
    audit
}

#[test]
fn verdicts_are_counted_by_domain_and_length() {
    let report = audit().report();
    assert_eq!(
        (report.overall.compared(), report.overall.judge_failed, report.overall.verifier_failed),
        (11, 2, 1)
    );
    let names: Vec<_> = report.by_domain.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(names, ["(none)", "law", "math"]);
    let lengths: Vec<_> = report
        .by_length
        .iter()
        .map(|group| (group.name.as_str(), group.table.compared()))
        .collect();
    assert_eq!(
        lengths,
        [("under 200", 5), ("200 to 999", 4), ("1000 to 3999", 0), ("4000 or more", 2)]
    );
    let law = &report.by_domain[1].table;
    assert_eq!((law.both_right, law.judge_alone, law.both_wrong, law.verifier_alone), (2, 1, 1, 1));
    assert_eq!(
        (law.agreement(), law.false_positives().share, law.false_negatives().n),
        (Some(0.6), 0.5, 3)
    );
    let sums: u64 = report.by_domain.iter().map(|group| group.table.compared()).sum();
    assert_eq!(sums, report.overall.compared());
}

#[test]
fn it_is_written_with_what_follows_from_the_counts() {
    let value = serde_json::to_value(audit().report()).unwrap();
    let math = &value["by_domain"][2];
    assert_eq!(
        (&math["name"], &math["agreement"], &math["kappa"]),
        (&json!("math"), &json!(1.0), &json!(1.0))
    );
    assert_eq!((&math["false_positives"]["n"], &math["both_wrong"]), (&json!(3), &json!(3)));
    let empty = &value["by_length"][2];
    assert_eq!(
        (&empty["agreement"], &empty["false_positives"]["share"]),
        (&json!(null), &json!(null))
    );
}

#[test]
fn the_table_lines_up() {
    let text = audit().report().to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines.len(),
        1 + 1 + 3 + 3,
        "a head, all, three domains, three lengths that have samples:\n{text}"
    );
    assert!(lines.iter().all(|line| line.chars().count() == lines[0].chars().count()), "{text}");
    assert!(lines[1].starts_with("all") && lines[1].contains(" 11  0.636 "), "{text}");
}

#[test]
fn grades_are_right_from_the_threshold_on() {
    let mut audit = AuditConfig { threshold: 0.75, lengths: Vec::new() }.build().unwrap();
    audit.add(&Sample::default(), &Score::new(0.75), &Score::new(0.74));
    let report = audit.report();
    assert_eq!((report.overall.judge_alone, report.by_length[0].name.as_str()), (1, "all"));
    for lengths in [vec![0], vec![2, 1], vec![1, 1]] {
        assert!(AuditConfig { lengths, ..AuditConfig::default() }.build().is_err());
    }
    for threshold in [0.0, 1.5, f64::NAN] {
        assert!(AuditConfig { threshold, ..AuditConfig::default() }.build().is_err());
    }
}
