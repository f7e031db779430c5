//! Data in their roles, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sciences;

use posttrain_data::{Example, Splits};
use posttrain_router::{
    Cascade, ConstantRouter, Decision, KeywordConfig, OracleRouter, Question, Router, RouterData,
};
use posttrain_router::{RouterError, RouterReport};
use proptest::prelude::*;
use sciences::data;

fn splits() -> Splits {
    let row = |id: &str, domain: &str| Example::new(id, domain, format!("What is {id}?"), "1");
    Splits {
        train: vec![row("a", "math")],
        validation: vec![],
        test: vec![row("b", "social")],
        left_over: vec![],
    }
}

fn problem(splits: &Splits, labels: &[&str]) -> String {
    RouterData::from_splits(splits, labels).err().unwrap().to_string()
}

#[test]
fn what_cannot_be_labels_is_refused() {
    assert!(problem(&splits(), &[]).starts_with("labels []: expected at least one"));
    assert!(problem(&splits(), &["math", "math"]).contains("all different"));
    let error = problem(&splits(), &["math"]);
    assert_eq!(error, r#"test row 1 (`b`): unknown label "social"; expected one of ["math"]"#);
}

#[test]
fn a_question_in_two_splits_is_refused() {
    let leaking = Splits { validation: splits().test, ..splits() };
    let error = problem(&leaking, &["math", "social"]);
    assert!(error.contains("stand in more than one split, such as"), "{error}");
}

#[test]
fn left_over_rows_are_in_no_set() {
    let left_over = vec![Example::new("c", "art", "What is art?", "1")];
    let data =
        RouterData::from_splits(&Splits { left_over, ..splits() }, &["math", "social"]).unwrap();
    assert_eq!((data.train.len(), data.validation.len(), data.test.len()), (1, 0, 1));
    assert!(data.validation.is_empty());
}

#[test]
fn the_oracle_is_always_right() {
    let report = RouterReport::of(&OracleRouter::of(&data().test).unwrap(), &data().test).unwrap();
    assert_eq!((report.accuracy, report.ece, report.nll), (1.0, 0.0, 0.0));
    let attribution =
        report.attribution(&vec![vec![Some(false), Some(true), Some(true)]; 150]).unwrap();
    assert_eq!((attribution.misrouted, attribution.routed.share), (0, 2.0 / 3.0));
    assert_eq!(report.confusion, [[50, 0, 0], [0, 50, 0], [0, 0, 50]]);
    let twice = OracleRouter::new(["a", "b"], [("q", "a"), ("q", "b")]).err().unwrap().to_string();
    assert_eq!(twice, "`oracle`: the truth is `a` and `b` of `q`: expected one label a question");
}

#[test]
fn a_report_needs_the_same_labels_and_some_questions() {
    let other = ConstantRouter::new(["social", "natural", "math"], "math").unwrap();
    assert!(matches!(RouterReport::of(&other, &data().test), Err(RouterError::OtherLabels { .. })));
    let empty = RouterData::from_splits(&Splits { test: vec![], ..splits() }, &["math"]).unwrap();
    let router = ConstantRouter::new(["math"], "math").unwrap();
    assert!(matches!(
        RouterReport::of(&router, &empty.test),
        Err(RouterError::TooFewExamples { .. })
    ));
}

/// Answers with one decision, whatever is asked.
struct Says(Vec<String>, Decision);

impl Router for Says {
    fn name(&self) -> &str {
        "says"
    }

    fn labels(&self) -> &[String] {
        &self.0
    }

    fn route(&self, questions: &[Question]) -> Result<Vec<Decision>, RouterError> {
        Ok(vec![self.1.clone(); questions.len()])
    }
}

#[test]
fn a_router_without_a_distribution_is_not_reported() {
    let decision = Decision { label: 0, probabilities: vec![0.9, 0.9, 0.9], seconds: 0.0 };
    let router = Says(data().test.labels().to_vec(), decision);
    let error = RouterReport::of(&router, &data().test).err().unwrap().to_string();
    assert!(error.starts_with("`says`: the probabilities is [0.9, 0.9, 0.9]"), "{error}");
    let boxed: Box<dyn Router> = Box::new(router);
    assert!(Cascade::new(&boxed, &boxed, 0.5).unwrap().route(data().test.questions()).is_err());
}

#[test]
fn a_report_is_json_with_the_agreed_fields() {
    let router = KeywordConfig::learn(&data().train, 50).build().unwrap();
    let report = RouterReport::of(&router, &data().test).unwrap();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["accuracy"], report.accuracy);
    assert_eq!(json["confusion"][0].as_array().unwrap().len(), 3);
    assert!(json["ece"].is_number() && json["decisions"][0]["probabilities"].is_array());
    assert_eq!(serde_json::from_value::<RouterReport>(json).unwrap(), report);
    let text = report.to_string();
    assert!(text.starts_with("truth          math   natural    social    recall\nmath "), "{text}");
}

#[test]
fn keywords_route_better_than_chance_and_survive_hostile_questions() {
    let router = KeywordConfig::learn(&data().train, 50).build().unwrap();
    assert!(RouterReport::of(&router, &data().test).unwrap().accuracy > 0.7);
    let huge = "king ".repeat(1 << 18);
    let decisions =
        router.route(&[Question::new("empty", ""), Question::new("huge", huge)]).unwrap();
    assert_eq!(decisions[0].label, 0); // the fallback: all labels are equally frequent
    let config =
        KeywordConfig { keywords: vec![vec!["?!".into()]], ..KeywordConfig::new(["a"], "a") };
    assert!(config.build().err().unwrap().to_string().starts_with("`keywords` is \"?!\""));
    assert!(
        KeywordConfig::new(["a"], "b")
            .build()
            .err()
            .unwrap()
            .to_string()
            .contains("unknown label \"b\"")
    );
}

/// Sends the questions to these labels, in turn.
struct Turns(Vec<usize>);

impl Router for Turns {
    fn name(&self) -> &str {
        "turns"
    }

    fn labels(&self) -> &[String] {
        data().test.labels()
    }

    fn route(&self, questions: &[Question]) -> Result<Vec<Decision>, RouterError> {
        let decide = |label: &usize| Decision {
            label: *label,
            probabilities: vec![1.0 / 3.0; 3],
            seconds: 0.0,
        };
        Ok(self.0.iter().cycle().take(questions.len()).map(decide).collect())
    }
}

proptest! {
    #[test]
    fn the_matrix_counts_every_question_once(turns in prop::collection::vec(0usize..3, 1..40)) {
        let report = RouterReport::of(&Turns(turns), &data().test).unwrap();
        for (row, by_label) in report.confusion.iter().zip(&report.by_label) {
            prop_assert_eq!(row.iter().sum::<usize>(), 50);
            prop_assert_eq!(by_label.questions, 50);
        }
        let right: usize = (0..3).map(|label| report.confusion[label][label]).sum();
        prop_assert_eq!(report.accuracy, right as f64 / 150.0);
        prop_assert_eq!(report.by_label.iter().map(|label| label.routed).sum::<usize>(), 150);
        let [low, high] = report.accuracy_interval;
        prop_assert!(low <= report.accuracy && report.accuracy <= high);
        prop_assert_eq!(report.reliability.iter().map(|bin| bin.count).sum::<usize>(), 150);
        prop_assert!((report.ece - (report.accuracy - 1.0 / 3.0).abs()).abs() < 1e-9);
        prop_assert_eq!(report.decisions().count(), 150);
    }
}
