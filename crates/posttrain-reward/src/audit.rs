//! Judge against verifier on the same completions: what optimizing the judge would optimize.

mod references;
mod table;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{RewardError, Sample, Score};

pub use references::{ReferenceCheck, ReferenceFault};
pub use table::AuditTable;

/// The domain that samples without one are shown under.
const NO_DOMAIN: &str = "(none)";

/// Configuration of an [`Audit`].
///
/// ```
/// assert_eq!(posttrain_reward::audit::AuditConfig::default().lengths, [200, 1000, 4000]);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditConfig {
    /// Where one bucket of response lengths ends and the next begins, in characters, rising.
    /// Default 200, 1000, 4000: a sentence or two, a paragraph, a page, more; this crate's choice.
    pub lengths: Vec<usize>,
    /// The least score that counts as right, more than 0 and at most 1. Default 0.5.
    pub threshold: f64,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { lengths: vec![200, 1000, 4000], threshold: 0.5 }
    }
}

impl AuditConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RewardError::InvalidConfig`] naming the first field that is out of its range.
    ///
    /// ```
    /// use posttrain_reward::audit::AuditConfig;
    ///
    /// assert!(AuditConfig { lengths: vec![5, 5], ..AuditConfig::default() }.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), RewardError> {
        let invalid =
            |field, got: String, expected| Err(RewardError::InvalidConfig { field, got, expected });
        if !self.lengths.is_sorted_by(|a, b| a < b) || self.lengths.first() == Some(&0) {
            return invalid(
                "lengths",
                format!("{:?}", self.lengths),
                "rising numbers, all more than 0",
            );
        }
        if !(self.threshold > 0.0 && self.threshold <= 1.0) {
            return invalid("threshold", self.threshold.to_string(), "more than 0 and at most 1");
        }
        Ok(())
    }

    /// An audit without samples.
    ///
    /// # Errors
    /// As in [`validate`](Self::validate).
    ///
    /// ```
    /// let audit = posttrain_reward::audit::AuditConfig::default().build()?;
    /// assert_eq!(audit.report().overall.compared(), 0);
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    pub fn build(self) -> Result<Audit, RewardError> {
        self.validate()?;
        let by_length = vec![AuditTable::default(); self.lengths.len() + 1];
        Ok(Audit {
            config: self,
            overall: AuditTable::default(),
            by_domain: BTreeMap::new(),
            by_length,
        })
    }
}

/// Collects both rewards' verdicts on the same samples. The verifier is taken for the truth; where
/// it cannot say, or either fails, the sample is counted apart and compared with nothing.
///
/// ```
/// use posttrain_reward::{Sample, Score};
/// use posttrain_reward::audit::AuditConfig;
///
/// let mut audit = AuditConfig::default().build()?;
/// let sample = Sample::new("2 + 2?", "4", "5, as the reference says");
/// for (judge, verifier) in [(true, true), (true, false), (false, false), (false, false)] {
///     audit.add(&sample, &Ok(Score::binary(judge)), &Ok(Score::binary(verifier)));
/// }
/// let report = audit.report();
/// assert_eq!(report.overall.agreement(), Some(0.75));
/// assert_eq!(report.overall.false_positives().share, 1.0 / 3.0);
/// println!("{report}");
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Audit {
    config: AuditConfig,
    overall: AuditTable,
    by_domain: BTreeMap<String, AuditTable>,
    by_length: Vec<AuditTable>,
}

impl Audit {
    /// Adds what judge and verifier said about a sample.
    ///
    /// ```
    /// use posttrain_reward::{RewardError, Sample, Score};
    /// use posttrain_reward::audit::AuditConfig;
    ///
    /// let mut audit = AuditConfig::default().build()?;
    /// let failed = Err(RewardError::Cancelled { reward: "judge".into() });
    /// audit.add(&Sample::default(), &failed, &Ok(Score::binary(true)));
    /// assert_eq!((audit.report().overall.judge_failed, audit.report().overall.compared()), (1, 0));
    /// # Ok::<(), RewardError>(())
    /// ```
    pub fn add(
        &mut self,
        sample: &Sample,
        judge: &Result<Score, RewardError>,
        verifier: &Result<Score, RewardError>,
    ) {
        let right = |score: &Result<Score, RewardError>| {
            score.as_ref().ok().map(|s| s.value() >= self.config.threshold)
        };
        let verdicts = (right(judge), right(verifier));
        let length = sample.response.chars().count();
        let bucket = self.config.lengths.partition_point(|edge| *edge <= length);
        let domain = if sample.domain.is_empty() { NO_DOMAIN } else { &sample.domain };
        self.overall.add(verdicts);
        self.by_domain.entry(domain.to_owned()).or_default().add(verdicts);
        self.by_length[bucket].add(verdicts);
    }

    /// What was found so far.
    ///
    /// ```
    /// let report = posttrain_reward::audit::AuditConfig::default().build()?.report();
    /// assert_eq!(serde_json::to_value(&report).unwrap()["overall"]["both_right"], 0);
    /// # Ok::<(), posttrain_reward::RewardError>(())
    /// ```
    #[must_use]
    pub fn report(&self) -> AuditReport {
        let edges = &self.config.lengths;
        let name = |bucket: usize| match (
            bucket.checked_sub(1).map(|before| edges[before]),
            edges.get(bucket),
        ) {
            (None, None) => "all".to_owned(),
            (None, Some(end)) => format!("under {end}"),
            (Some(start), Some(end)) => format!("{start} to {}", end - 1),
            (Some(start), None) => format!("{start} or more"),
        };
        let by_length =
            self.by_length.iter().enumerate().map(|(bucket, table)| (name(bucket), table.clone()));
        let by_domain =
            self.by_domain.iter().map(|(domain, table)| (domain.clone(), table.clone()));
        let named = |(name, table)| AuditGroup { name, table };
        AuditReport {
            overall: self.overall.clone(),
            by_domain: by_domain.map(named).collect(),
            by_length: by_length.map(named).collect(),
        }
    }
}

/// A domain or a bucket of lengths.
///
/// ```
/// let report = posttrain_reward::audit::AuditConfig::default().build()?.report();
/// assert_eq!(report.by_length[0].name, "under 200");
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditGroup {
    /// Its name.
    pub name: String,
    /// What was found in it.
    #[serde(flatten)]
    pub table: AuditTable,
}

/// What an [`Audit`] found; serializes to `audit.json`, shown as a table.
///
/// ```
/// let report = posttrain_reward::audit::AuditConfig::default().build()?.report();
/// assert!(report.to_string().contains("kappa"));
/// # Ok::<(), posttrain_reward::RewardError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditReport {
    /// Over all samples.
    pub overall: AuditTable,
    /// By domain, sorted.
    pub by_domain: Vec<AuditGroup>,
    /// By length of the response, in characters, rising.
    pub by_length: Vec<AuditGroup>,
}

impl fmt::Display for AuditReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = || self.by_domain.iter().chain(&self.by_length);
        let width =
            groups().map(|group| group.name.chars().count()).chain([10]).max().unwrap_or(10);
        let heads = [
            "n",
            "agree",
            "kappa",
            "judge says right, verifier wrong",
            "judge says wrong, verifier right",
            "failed",
        ];
        let [n, agree, kappa, positive, negative, failed] = heads;
        writeln!(
            out,
            "{:width$} {n:>7} {agree:>6} {kappa:>6}  {positive:32}  {negative:32} {failed:>6}",
            ""
        )?;
        let mut row = |name: &str, table: &AuditTable| writeln!(out, "{name:width$} {table}");
        row("all", &self.overall)?;
        groups()
            .filter(|group| group.table.seen() > 0)
            .try_for_each(|group| row(&group.name, &group.table))
    }
}
