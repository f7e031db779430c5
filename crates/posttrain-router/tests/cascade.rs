//! Cascades: who is asked, and what tuning buys.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sciences;

use posttrain_router::{
    Cascade, ConstantRouter, Decision, KeywordConfig, OracleRouter, Question, Router, RouterError,
    RouterReport,
};
use proptest::prelude::*;
use sciences::data;

/// Reads its decision from the question: `label confidence`.
struct Literal(Vec<String>);

impl Router for Literal {
    fn name(&self) -> &str {
        "literal"
    }

    fn labels(&self) -> &[String] {
        &self.0
    }

    fn route(&self, questions: &[Question]) -> Result<Vec<Decision>, RouterError> {
        let decide = |question: &Question| {
            let (label, confidence) = question.text.split_once(' ').unwrap();
            let (label, confidence): (usize, f64) =
                (label.parse().unwrap(), confidence.parse().unwrap());
            let probabilities =
                (0..2).map(|at| if at == label { confidence } else { 1.0 - confidence }).collect();
            Decision { label, probabilities, seconds: 1.0 }
        };
        Ok(questions.iter().map(decide).collect())
    }
}

fn literal() -> Literal {
    Literal(vec!["a".into(), "b".into()])
}

#[test]
fn thresholds_and_labels_are_checked() {
    let constant = |labels: [&str; 2]| ConstantRouter::new(labels, "a").unwrap();
    for threshold in [-0.1, 1.1, f64::NAN] {
        let cascade = Cascade::new(constant(["a", "b"]), constant(["a", "b"]), threshold);
        assert!(matches!(cascade, Err(RouterError::InvalidConfig { field: "threshold", .. })));
    }
    let others = Cascade::new(constant(["a", "b"]), constant(["b", "a"]), 0.5);
    assert!(matches!(others, Err(RouterError::OtherLabels { .. })));
}

#[test]
fn tuning_passes_on_no_more_than_it_takes() {
    let keyword = KeywordConfig::learn(&data().train, 20).build().unwrap();
    let validation_oracle = {
        let ids = data().validation.questions().iter().map(|question| question.id.as_str());
        let labels = data()
            .validation
            .truth()
            .iter()
            .map(|&label| data().validation.labels()[label].as_str());
        OracleRouter::new(data().validation.labels(), ids.zip(labels)).unwrap()
    };
    let mut cascade = Cascade::new(&keyword, &validation_oracle, 0.0).unwrap();
    let tight = cascade.tune(&data().validation, 0.0).unwrap();
    assert_eq!(cascade.share_passed_on(), None);
    let decisions = cascade.route(data().validation.questions()).unwrap();
    let right = |decisions: &[Decision]| {
        decisions
            .iter()
            .zip(data().validation.truth())
            .filter(|(decision, truth)| decision.label == **truth)
            .count()
    };
    // The oracle corrects whatever is passed on: what is left are errors that the keywords are as
    // sure of as can be.
    let alone = keyword.route(data().validation.questions()).unwrap();
    assert!(right(&decisions) > right(&alone), "{} {}", right(&decisions), right(&alone));
    let share = cascade.share_passed_on().unwrap();
    assert!(share > 0.0 && share < 1.0, "{share}");
    let loose = cascade.tune(&data().validation, 0.05).unwrap();
    assert!(loose < tight);
    assert_eq!(cascade.tune(&data().validation, 1.0).unwrap(), 0.0);
    assert!(cascade.tune(&data().validation, f64::NAN).is_err());
}

#[test]
fn a_second_router_that_is_no_better_is_not_asked() {
    let oracle = OracleRouter::of(&data().test).unwrap();
    let keyword = KeywordConfig::learn(&data().train, 20).build().unwrap();
    let nonsense = ConstantRouter::new(data().train.labels(), "math").unwrap();
    let mut cascade = Cascade::new(keyword, nonsense, 1.0).unwrap();
    let threshold = cascade.tune(&data().validation, 0.0).unwrap();
    assert!(threshold < 0.5, "{threshold}");
    let chain = Cascade::new(oracle, cascade, 0.5).unwrap();
    assert_eq!(RouterReport::of(&chain, &data().test).unwrap().accuracy, 1.0);
    assert_eq!(chain.share_passed_on(), Some(0.0));
}

proptest! {
    #[test]
    fn a_cascade_is_its_first_router_where_that_is_sure(
        rows in prop::collection::vec((0usize..2, 0.5..1.0f64), 0..30),
        threshold in 0.0..1.0f64,
    ) {
        let question = |(label, confidence): &(usize, f64)| Question::new("q", format!("{label} {confidence}"));
        let questions: Vec<Question> = rows.iter().map(question).collect();
        let second = ConstantRouter::new(["a", "b"], "b").unwrap();
        let cascade = Cascade::new(literal(), &second, threshold).unwrap();
        let decisions = cascade.route(&questions).unwrap();
        let first = literal().route(&questions).unwrap();
        for (decision, first) in decisions.iter().zip(&first) {
            if first.confidence() >= threshold {
                prop_assert_eq!(decision, first);
            } else {
                prop_assert_eq!((decision.label, decision.seconds), (1, 1.0));
            }
        }
        let passed_on = first.iter().filter(|first| first.confidence() < threshold).count();
        let share = (!rows.is_empty()).then(|| passed_on as f64 / rows.len() as f64);
        prop_assert_eq!(cascade.share_passed_on(), share);
    }
}
