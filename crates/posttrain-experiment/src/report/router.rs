//! How well a router sorts questions, and what its errors cost.

use crate::ExperimentError;
use posttrain_statistics::Share;
use serde::{Deserialize, Serialize};

/// A router on the combined test set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RouterSummary {
    /// Share of questions sent to their own domain.
    pub accuracy: f64,
    /// Counts, `confusion[true][predicted]`, in the order of `labels`.
    #[serde(default)]
    pub confusion: Vec<Vec<usize>>,
    /// Expected calibration error: how far the stated probability is from the share that is right.
    /// Absent for a router that states none.
    #[serde(default)]
    pub ece: Option<f64>,
    /// The domains.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Of what was sent to each domain, the share that belongs there; absent where nothing was
    /// sent.
    #[serde(default)]
    pub precision: Vec<Option<f64>>,
    /// Of what belongs to each domain, the share that was sent there; absent where nothing belongs.
    #[serde(default)]
    pub recall: Vec<Option<f64>>,
    /// Mean seconds that a question took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_per_question: Option<f64>,
}

impl RouterSummary {
    /// What follows from the counts `confusion[true][predicted]`.
    ///
    /// ```
    /// use posttrain_experiment::RouterSummary;
    ///
    /// let labels = ["math".to_owned(), "social".to_owned()];
    /// let router = RouterSummary::from_confusion(&labels, vec![vec![8, 2], vec![0, 10]])?;
    /// assert_eq!(router.accuracy, 0.9);
    /// assert_eq!(router.precision, [Some(1.0), Some(10.0 / 12.0)]);
    /// assert_eq!(router.recall, [Some(0.8), Some(1.0)]);
    /// # Ok::<(), posttrain_experiment::ExperimentError>(())
    /// ```
    ///
    /// # Errors
    /// [`ExperimentError::Confusion`] if the matrix is not square or does not fit the labels.
    pub fn from_confusion(
        labels: &[String],
        confusion: Vec<Vec<usize>>,
    ) -> Result<Self, ExperimentError> {
        let size = labels.len();
        if let Some(row) = confusion.iter().position(|row| row.len() != size) {
            return Err(ExperimentError::Confusion {
                labels: size,
                row,
                got: confusion[row].len(),
            });
        }
        if confusion.len() != size {
            return Err(ExperimentError::Confusion { labels: size, row: confusion.len(), got: 0 });
        }

        let share = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
        let sent = |label: usize| confusion.iter().map(|row| row[label]).sum();
        let right: usize = (0..size).map(|label| confusion[label][label]).sum();

        Ok(Self {
            accuracy: share(right, confusion.iter().flatten().sum()).unwrap_or(0.0),
            precision: (0..size).map(|label| share(confusion[label][label], sent(label))).collect(),
            recall: (0..size)
                .map(|label| share(confusion[label][label], confusion[label].iter().sum()))
                .collect(),
            labels: labels.to_vec(),
            confusion,
            ..Self::default()
        })
    }

    /// The accuracy with its interval, over the questions of the confusion matrix; none without
    /// one.
    #[must_use]
    pub fn interval(&self) -> Option<Share> {
        let n = self.confusion.iter().flatten().sum();
        let right =
            self.confusion.iter().enumerate().filter_map(|(label, row)| row.get(label)).sum();
        (n > 0).then(|| Share::of(right, n))
    }
}

/// What the errors of the router in use cost in right answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RoutingErrors {
    /// Accuracy with perfect routing less accuracy with this router, over the combined test set.
    pub cost: f64,
    /// Questions that were sent to a wrong specialist.
    pub misrouted: usize,
    /// What the wrong specialists scored on those questions; absent where there are none.
    #[serde(default)]
    pub wrong_specialist: Option<Share>,
    /// What the right specialists scored on those same questions.
    #[serde(default)]
    pub right_specialist: Option<Share>,
}
