//! What models answered on the test split, kept in their folders.

use crate::ExperimentError;
use posttrain_recipes::Answer;
use posttrain_statistics::Share;
use posttrain_store::{read_json_if_there, write_json};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One model's answers to the combined test split, in its order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestAnswers {
    /// One answer a question at temperature 1.
    pub sampled: Vec<Answer>,
    /// The most probable answer to each; absent where it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub greedy: Option<Vec<Answer>>,
    /// Seconds that it took.
    pub seconds: f64,
}

impl TestAnswers {
    /// Reads a model's answers; none where it was not tested yet.
    ///
    /// # Errors
    /// [`ExperimentError::Store`] with file, field and line.
    pub fn read(folder: &Path) -> Result<Option<Self>, ExperimentError> {
        Ok(read_json_if_there(&path(folder))?)
    }

    /// Writes them, whole or not at all.
    ///
    /// # Errors
    /// [`ExperimentError::Store`].
    pub fn write(&self, folder: &Path) -> Result<(), ExperimentError> {
        Ok(write_json(&path(folder), self)?)
    }

    /// Whether each sampled answer is right; `None` where there is no verdict.
    #[must_use]
    pub fn verdicts(&self) -> Vec<Option<bool>> {
        verdicts(&self.sampled)
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("test.json")
}

pub(crate) fn verdicts(answers: &[Answer]) -> Vec<Option<bool>> {
    answers.iter().map(Answer::is_right).collect()
}

/// Each domain's accuracy.
pub(crate) fn by_domain(answers: &[Answer]) -> BTreeMap<String, Share> {
    let mut verdicts: BTreeMap<String, Vec<Option<bool>>> = BTreeMap::new();
    for answer in answers {
        verdicts.entry(answer.domain.clone()).or_default().push(answer.is_right());
    }
    verdicts.into_iter().map(|(domain, verdicts)| (domain, Share::of_verdicts(&verdicts))).collect()
}
