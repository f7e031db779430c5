//! What the files of a store say.

use super::path::CheckpointPath;
use crate::refusal::Refusal;
use chrono::{DateTime, Utc};
use posttrain_lora::{LoraConfig, TargetModules};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Which layers of a model are trained, and in what rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoraSpec {
    pub rank: i64,
    pub train_attn: bool,
    pub train_mlp: bool,
    pub train_unembed: bool,
}

/// α of every adapter; its scale is 32 over its rank, as SkyRL's and the cookbook's.
const ALPHA: f64 = 32.0;

impl LoraSpec {
    /// The adapter's shape on a model of these modules. An unembedding that is the embedding has no
    /// layer of its own to adapt, and is left as it is.
    pub fn lora(&self, modules: &[posttrain_lora::ModuleSpec]) -> Result<LoraConfig, Refusal> {
        let mut names: Vec<String> = Vec::new();
        for module in modules {
            let wanted = match module {
                module if module.head => self.train_unembed,
                module if module.path.contains(".self_attn.") => self.train_attn,
                _ => self.train_mlp,
            };
            let name = module.name().to_owned();
            if wanted && !names.contains(&name) {
                names.push(name);
            }
        }

        if names.is_empty() {
            let detail = "`lora_config`: expected `train_attn`, `train_mlp` or `train_unembed` with a layer to train, got none (this model's unembedding may be its embedding, which has no adapter)";
            return Err(Refusal::invalid(detail));
        }
        Ok(LoraConfig {
            rank: self.rank,
            alpha: ALPHA,
            target_modules: TargetModules::Names(names),
            ..LoraConfig::default()
        })
    }
}

/// A training run: a model that somebody created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunRecord {
    pub id: String,
    pub session: String,
    pub base_model: String,
    pub lora: LoraSpec,
    pub seed: u64,
    #[serde(default)]
    pub user_metadata: Map<String, Value>,
    pub created: DateTime<Utc>,
    pub last_request: DateTime<Utc>,
}

/// A checkpoint, as its folder says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckpointRecord {
    pub path: CheckpointPath,
    /// The request that asked for it, whose answer it is.
    pub request: String,
    pub base_model: String,
    pub lora: LoraSpec,
    pub seed: u64,
    /// Optimizer steps that made it.
    pub step: u64,
    pub created: DateTime<Utc>,
    #[serde(default)]
    pub expires: Option<DateTime<Utc>>,
    #[serde(default)]
    pub user_metadata: Map<String, Value>,
    #[serde(default)]
    pub bytes: u64,
}

/// What an orderly end keeps of a model in training, beside the trainer's own state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LiveRecord {
    /// The requests that have been applied.
    pub applied: Vec<i64>,
}

/// A session, as the file of all of them says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionRecord {
    pub id: String,
    pub owner: String,
    pub created: DateTime<Utc>,
    pub sdk_version: String,
    pub tags: Vec<String>,
    #[serde(default)]
    pub display_name: Option<String>,
    #[serde(default)]
    pub user_metadata: Map<String, Value>,
    /// What its client said when it had done: `success`, `errored` or `interrupted`.
    #[serde(default)]
    pub finished: Option<String>,
}
