//! Where a report comes from.

use serde::{Deserialize, Serialize};

/// The machine that trained.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Cores that could be used.
    pub cores: usize,
    /// The device, such as `cpu` or `cuda:0`.
    pub device: String,
    /// The kind that the model computes in, such as `bf16`.
    pub kind: String,
    /// The processor's or the accelerator's name, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The program and the seed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The version of this workspace.
    pub version: String,
    /// The run's seed.
    pub seed: u64,
}
