//! What can go wrong in an experiment.

use std::path::{Path, PathBuf};

/// An error of this crate. Its fields are data, so that a caller can act on them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExperimentError {
    /// Two lists of verdicts that are compared question by question differ in length.
    #[error("`{argument}`: expected one for each of {expected} questions, got {got}")]
    Unpaired {
        /// The argument.
        argument: &'static str,
        /// Questions.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// A comparison failed.
    #[error(transparent)]
    Statistics(#[from] posttrain_statistics::StatisticsError),
    /// A confusion matrix is not square, or does not fit its labels.
    #[error(
        "confusion matrix: expected {labels} rows of {labels} counts, as there are labels; row {row} has {got}"
    )]
    Confusion {
        /// How many labels there are.
        labels: usize,
        /// The first row that does not fit, from 0; the number of rows where that is what does not
        /// fit.
        row: usize,
        /// Its counts.
        got: usize,
    },
    /// A report's text is not of the report's form.
    #[error("{origin}: `{field}`, line {line}: not of the form that was expected")]
    Format {
        /// The file, or `report` where it came as text.
        origin: String,
        /// The path of the field, such as `models.math.steps`.
        field: String,
        /// The line, from 1; 0 where the report never was text.
        line: usize,
        /// The parser's answer.
        #[source]
        source: serde_json::Error,
    },
    /// A configuration file is not of its form.
    #[error("{path}: {reason}", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// A cluster's scheduler refuses a job, or is not there.
    #[error("slurm: {reason}")]
    Slurm {
        /// What it says.
        reason: String,
    },
    /// A Kubernetes cluster refuses an object, or is not there.
    #[error("kubernetes: {reason}")]
    Kubernetes {
        /// What it says.
        reason: String,
    },
    /// A field is out of its range.
    #[error("config: `{field}` must be {expected}, got {got}")]
    Field {
        /// The field.
        field: &'static str,
        /// What was expected.
        expected: &'static str,
        /// What came.
        got: String,
    },
    /// Specialists and generalist would not see the same examples equally often.
    #[error(
        "specialists and generalist would see {unequal} examples unequally often: {seen} questions (rl.steps · rl.prompts) must be a multiple of the {rows} training examples of a domain (data.sizes.train)"
    )]
    UnequalData {
        /// Examples that one side would see more often than the other.
        unequal: usize,
        /// Questions that a specialist is asked.
        seen: u64,
        /// Training examples of a domain.
        rows: u64,
    },
    /// No arm has this name.
    #[error("there is no arm `{name}`; there are: {}", names.join(", "))]
    NoArm {
        /// The name.
        name: String,
        /// Those that there are.
        names: Vec<String>,
    },
    /// The folder holds a run of another configuration.
    #[error("{path}: the run was begun with another configuration ({difference}); give another folder", path = path.display())]
    OtherRun {
        /// The kept configuration.
        path: PathBuf,
        /// The first field that differs, as it was and as it is.
        difference: posttrain_store::Difference,
    },
    /// Another folder's report is not of the same experiment under another seed.
    #[error("{path}: expected a report of the same experiment under another seed; {reason}", path = path.display())]
    OtherExperiment {
        /// The other folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An arm's process could not be started or watched.
    #[error("arm `{arm}`: its process cannot be started")]
    Process {
        /// The arm.
        arm: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Reading or splitting the data failed.
    #[error(transparent)]
    Data(#[from] posttrain_data::DataError),
    /// A reward could not be built, or its runner failed.
    #[error(transparent)]
    Reward(#[from] posttrain_reward::RewardError),
    /// A chat model could not be built.
    #[error(transparent)]
    Chat(#[from] posttrain_chat::ChatError),
    /// A router could not be fitted or asked.
    #[error(transparent)]
    Router(#[from] posttrain_router::RouterError),
    /// Training or evaluation failed.
    #[error(transparent)]
    Recipe(#[from] posttrain_recipes::RecipeError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] posttrain_model::ModelError),
    /// A file of the run failed.
    #[error(transparent)]
    Store(#[from] posttrain_store::StoreError),
    /// A file could not be read.
    #[error("{path} cannot be read or written", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl ExperimentError {
    /// `Ok` if a field is in its range, else the error that names it.
    pub(crate) fn check(
        field: &'static str,
        ok: bool,
        expected: &'static str,
        got: &(impl ToString + ?Sized),
    ) -> Result<(), Self> {
        if ok { Ok(()) } else { Err(Self::Field { field, expected, got: got.to_string() }) }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
