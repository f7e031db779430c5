//! The report of an experiment: `report.json`, as a type.

mod data;
mod findings;
mod model;
mod origin;
mod outcome;
mod router;
mod sample;
mod wall_clock;

pub use data::{DataSummary, SplitCounts};
pub use findings::{Finding, findings};
pub use model::{BaseReport, CurvePoint, MissingModel, ModelReport};
pub use origin::{Machine, Provenance};
pub use outcome::{DomainOutcome, HeadToHead, JudgeReport, SeedOutcome};
pub use router::{RouterSummary, RoutingErrors};
pub use sample::AnswerSample;
pub use wall_clock::{TimelinePhase, TimelineSpan, WallClock};

use crate::ExperimentError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything that an experiment found. Parts that a run has not are absent, and keys that are not
/// known are ignored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The configuration as resolved.
    #[serde(default)]
    pub config: serde_json::Value,
    /// What the models saw.
    #[serde(default)]
    pub data: DataSummary,
    /// The trained models, by name.
    #[serde(default)]
    pub models: BTreeMap<String, ModelReport>,
    /// The untrained base.
    #[serde(default)]
    pub base: Option<BaseReport>,
    /// The routers, by name; calibrated and uncalibrated are two.
    #[serde(default)]
    pub router: BTreeMap<String, RouterSummary>,
    /// The router that the head-to-head used.
    #[serde(default)]
    pub router_used: Option<String>,
    /// What its errors cost.
    #[serde(default)]
    pub routing_errors: Option<RoutingErrors>,
    /// The outcome; absent where a model is missing.
    #[serde(default)]
    pub head_to_head: Option<HeadToHead>,
    /// The outcomes of several seeds, this run's among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seeds: Vec<SeedOutcome>,
    /// Time; absent where a model is missing.
    #[serde(default)]
    pub wall_clock: Option<WallClock>,
    /// When each arm did what.
    #[serde(default)]
    pub timeline: Vec<TimelineSpan>,
    /// What a judge says; absent where none is configured.
    #[serde(default)]
    pub judge: Option<JudgeReport>,
    /// What the experiment that this one repeats has found, asked of this run: [`findings`].
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// Ten answers a model, and of the base.
    #[serde(default)]
    pub samples: Vec<AnswerSample>,
    /// Models whose training did not finish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingModel>,
    /// The machine.
    #[serde(default)]
    pub machine: Machine,
    /// The program and the seed.
    #[serde(default)]
    pub provenance: Provenance,
}

impl Report {
    /// Reads a report.
    ///
    /// ```
    /// use posttrain_experiment::Report;
    ///
    /// assert_eq!(Report::from_json("{}")?, Report::default());
    /// let error = Report::from_json(r#"{"models": {"math": {"steps": "ten"}}}"#).unwrap_err();
    /// assert!(error.to_string().starts_with("report: `models.math.steps`, line 1: not of the form"));
    /// let source = std::error::Error::source(&error).unwrap();
    /// assert!(source.to_string().starts_with("invalid type: string"));
    /// # Ok::<(), posttrain_experiment::ExperimentError>(())
    /// ```
    ///
    /// # Errors
    /// [`ExperimentError::Format`] names the field and the line.
    pub fn from_json(text: &str) -> Result<Self, ExperimentError> {
        Self::parse("report", text)
    }

    /// The report as JSON, indented.
    ///
    /// # Errors
    /// [`ExperimentError::Format`] names a number that is not finite, for which JSON has no form.
    pub fn to_json(&self) -> Result<String, ExperimentError> {
        let text =
            serde_json::to_string_pretty(self).map_err(|source| ExperimentError::Format {
                origin: "report".into(),
                field: "config".into(),
                line: 0,
                source,
            })?;

        // A number that is not finite is written as null, which is not a number.
        Self::parse("report", &text)?;
        Ok(text)
    }

    /// The models' names: specialists first, each kind by name.
    ///
    /// ```
    /// use posttrain_experiment::{ModelReport, Report};
    ///
    /// let model = |domains: &[&str]| ModelReport {
    ///     domains: domains.iter().map(|d| d.to_string()).collect(),
    ///     ..ModelReport::default()
    /// };
    /// let models = [("all".to_owned(), model(&["math", "social"])), ("social".to_owned(), model(&["social"]))];
    /// assert_eq!(Report { models: models.into(), ..Report::default() }.model_names(), ["social", "all"]);
    /// ```
    pub fn model_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.models.keys().map(String::as_str).collect();
        names.sort_by_key(|name| self.models[*name].domains.len());
        names
    }

    /// The domains of the data and of the tests, by name.
    pub fn domains(&self) -> Vec<&str> {
        let tested = self.models.values().flat_map(|model| model.test.keys());
        let base = self.base.iter().flat_map(|base| base.test.keys());
        let mut domains: Vec<&str> =
            self.data.per_domain.keys().chain(tested).chain(base).map(String::as_str).collect();

        domains.sort_unstable();
        domains.dedup();
        domains
    }

    pub(crate) fn parse(origin: &str, text: &str) -> Result<Self, ExperimentError> {
        let mut json = serde_json::Deserializer::from_str(text);
        let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            ExperimentError::Format {
                origin: origin.to_owned(),
                field: error.path().to_string(),
                line: error.inner().line(),
                source: error.into_inner(),
            }
        })?;

        json.end().map_err(|source| ExperimentError::Format {
            origin: origin.to_owned(),
            field: ".".to_owned(),
            line: source.line(),
            source,
        })?;
        Ok(parsed)
    }
}
