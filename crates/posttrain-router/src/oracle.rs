//! `OracleRouter`: what a perfect router would do.

use std::collections::HashMap;

use crate::{Decision, Question, Router, RouterError, TestSet, labels};

/// Knows each question's label by its id: the ceiling that a router is compared with.
///
/// ```
/// use posttrain_router::{OracleRouter, Question, Router};
///
/// let router = OracleRouter::new(["math", "social"], [("q1", "social")])?;
/// assert_eq!(router.route(&[Question::new("q1", "?")])?[0].label, 1);
/// assert!(router.route(&[Question::new("q2", "?")]).is_err());
/// # Ok::<(), posttrain_router::RouterError>(())
/// ```
#[derive(Debug, Clone)]
pub struct OracleRouter {
    labels: Vec<String>,
    truth: HashMap<String, usize>,
}

impl OracleRouter {
    /// A router that knows these questions' labels, as (id, label).
    ///
    /// # Errors
    /// [`RouterError::InvalidLabels`]; [`RouterError::UnknownLabel`]; [`RouterError::BadAnswer`]
    /// for an id of two labels.
    pub fn new<Id: Into<String>>(
        labels: impl IntoIterator<Item = impl Into<String>>,
        truth: impl IntoIterator<Item = (Id, impl AsRef<str>)>,
    ) -> Result<Self, RouterError> {
        let mut oracle = Self { labels: labels::checked(labels)?, truth: HashMap::new() };
        for (id, label) in truth {
            let id = id.into();
            let label =
                labels::index(&oracle.labels, label.as_ref(), || format!("the oracle's `{id}`"))?;
            oracle.learn(id, label)?;
        }
        Ok(oracle)
    }

    /// A router that knows the test set.
    ///
    /// # Errors
    /// [`RouterError::BadAnswer`] for an id of two labels.
    pub fn of(test: &TestSet) -> Result<Self, RouterError> {
        let mut oracle = Self { labels: test.labels().to_vec(), truth: HashMap::new() };
        let mut rows = test.questions().iter().zip(test.truth());
        rows.try_for_each(|(question, &label)| oracle.learn(question.id.clone(), label))?;
        Ok(oracle)
    }

    fn learn(&mut self, id: String, label: usize) -> Result<(), RouterError> {
        match self.truth.get(&id) {
            Some(&known) if known != label => {
                let got =
                    format!("`{}` and `{}` of `{id}`", self.labels[known], self.labels[label]);
                Err(RouterError::answer("oracle", "the truth", got, "one label a question"))
            }
            _ => {
                self.truth.insert(id, label);
                Ok(())
            }
        }
    }
}

impl Router for OracleRouter {
    fn name(&self) -> &str {
        "oracle"
    }

    fn labels(&self) -> &[String] {
        &self.labels
    }

    fn route(&self, questions: &[Question]) -> Result<Vec<Decision>, RouterError> {
        questions
            .iter()
            .map(|question| {
                let label = self.truth.get(&question.id).ok_or_else(|| RouterError::UnknownId {
                    router: "oracle".to_owned(),
                    id: question.id.clone(),
                })?;
                Ok(Decision::certain(*label, self.labels.len(), 0.0))
            })
            .collect()
    }
}
