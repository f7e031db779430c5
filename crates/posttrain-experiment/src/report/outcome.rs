//! The outcome: routed specialists against the generalist.

use posttrain_statistics::Share;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Routed specialists against the generalist on the same questions. Made by
/// [`head_to_head`](crate::head_to_head); `oracle` and `per_domain` are added by who has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeadToHead {
    /// The specialists behind the router.
    pub routed: Share,
    /// The specialists with perfect routing.
    #[serde(default)]
    pub oracle: Option<Share>,
    /// The generalist.
    pub generalist: Share,
    /// Accuracy of routed less that of the generalist: positive is for the specialists.
    pub difference: f64,
    /// The lower end of the difference's 95% bootstrap interval, paired by question.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// Two-sided p of McNemar's exact test that both are equally often right.
    pub mcnemar_p: f64,
    /// The same with the observed outcome counted by half, which is less conservative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcnemar_mid_p: Option<f64>,
    /// Questions that only the routed specialists got right.
    #[serde(default)]
    pub routed_only: usize,
    /// Questions that only the generalist got right.
    #[serde(default)]
    pub generalist_only: usize,
    /// Questions left out, since the verdict on either side failed.
    #[serde(default)]
    pub left_out: usize,
    /// The same sides on each domain's questions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub per_domain: BTreeMap<String, DomainOutcome>,
}

/// The sides of the head-to-head on one domain's questions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DomainOutcome {
    /// The specialists behind the router.
    pub routed: Share,
    /// The specialists with perfect routing.
    #[serde(default)]
    pub oracle: Option<Share>,
    /// The generalist.
    pub generalist: Share,
}

/// The outcome of the same experiment under another seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedOutcome {
    /// The seed.
    pub seed: u64,
    /// Its head-to-head.
    pub head_to_head: HeadToHead,
}

/// What a judge says of the same answers, beside the verifier.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JudgeReport {
    /// The judge's model.
    #[serde(default)]
    pub model: String,
    /// The head-to-head by the judge's verdicts.
    #[serde(default)]
    pub head_to_head: Option<HeadToHead>,
    /// Answers on which judge and verifier both have a verdict.
    #[serde(default)]
    pub compared: usize,
    /// Answers on which the judge failed.
    #[serde(default)]
    pub failed: usize,
    /// Share of the compared on which they agree.
    #[serde(default)]
    pub agreement: Option<f64>,
    /// Cohen's κ: agreement beyond chance.
    #[serde(default)]
    pub kappa: Option<f64>,
    /// Answers that the judge calls right and the verifier wrong.
    #[serde(default)]
    pub judge_alone: usize,
    /// Answers that the verifier calls right and the judge wrong.
    #[serde(default)]
    pub verifier_alone: usize,
}
