//! `ErrorAttribution`: what a router's errors cost.

use std::fmt;

use posttrain_statistics::{Share, share_form};
use serde::{Deserialize, Serialize};

use crate::{Decision, RouterError, labels};

/// What was routed, and what each specialist makes of it.
#[derive(Debug, Clone, Copy)]
pub struct AttributionInput<'a> {
    /// The labels, one a specialist.
    pub labels: &'a [String],
    /// The router's decisions.
    pub decisions: &'a [Decision],
    /// The place of each question's label.
    pub truth: &'a [usize],
    /// `[question][specialist]`: whether the specialist answers the question right; none where it
    /// was not asked or not scored.
    pub right: &'a [Vec<Option<bool>>],
}

/// The questions of one label that went to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MisroutedPair {
    /// The label that they are of.
    pub truth: String,
    /// The label that they went to.
    pub predicted: String,
    /// How many both specialists were scored on.
    pub questions: usize,
    /// How many of them the specialist that they went to answers right.
    pub wrong_specialist_right: usize,
    /// How many of them their own specialist would have answered right.
    pub right_specialist_right: usize,
}

/// What a router's errors cost: accuracy as routed, beside what a router without errors would have
/// had.
///
/// Everything is over the questions on which both the specialist that was asked and the one that
/// should have been are scored; the others are counted apart. So the loss is exactly what is lost
/// on misrouted questions:
/// `oracle − routed = (right_specialist − wrong_specialist) · misrouted / n`.
///
/// ```
/// use posttrain_router::{AttributionInput, Decision, ErrorAttribution};
///
/// let labels = ["math".to_owned(), "social".to_owned()];
/// let to = |label| Decision { label, probabilities: vec![0.5, 0.5], seconds: 0.0 };
/// // The second question is misrouted, and only its own specialist would have known.
/// let attribution = ErrorAttribution::of(AttributionInput {
///     labels: &labels,
///     decisions: &[to(0), to(0)],
///     truth: &[0, 1],
///     right: &[vec![Some(true), Some(false)], vec![Some(false), Some(true)]],
/// })?;
/// assert_eq!((attribution.routed.share, attribution.oracle.share), (0.5, 1.0));
/// assert_eq!(attribution.loss, Some(0.5));
/// # Ok::<(), posttrain_router::RouterError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorAttribution {
    /// Questions that count.
    pub n: usize,
    /// Questions that do not, since one of the two specialists is not scored on them.
    pub unscored: usize,
    /// The share that is right as routed.
    #[serde(with = "share_form")]
    pub routed: Share,
    /// The share that would be right if every question went to its own specialist.
    #[serde(with = "share_form")]
    pub oracle: Share,
    /// `oracle − routed`: negative where the wrong specialists do better; none of nothing.
    pub loss: Option<f64>,
    /// Questions that went to a wrong specialist.
    pub misrouted: usize,
    /// Of those, the share that the wrong specialist answers right.
    #[serde(with = "share_form")]
    pub wrong_specialist: Share,
    /// Of those, the share that the right specialist would have answered right.
    #[serde(with = "share_form")]
    pub right_specialist: Share,
    /// Those by label and decision, in the labels' order; pairs that do not occur are left out.
    pub pairs: Vec<MisroutedPair>,
}

impl ErrorAttribution {
    /// Compares what was routed with what could have been.
    ///
    /// # Errors
    /// [`RouterError::InvalidLabels`]; [`RouterError::BadAnswer`] where the lists are of different
    /// lengths, or hold a place that is no label's.
    pub fn of(input: AttributionInput<'_>) -> Result<Self, RouterError> {
        check(&input)?;

        let cases = Case::all(&input);
        let misrouted: Vec<Case> =
            cases.iter().copied().filter(|case| case.truth != case.predicted).collect();
        let routed = Share::of(count(&cases, |case| case.as_routed), cases.len());
        let oracle = Share::of(count(&cases, |case| case.as_meant), cases.len());

        Ok(Self {
            n: cases.len(),
            unscored: input.truth.len() - cases.len(),
            routed,
            oracle,
            loss: oracle.value().zip(routed.value()).map(|(oracle, routed)| oracle - routed),
            misrouted: misrouted.len(),
            wrong_specialist: Share::of(count(&misrouted, |case| case.as_routed), misrouted.len()),
            right_specialist: Share::of(count(&misrouted, |case| case.as_meant), misrouted.len()),
            pairs: pairs(&misrouted, input.labels),
        })
    }
}

/// A question on which both specialists are scored.
#[derive(Clone, Copy)]
struct Case {
    truth: usize,
    predicted: usize,
    as_routed: bool,
    as_meant: bool,
}

impl Case {
    fn all(input: &AttributionInput<'_>) -> Vec<Self> {
        let rows = input.decisions.iter().zip(input.truth).zip(input.right);
        rows.filter_map(|((decision, &truth), right)| {
            let predicted = decision.label;
            Some(Self { truth, predicted, as_routed: right[predicted]?, as_meant: right[truth]? })
        })
        .collect()
    }
}

fn count(cases: &[Case], test: impl Fn(&Case) -> bool) -> usize {
    cases.iter().filter(|case| test(case)).count()
}

fn pairs(misrouted: &[Case], labels: &[String]) -> Vec<MisroutedPair> {
    let places = (0..labels.len())
        .flat_map(|truth| (0..labels.len()).map(move |predicted| (truth, predicted)));

    places
        .filter_map(|(truth, predicted)| {
            let of_pair = |case: &&Case| (case.truth, case.predicted) == (truth, predicted);
            let cases: Vec<Case> = misrouted.iter().filter(of_pair).copied().collect();
            (!cases.is_empty()).then(|| MisroutedPair {
                truth: labels[truth].clone(),
                predicted: labels[predicted].clone(),
                questions: cases.len(),
                wrong_specialist_right: count(&cases, |case| case.as_routed),
                right_specialist_right: count(&cases, |case| case.as_meant),
            })
        })
        .collect()
}

fn check(input: &AttributionInput<'_>) -> Result<(), RouterError> {
    let AttributionInput { labels, decisions, truth, right } = input;
    labels::checked(labels.iter().map(String::as_str))?;
    let wrong = |field, got: String, expected: String| {
        Err(RouterError::answer("attribution", field, got, expected))
    };

    for (field, got) in [
        ("the number of decisions", decisions.len()),
        ("the number of rows of `right`", right.len()),
    ] {
        if got != truth.len() {
            return wrong(field, got.to_string(), format!("{}, one a question", truth.len()));
        }
    }

    let places = decisions.iter().map(|decision| decision.label).chain(truth.iter().copied());
    if let Some(place) = places.into_iter().find(|place| *place >= labels.len()) {
        return wrong("a label's place", place.to_string(), format!("less than {}", labels.len()));
    }

    match right.iter().find(|row| row.len() != labels.len()) {
        Some(row) => wrong(
            "the length of a row of `right`",
            row.len().to_string(),
            format!("{}, one a specialist", labels.len()),
        ),
        None => Ok(()),
    }
}

/// The accuracies, and a line a pair.
impl fmt::Display for ErrorAttribution {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loss = self.loss.map_or("-".to_owned(), |loss| format!("{loss:+.3}"));
        writeln!(
            out,
            "routed {}, oracle {}, lost {loss}, n = {}",
            self.routed, self.oracle, self.n
        )?;
        if self.unscored > 0 {
            writeln!(out, "{} more are not scored by both specialists", self.unscored)?;
        }

        let wrong = self.wrong_specialist;
        let right = self.right_specialist;
        writeln!(
            out,
            "misrouted {}: the wrong specialist {wrong}, the right one {right}",
            self.misrouted
        )?;

        for pair in &self.pairs {
            let MisroutedPair {
                truth,
                predicted,
                questions,
                wrong_specialist_right,
                right_specialist_right,
            } = pair;
            writeln!(
                out,
                "  {truth} -> {predicted}: {questions}, of which {predicted} has {wrong_specialist_right} right and {truth} \
                 would have {right_specialist_right}"
            )?;
        }
        Ok(())
    }
}
