//! The examples in a prompt.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Question, RouterError, TrainSet, labels};

/// A question with its label, shown to a language model.
///
/// ```
/// let shot = posttrain_router::LabeledQuestion { question: "7 + 5?".into(), label: "math".into() };
/// assert_eq!(shot.label, "math");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabeledQuestion {
    /// What is asked.
    pub question: String,
    /// One of the labels.
    pub label: String,
}

/// Where the examples in a prompt come from.
///
/// ```
/// assert_eq!(posttrain_router::Shots::default(), posttrain_router::Shots::Drawn { per_label: 1, seed: 0 });
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Shots {
    /// From the training set, in turns of one a label.
    Drawn {
        /// Examples of each label; 0 for none at all.
        per_label: usize,
        /// The same seed draws the same examples of the same training set.
        seed: u64,
    },
    /// These, in this order.
    Given {
        /// The examples.
        shots: Vec<LabeledQuestion>,
    },
}

impl Default for Shots {
    /// One of each label.
    fn default() -> Self {
        Self::Drawn { per_label: 1, seed: 0 }
    }
}

impl Shots {
    pub(crate) fn validate(&self, known: &[String]) -> Result<(), RouterError> {
        let Self::Given { shots } = self else { return Ok(()) };
        let mut shots = shots.iter().enumerate();
        shots.try_for_each(|(at, shot)| {
            labels::index(known, &shot.label, || format!("shot {}", at + 1)).map(|_| ())
        })
    }
}

/// The shots of a configuration that needs no training set.
pub(crate) fn given(shots: &Shots) -> Result<&[LabeledQuestion], RouterError> {
    match shots {
        Shots::Given { shots } => Ok(shots),
        Shots::Drawn { per_label: 0, .. } => Ok(&[]),
        Shots::Drawn { .. } => {
            Err(RouterError::config("shots", "drawn", "given ones, or `fit` with a training set"))
        }
    }
}

/// The shots of a configuration, drawn from the training set where it says so.
pub(crate) fn from_train(
    shots: &Shots,
    train: &TrainSet,
) -> Result<Vec<LabeledQuestion>, RouterError> {
    let &Shots::Drawn { per_label, seed } = shots else { return Ok(given(shots)?.to_vec()) };
    let drawn: Vec<Vec<&Question>> = (0..train.labels().len())
        .map(|label| draw(train, label, per_label, seed))
        .collect::<Result<_, _>>()?;

    let turn = |at: usize| {
        let shot = move |(questions, label): (&Vec<&Question>, &String)| LabeledQuestion {
            question: questions[at].text.clone(),
            label: label.clone(),
        };
        drawn.iter().zip(train.labels()).map(shot)
    };

    Ok((0..per_label).flat_map(turn).collect())
}

/// The questions of one label whose names' digests under the seed are the least.
fn draw(
    train: &TrainSet,
    label: usize,
    needed: usize,
    seed: u64,
) -> Result<Vec<&Question>, RouterError> {
    let rows = train.questions().iter().zip(train.truth());
    let mut questions: Vec<&Question> =
        rows.filter(|(_, truth)| **truth == label).map(|(question, _)| question).collect();
    if questions.len() < needed {
        return Err(RouterError::TooFewExamples {
            split: "training",
            label: train.labels()[label].clone(),
            needed,
            got: questions.len(),
        });
    }

    questions.sort_by_cached_key(|question| {
        let digest = Sha256::new()
            .chain_update(b"posttrain-router shots\0")
            .chain_update(seed.to_le_bytes());
        digest.chain_update(question.id.as_bytes()).finalize()
    });
    questions.truncate(needed);
    Ok(questions)
}
