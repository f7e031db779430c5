//! What a run's policy begins as: a fresh adapter, or one that another run has trained.

use crate::checkpoint::has_states;
use crate::run::load_policy;
use crate::{Ranks, RecipeError};
use posttrain_lora::{Adapter, LoraConfig, LoraPair};
use posttrain_model::Decoder;
use posttrain_rollout::PolicySnapshot;
use posttrain_store::{StoreError, replace_folder};
use posttrain_train::{Trainer, TrainerConfig};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The adapter that a run began with, in the run's folder: going on needs it for the reference, and
/// what is named may have changed by then, or be gone.
const START: &str = "start";

/// A PEFT folder's files.
const FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// What a trainer is made of.
pub(crate) struct Start<'a> {
    pub model: &'a Arc<Decoder>,
    pub lora: &'a LoraConfig,
    /// The adapter that is begun with; none is a fresh one.
    pub adapter: Option<&'a Path>,
    pub trainer: TrainerConfig,
    pub seed: u64,
    /// The run's folder.
    pub run: &'a Path,
    /// The folder in which what it begins with is kept.
    pub folder: &'a Path,
}

impl Start<'_> {
    /// A trainer before its first step. An adapter that it begins with is its reference policy, too,
    /// and is kept in the run's folder.
    pub fn trainer(&self, ranks: &Ranks) -> Result<Trainer, RecipeError> {
        let adapter = self.keep(ranks)?;
        ranks.agree(self.begin(adapter))
    }

    /// The policy that is begun with, which is then kept in the run's folder; none is the base.
    pub fn policy(&self, ranks: &Ranks) -> Result<Option<PolicySnapshot>, RecipeError> {
        let adapter = self.keep(ranks)?;
        let policy = adapter.map(|path| load_policy(&path, self.model)).transpose();
        ranks.agree(policy)
    }

    /// Copies the adapter that is named into the run's folder, and says where it is there. Once the
    /// run has a saved state, that copy is what it goes on with, whatever is named.
    fn keep(&self, ranks: &Ranks) -> Result<Option<PathBuf>, RecipeError> {
        let Some(named) = self.adapter else { return Ok(None) };
        let kept = self.folder.join(START);

        ranks.led(|| self.copy(named, &kept))?;
        let digest = ranks.agree(digest(&kept))?;
        ranks.check_same("adapter that the run begins with", &digest)?;
        Ok(Some(kept))
    }

    fn copy(&self, named: &Path, kept: &Path) -> Result<(), RecipeError> {
        if has_states(self.run)? {
            let expected = "left out, or with its copy in the run's folder, which has saved states";
            let got = format!("{}, and no {}", named.display(), kept.display());
            return RecipeError::check("adapter", kept.exists(), expected, &got);
        }
        if kept.exists() && (!named.exists() || digest(named)? == digest(kept)?) {
            return Ok(());
        }

        // What cannot be begun with is not kept.
        self.begin(Some(named.to_owned()))?;
        replace_folder(kept, |fresh| {
            for file in FILES {
                let from = named.join(file);
                std::fs::copy(&from, fresh.join(file)).map_err(io("copy", &from))?;
            }
            Ok::<_, RecipeError>(())
        })
    }

    fn begin(&self, adapter: Option<PathBuf>) -> Result<Trainer, RecipeError> {
        let fresh = Trainer::new(self.model.clone(), self.lora, self.trainer, self.seed)?;
        let Some(path) = adapter else { return Ok(fresh) };

        let loaded = self.model.load_adapter(&path)?;
        let mut pairs = Vec::new();
        for (index, module) in self.model.modules().iter().enumerate() {
            let described = fresh.adapter().pair(index);
            let found = loaded.pair(index);
            RecipeError::check(
                "adapter",
                alike(described, found),
                "one of the layers, ranks and scales that `lora` describes",
                &format!(
                    "{} for {} in {}; `lora` describes {}",
                    told(found),
                    module.path,
                    path.display(),
                    told(described)
                ),
            )?;
            pairs.push(found.map(|pair| LoraPair {
                a: pair.a.shallow_clone(),
                b: pair.b.shallow_clone(),
                scale: pair.scale,
            }));
        }

        // Dropout is how it is trained, not what it is: the configuration's.
        let adapter = Adapter::from_pairs(self.lora.clone(), self.model.modules(), pairs)?;
        let reference = adapter.snapshot(self.model.kind())?;
        let trainer = Trainer::with_adapter(self.model.clone(), adapter, self.trainer, self.seed)?;
        Ok(trainer.with_reference(reference))
    }
}

/// Whether both are pairs of the same sizes and scale, or none.
fn alike(described: Option<&LoraPair>, found: Option<&LoraPair>) -> bool {
    match (described, found) {
        (None, None) => true,
        (Some(one), Some(other)) => {
            let scale = (one.scale - other.scale).abs() <= 1e-6 * one.scale.abs();
            scale && one.a.size() == other.a.size() && one.b.size() == other.b.size()
        }
        _ => false,
    }
}

fn told(pair: Option<&LoraPair>) -> String {
    match pair {
        Some(pair) => format!("rank {}, scale {}", pair.a.size()[0], pair.scale),
        None => "nothing".into(),
    }
}

/// A number of what a PEFT folder holds.
fn digest(folder: &Path) -> Result<u64, RecipeError> {
    let mut hasher = DefaultHasher::new();
    for file in FILES {
        let path = folder.join(file);
        std::fs::read(&path).map_err(io("read", &path))?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}
