//! What the models saw.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The data of an experiment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DataSummary {
    /// Each domain's examples, by split.
    #[serde(default)]
    pub per_domain: BTreeMap<String, SplitCounts>,
    /// How many examples each model was trained on, repetitions counted: a generalist has the sum
    /// of the specialists'.
    #[serde(default)]
    pub examples_seen: BTreeMap<String, u64>,
}

/// How many examples each split has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitCounts {
    /// To train on.
    pub train: usize,
    /// To choose the checkpoint by, and to tune the router on.
    pub validation: usize,
    /// To report.
    pub test: usize,
}
