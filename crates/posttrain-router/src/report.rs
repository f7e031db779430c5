//! `RouterReport`: how good a router is, on the test set.

use std::fmt;

use posttrain_statistics::Share;
use serde::{Deserialize, Serialize};

use crate::reliability::{bins, expected_calibration_error};
use crate::{
    AttributionInput, Decision, ErrorAttribution, ReliabilityBin, Router, RouterError, TestSet,
    distribution, labels,
};

/// The least probability that a mean log-likelihood is taken of.
const LEAST: f64 = 1e-12;

/// How a router did on the questions of one label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelReport {
    /// The label.
    pub label: String,
    /// Questions that are of it.
    pub questions: usize,
    /// Questions that were sent to it.
    pub routed: usize,
    /// Of those sent to it, the share that is of it; none where none was sent.
    pub precision: Option<f64>,
    /// Of those of it, the share that was sent to it; none where there are none.
    pub recall: Option<f64>,
}

/// Where a question of the test set went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoutedQuestion {
    /// The question's id.
    pub id: String,
    /// The place of its label.
    pub truth: usize,
    /// The decision about it.
    #[serde(flatten)]
    pub decision: Decision,
}

/// How good a router is, on the test set.
///
/// ```
/// use posttrain_data::{SplitConfig, SplitSizes, sciences, split};
/// use posttrain_router::{ConstantRouter, RouterData, RouterReport};
///
/// let sizes = SplitSizes { train: 20, validation: 5, test: 10 };
/// let splits = split(&sciences::generate(7)?, &SplitConfig { sizes, seed: 7 })?;
/// let data = RouterData::from_splits(&splits, &sciences::DOMAINS)?;
/// let report = RouterReport::of(&ConstantRouter::new(sciences::DOMAINS, "math")?, &data.test)?;
/// assert_eq!((report.accuracy, report.n), (1.0 / 3.0, 30));
/// assert_eq!(report.confusion, [[10, 0, 0], [10, 0, 0], [10, 0, 0]]);
/// assert!((report.ece - 2.0 / 3.0).abs() < 1e-12); // always sure, right in a third
/// println!("{report}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouterReport {
    /// The router's name.
    pub router: String,
    /// What the places in the rest stand for.
    pub labels: Vec<String>,
    /// Questions of the test set.
    pub n: usize,
    /// The share of them that went to its label.
    pub accuracy: f64,
    /// The accuracy's 95% Wilson interval.
    pub accuracy_interval: [f64; 2],
    /// Questions by label and decision, `[truth][decision]`.
    pub confusion: Vec<Vec<usize>>,
    /// Precision and recall, one a label.
    pub by_label: Vec<LabelReport>,
    /// The expected calibration error over [`reliability`](Self::reliability):
    /// `Σ nᵦ/n · |accuracyᵦ − confidenceᵦ|`.
    pub ece: f64,
    /// Confidence against accuracy, in 15 bins of equal width.
    pub reliability: Vec<ReliabilityBin>,
    /// The mean of `−ln p(truth)`, nats, with probabilities below 10⁻¹² taken for that.
    pub nll: f64,
    /// Seconds that a decision takes, on average.
    pub seconds_per_question: f64,
    /// Every decision.
    pub decisions: Vec<RoutedQuestion>,
}

impl RouterReport {
    /// Routes the test set.
    ///
    /// # Errors
    /// [`RouterError::OtherLabels`]; [`RouterError::TooFewExamples`] of an empty set; what the
    /// router returns; [`RouterError::BadAnswer`] where that is no list of distributions.
    pub fn of<R: Router + ?Sized>(router: &R, test: &TestSet) -> Result<Self, RouterError> {
        labels::same(router.name(), router.labels(), test.labels())?;
        if test.is_empty() {
            return Err(RouterError::TooFewExamples {
                split: "test",
                label: "any label".to_owned(),
                needed: 1,
                got: 0,
            });
        }

        let decisions = router.route(test.questions())?;
        distribution::check(router.name(), &decisions, test.len(), test.labels().len())?;
        Ok(Self::new(router.name(), test, decisions))
    }

    fn new(router: &str, test: &TestSet, decisions: Vec<Decision>) -> Self {
        let n = test.len();
        let labels = test.labels();
        let truth = test.truth();
        let confusion = confusion(&decisions, truth, labels.len());
        let right: usize = (0..labels.len()).map(|label| confusion[label][label]).sum();
        let accuracy = Share::of(right, n);
        let reliability = bins(&decisions, truth);

        let cost = |(decision, &label): (&Decision, &usize)| {
            -decision.probabilities[label].max(LEAST).ln()
        };

        Self {
            router: router.to_owned(),
            labels: labels.to_vec(),
            n,
            accuracy: right as f64 / n as f64,
            accuracy_interval: [accuracy.low, accuracy.high],
            by_label: labels
                .iter()
                .enumerate()
                .map(|(at, label)| LabelReport::new(label, at, &confusion))
                .collect(),
            confusion,
            ece: expected_calibration_error(&reliability),
            reliability,
            nll: decisions.iter().zip(truth).map(cost).fold(0.0, |sum, cost| sum + cost) / n as f64,
            seconds_per_question: decisions.iter().map(|decision| decision.seconds).sum::<f64>()
                / n as f64,
            decisions: routed(test, decisions),
        }
    }

    /// What the errors cost, where `right` says which specialist answers which question of the test
    /// set right.
    ///
    /// # Errors
    /// As in [`ErrorAttribution::of`].
    pub fn attribution(
        &self,
        right: &[Vec<Option<bool>>],
    ) -> Result<ErrorAttribution, RouterError> {
        let decisions: Vec<Decision> = self.decisions().cloned().collect();
        let truth: Vec<usize> = self.decisions.iter().map(|routed| routed.truth).collect();

        ErrorAttribution::of(AttributionInput {
            labels: &self.labels,
            decisions: &decisions,
            truth: &truth,
            right,
        })
    }

    /// The decisions alone, in the test set's order.
    pub fn decisions(&self) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().map(|routed| &routed.decision)
    }
}

impl LabelReport {
    fn new(label: &str, at: usize, confusion: &[Vec<usize>]) -> Self {
        let questions = confusion[at].iter().sum();
        let routed = confusion.iter().map(|row| row[at]).sum();
        let share = |n: usize| (n > 0).then(|| confusion[at][at] as f64 / n as f64);
        Self {
            label: label.to_owned(),
            questions,
            routed,
            precision: share(routed),
            recall: share(questions),
        }
    }
}

fn confusion(decisions: &[Decision], truth: &[usize], labels: usize) -> Vec<Vec<usize>> {
    let mut counts = vec![vec![0; labels]; labels];
    decisions.iter().zip(truth).for_each(|(decision, &truth)| counts[truth][decision.label] += 1);
    counts
}

fn routed(test: &TestSet, decisions: Vec<Decision>) -> Vec<RoutedQuestion> {
    let rows = test.questions().iter().zip(test.truth()).zip(decisions);
    rows.map(|((question, &truth), decision)| RoutedQuestion {
        id: question.id.clone(),
        truth,
        decision,
    })
    .collect()
}

/// The matrix with precision and recall, and a line of the rest.
impl fmt::Display for RouterReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.labels.iter().map(|label| label.chars().count()).max().unwrap_or(0).max(9);
        let number =
            |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{share:.3}"));

        write!(out, "{:width$}", "truth")?;
        self.labels.iter().try_for_each(|label| write!(out, " {label:>width$}"))?;
        writeln!(out, " {:>9}", "recall")?;

        for (row, report) in self.confusion.iter().zip(&self.by_label) {
            write!(out, "{:width$}", report.label)?;
            row.iter().try_for_each(|count| write!(out, " {count:>width$}"))?;
            writeln!(out, " {:>9}", number(report.recall))?;
        }

        write!(out, "{:width$}", "precision")?;
        self.by_label
            .iter()
            .try_for_each(|report| write!(out, " {:>width$}", number(report.precision)))?;

        let [low, high] = self.accuracy_interval;
        writeln!(
            out,
            "\naccuracy {:.3} [{low:.3}, {high:.3}], n = {}, {}",
            self.accuracy, self.n, self.router
        )?;
        writeln!(
            out,
            "ECE {:.3}, NLL {:.3} nats, {:.2e} s a question",
            self.ece, self.nll, self.seconds_per_question
        )
    }
}
