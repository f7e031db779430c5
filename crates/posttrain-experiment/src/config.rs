//! What an experiment is: every number that its outcome depends on, from one file.

use crate::{ExperimentError, RouterConfig};
use posttrain_data::{
    Columns, Dataset, ReadConfig, SplitConfig, SplitSizes, Splits, read, read_all, sciences, split,
};
use posttrain_recipes::{ModelSource, PromptStyle, RlConfig};
use posttrain_reward::RewardConfig;
use posttrain_reward::judge::{JudgeConfig, Served};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// An experiment: specialists and a generalist under the same hyperparameters on the same data.
///
/// ```
/// use posttrain_experiment::ExperimentConfig;
///
/// let config: ExperimentConfig = toml::from_str("seed = 7\n[model]\npath = \"m\"\n[data]\ndataset = \"sciences\"\n[rl]\nsteps = 20\nprompts = 16")?;
/// assert_eq!(config.resolved().rl.seed, 7);
/// let error = toml::from_str::<ExperimentConfig>("sed = 7").unwrap_err();
/// assert!(error.to_string().contains("unknown field `sed`"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentConfig {
    /// Seed of training, sampling and evaluation; `rl.seed` follows it.
    pub seed: u64,
    /// The base.
    pub model: ModelSource,
    /// Where the questions come from.
    pub data: DataConfig,
    /// How they are put, to every model alike.
    #[serde(default)]
    pub prompt: PromptStyle,
    /// What an answer is worth.
    #[serde(default)]
    pub reward: RewardConfig,
    /// Who is trained.
    #[serde(default)]
    pub arms: ArmsConfig,
    /// The hyperparameters of every arm. `steps` and `evaluation.every` are a specialist's; the
    /// generalist takes as many times more of both as there are specialists. `evaluation.examples`
    /// is so many of each domain.
    #[serde(default)]
    pub rl: RlConfig,
    /// Who sends questions to the specialists.
    #[serde(default)]
    pub routing: RoutingConfig,
    /// What is tested.
    #[serde(default)]
    pub test: TestConfig,
    /// A judge that sees the answers of both sides beside the verifier; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<Served<JudgeConfig>>,
}

/// Where questions come from, and how they are divided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// `sciences` (the built-in set), a JSONL or Parquet file, or a folder of such files.
    pub dataset: PathBuf,
    /// Seed of the built-in set and of the splits.
    #[serde(default)]
    pub seed: u64,
    /// Rows of each domain in each split.
    #[serde(default)]
    pub sizes: SplitSizes,
    /// Which column of a file is which field.
    #[serde(default)]
    pub columns: Columns,
}

/// Who is trained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ArmsConfig {
    /// The domains that have a specialist each, of the same name; all of the data's where empty.
    pub specialists: Vec<String>,
    /// The name of the model that is trained on all of those domains.
    pub generalist: String,
}

impl Default for ArmsConfig {
    fn default() -> Self {
        Self { specialists: Vec::new(), generalist: "generalist".into() }
    }
}

/// Who sends questions to the specialists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoutingConfig {
    /// The name of the router that stands before the specialists in the head-to-head, one of
    /// `routers`' names.
    pub used: String,
    /// The model on this machine that routers ask; the base where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSource>,
    /// All routers that are measured on the test set.
    pub routers: Vec<RouterConfig>,
}

impl Default for RoutingConfig {
    /// The untrained base as a router, as in the experiment that this one repeats, with and without
    /// calibration; n-grams and keywords beside it.
    fn default() -> Self {
        Self { used: "likelihood".into(), model: None, routers: RouterConfig::usual() }
    }
}

/// What is tested.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TestConfig {
    /// Whether the most probable answer is tested beside the sampled one.
    pub greedy: bool,
}

impl ExperimentConfig {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`ExperimentError::Io`], or [`ExperimentError::Config`] with the file, the line and what is
    /// wrong there.
    pub fn read(path: &Path) -> Result<Self, ExperimentError> {
        let text = std::fs::read_to_string(path).map_err(ExperimentError::io(path))?;
        toml::from_str(&text)
            .map_err(|e| ExperimentError::Config { path: path.into(), reason: e.to_string() })
    }

    /// The same with what follows from other fields filled in.
    #[must_use]
    pub fn resolved(mut self) -> Self {
        self.rl.seed = self.seed;
        self
    }

    /// Checks every field's range.
    ///
    /// # Errors
    /// The first field that is out of range is named.
    pub fn validate(&self) -> Result<(), ExperimentError> {
        self.rl.validate()?;
        let seed = self.rl.seed;
        let field = |field, expected, got: String| ExperimentError::Field { field, expected, got };

        if seed != 0 && seed != self.seed {
            return Err(field(
                "rl.seed",
                "left out: the experiment's `seed` is taken",
                seed.to_string(),
            ));
        }

        if self.data.sizes.test == 0
            || self.data.sizes.validation == 0
            || self.data.sizes.train == 0
        {
            return Err(field(
                "data.sizes",
                "at least one row in every split",
                format!("{:?}", self.data.sizes),
            ));
        }

        if self.rl.evaluation.examples == Some(0) {
            return Err(field(
                "rl.evaluation.examples",
                "at least 1: the best step is chosen by them",
                "0".into(),
            ));
        }

        let names: Vec<&str> = self.routing.routers.iter().map(RouterConfig::name).collect();
        if let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
            return Err(field(
                "routing.routers",
                "names that differ",
                format!("`{}` twice", twice.1),
            ));
        }
        if !names.contains(&self.routing.used.as_str()) {
            let got = format!("`{}`; there are: {}", self.routing.used, names.join(", "));
            return Err(field("routing.used", "the name of one of `routing.routers`", got));
        }

        Ok(())
    }
}

impl DataConfig {
    /// The examples, divided.
    ///
    /// # Errors
    /// What is wrong with the files, or that a domain has too few rows.
    pub fn splits(&self) -> Result<Splits, ExperimentError> {
        Ok(split(&self.examples()?, &SplitConfig { sizes: self.sizes, seed: self.seed })?)
    }

    fn examples(&self) -> Result<Dataset, ExperimentError> {
        if self.dataset == Path::new("sciences") {
            return Ok(sciences::generate(self.seed)?);
        }

        let config = ReadConfig::new(self.columns.clone());
        if self.dataset.is_dir() {
            return Ok(read_all(&self.files()?, &config)?);
        }
        Ok(read(&self.dataset, &config)?)
    }

    /// The folder's JSONL and Parquet files, by name.
    fn files(&self) -> Result<Vec<PathBuf>, ExperimentError> {
        let folder = &self.dataset;
        let entries = std::fs::read_dir(folder).map_err(ExperimentError::io(folder))?;
        let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|e| e.path())).collect();
        let mut files = paths.map_err(ExperimentError::io(folder))?;
        files.retain(|path| path.extension().is_some_and(|e| e == "jsonl" || e == "parquet"));
        files.sort();

        if files.is_empty() {
            let expected = "a folder with .jsonl or .parquet files";
            return Err(ExperimentError::Field {
                field: "data.dataset",
                expected,
                got: folder.display().to_string(),
            });
        }

        Ok(files)
    }
}
