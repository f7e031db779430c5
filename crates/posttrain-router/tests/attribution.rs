//! What routing errors cost, by hand and as an identity.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_router::{AttributionInput, Decision, ErrorAttribution, RouterError};
use proptest::prelude::*;

fn labels() -> Vec<String> {
    ["math", "natural", "social"].map(str::to_owned).to_vec()
}

fn to(label: usize) -> Decision {
    Decision { label, probabilities: vec![1.0 / 3.0; 3], seconds: 0.0 }
}

#[test]
fn pairs_losses_and_what_is_not_scored_are_apart() {
    let (yes, no) = (Some(true), Some(false));
    let rows = [
        (0, 0, vec![yes, None, None]), // right way, right answer
        (0, 1, vec![yes, no, None]),   // costs an answer
        (0, 1, vec![no, yes, None]),   // wins one
        (2, 1, vec![None, yes, yes]),  // costs nothing
        (1, 1, vec![None, no, None]),  // nobody knows
        (2, 0, vec![None, None, yes]), // not scored
    ];
    let truth: Vec<usize> = rows.iter().map(|row| row.0).collect();
    let decisions: Vec<Decision> = rows.iter().map(|row| to(row.1)).collect();
    let right: Vec<Vec<Option<bool>>> = rows.iter().map(|row| row.2.clone()).collect();
    let labels = labels();
    let input =
        AttributionInput { labels: &labels, decisions: &decisions, truth: &truth, right: &right };
    let attribution = ErrorAttribution::of(input).unwrap();
    assert_eq!((attribution.n, attribution.unscored, attribution.misrouted), (5, 1, 3));
    assert_eq!((attribution.routed.share, attribution.oracle.share), (0.6, 0.6));
    assert_eq!(attribution.loss, Some(0.0));
    assert_eq!(attribution.wrong_specialist.share, 2.0 / 3.0);
    assert_eq!(attribution.right_specialist.share, 2.0 / 3.0);
    let pairs: Vec<_> = attribution
        .pairs
        .iter()
        .map(|p| (p.truth.as_str(), p.predicted.as_str(), p.questions))
        .collect();
    assert_eq!(pairs, [("math", "natural", 2), ("social", "natural", 1)]);
    assert_eq!(
        (attribution.pairs[0].wrong_specialist_right, attribution.pairs[0].right_specialist_right),
        (1, 1)
    );
    let text = attribution.to_string();
    assert!(
        text.contains("math -> natural: 2, of which natural has 1 right and math would have 1"),
        "{text}"
    );
    let json = serde_json::to_value(&attribution).unwrap();
    assert_eq!(serde_json::from_value::<ErrorAttribution>(json).unwrap(), attribution);
}

#[test]
fn lists_of_other_lengths_and_places_are_refused() {
    let (labels, row) = (labels(), vec![Some(true); 3]);
    let problem = |decisions: &[Decision], truth: &[usize], right: &[Vec<Option<bool>>]| {
        let input = AttributionInput { labels: &labels, decisions, truth, right };
        let error = ErrorAttribution::of(input).err().unwrap();
        assert!(matches!(error, RouterError::BadAnswer { .. }));
        error.to_string()
    };
    assert!(
        problem(&[], &[0], std::slice::from_ref(&row))
            .contains("the number of decisions is 0: expected 1")
    );
    assert!(problem(&[to(0)], &[0], &[]).contains("the number of rows of `right` is 0"));
    assert!(
        problem(&[to(3)], &[0], std::slice::from_ref(&row))
            .contains("a label's place is 3: expected less than 3")
    );
    assert!(problem(&[to(0)], &[9], std::slice::from_ref(&row)).contains("a label's place is 9"));
    assert!(problem(&[to(0)], &[0], &[vec![None]]).contains("the length of a row of `right` is 1"));
    let nothing = AttributionInput { labels: &labels, decisions: &[], truth: &[], right: &[] };
    assert_eq!(ErrorAttribution::of(nothing).unwrap().loss, None);
}

type Row = (usize, usize, Vec<Option<bool>>);

fn row() -> impl Strategy<Value = Row> {
    (0usize..3, 0usize..3, prop::collection::vec(prop::option::weighted(0.9, any::<bool>()), 3))
}

proptest! {
    #[test]
    fn all_that_is_lost_is_lost_on_misrouted_questions(rows in prop::collection::vec(row(), 0..40)) {
        let (truth, rest): (Vec<usize>, Vec<_>) = rows.into_iter().map(|(truth, label, right)| (truth, (label, right))).unzip();
        let (decisions, right): (Vec<Decision>, Vec<_>) = rest.into_iter().map(|(label, right)| (to(label), right)).unzip();
        let labels = labels();
        let input = AttributionInput { labels: &labels, decisions: &decisions, truth: &truth, right: &right };
        let attribution = ErrorAttribution::of(input).unwrap();
        prop_assert_eq!(attribution.n + attribution.unscored, truth.len());
        prop_assert_eq!(attribution.pairs.iter().map(|pair| pair.questions).sum::<usize>(), attribution.misrouted);
        let there = |share: posttrain_statistics::Share| share.share * attribution.misrouted as f64;
        let lost = there(attribution.right_specialist) - there(attribution.wrong_specialist);
        let loss = attribution.loss.unwrap_or(0.0) * attribution.n as f64;
        prop_assert!((loss - lost).abs() < 1e-9, "{} {}", loss, lost);
    }
}
