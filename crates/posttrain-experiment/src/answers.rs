//! What models answered on the test split, kept in their folders.

use crate::folder::replace;
use crate::{Accuracy, ExperimentError};
use posttrain_train::Answer;
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
    /// [`ExperimentError::Io`], or [`ExperimentError::Format`] with file, field and line.
    pub fn read(folder: &Path) -> Result<Option<Self>, ExperimentError> {
        read_json(&path(folder))
    }

    /// Writes them, whole or not at all.
    ///
    /// # Errors
    /// [`ExperimentError::Io`].
    pub fn write(&self, folder: &Path) -> Result<(), ExperimentError> {
        write_json(&path(folder), self)
    }

    /// Whether each sampled answer is right; `None` where there is no verdict.
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
pub(crate) fn by_domain(answers: &[Answer]) -> BTreeMap<String, Accuracy> {
    let mut verdicts: BTreeMap<String, Vec<Option<bool>>> = BTreeMap::new();
    for answer in answers {
        verdicts.entry(answer.domain.clone()).or_default().push(answer.is_right());
    }
    verdicts.into_iter().map(|(domain, verdicts)| (domain, Accuracy::of(&verdicts))).collect()
}

/// A value from a JSON file; none where there is no file.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, ExperimentError> {
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).map_err(ExperimentError::io(path))?;
    let read = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(&text));
    read.map(Some).map_err(|error| {
        let (field, source) = (error.path().to_string(), error.into_inner());
        ExperimentError::Format { origin: path.display().to_string(), field, line: source.line(), source }
    })
}

/// Writes a value as a JSON file, whole or not at all; its folder is made if it is not there.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), ExperimentError> {
    let text = serde_json::to_string(value).map_err(|source| {
        let origin = path.display().to_string();
        ExperimentError::Format { origin, field: String::new(), line: 0, source }
    })?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(ExperimentError::io(folder))?;
    }
    replace(path, &(text + "\n"))
}
