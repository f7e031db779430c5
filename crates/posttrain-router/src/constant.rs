//! `ConstantRouter`: always the same label.

use crate::{Decision, Question, Router, RouterError, labels};

/// Sends every question to one label: the floor that a router must be above, and a stand-in.
///
/// ```
/// use posttrain_router::{ConstantRouter, Question, Router};
///
/// let router = ConstantRouter::new(["math", "social"], "math")?;
/// assert_eq!(router.route(&[Question::new("q", "")])?[0].probabilities, [1.0, 0.0]);
/// assert!(ConstantRouter::new(["math"], "history").is_err());
/// # Ok::<(), posttrain_router::RouterError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ConstantRouter {
    labels: Vec<String>,
    label: usize,
}

impl ConstantRouter {
    /// A router to `label`, one of `labels`.
    ///
    /// # Errors
    /// [`RouterError::InvalidLabels`], [`RouterError::UnknownLabel`].
    pub fn new(
        labels: impl IntoIterator<Item = impl Into<String>>,
        label: &str,
    ) -> Result<Self, RouterError> {
        let labels = labels::checked(labels)?;
        let label = labels::index(&labels, label, || "the constant router's label".to_owned())?;
        Ok(Self { labels, label })
    }
}

impl Router for ConstantRouter {
    fn name(&self) -> &str {
        "constant"
    }

    fn labels(&self) -> &[String] {
        &self.labels
    }

    fn route(&self, questions: &[Question]) -> Result<Vec<Decision>, RouterError> {
        Ok(vec![Decision::certain(self.label, self.labels.len(), 0.0); questions.len()])
    }
}
