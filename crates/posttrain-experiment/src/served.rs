//! What a run found, ready to be asked: its specialists, the router before them, its generalist.

use crate::experiment::best_policy;
use crate::routers::RouterMaterials;
use crate::{ExperimentConfig, ExperimentError, LocalLabels, plan};
use posttrain_model::TextModel;
use posttrain_recipes::PromptStyle;
use posttrain_rollout::{PolicySnapshot, SamplingParams};
use posttrain_router::{Router, RouterData};
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Handle;

/// The outcome of a run: who answers which question, and who answers all of them.
///
/// The router is fitted anew from the run's own splits, so that it decides as it did in the run's
/// report. It stays on the thread that made it.
pub struct ServedRun {
    /// The specialists by their domain, which is what the router's labels are.
    pub specialists: Vec<(String, PolicySnapshot)>,
    /// The model of all domains, where the run has one.
    pub generalist: Option<(String, PolicySnapshot)>,
    /// Sends a question to a specialist.
    pub router: Box<dyn Router>,
    /// How questions were put to all of them.
    pub prompt: PromptStyle,
    /// How their answers were sampled.
    pub sampling: SamplingParams,
}

impl ServedRun {
    /// Reads a run's folder. `model` is the base that it was trained on, `runtime` what a router
    /// that asks a server waits on.
    ///
    /// # Errors
    /// [`ExperimentError::Config`] for a folder that holds no run; [`ExperimentError::Field`] where
    /// the configuration names no router of the one that is used; else what is wrong with the data,
    /// the router or a specialist's files.
    pub fn open(
        folder: &Path,
        model: &TextModel,
        runtime: Handle,
    ) -> Result<Self, ExperimentError> {
        let path = folder.join("config.toml");
        let text = std::fs::read_to_string(&path).map_err(ExperimentError::io(&path))?;
        let config: ExperimentConfig = toml::from_str(&text).map_err(|error| {
            ExperimentError::Config { path: path.clone(), reason: error.to_string() }
        })?;
        let config = config.resolved();
        let (splits, arms) = plan(&config)?;

        let mut specialists = Vec::new();
        let mut generalist = None;
        for arm in &arms {
            let at = folder.join(&arm.name);
            if arm.is_specialist() {
                specialists.push((arm.name.clone(), best_policy(&at, &model.decoder)?));
            } else if at.is_dir() {
                generalist = Some((arm.name.clone(), best_policy(&at, &model.decoder)?));
            }
        }

        let used = &config.routing.used;
        let found = config.routing.routers.iter().find(|router| router.name() == used);
        let chosen = found.ok_or_else(|| ExperimentError::Field {
            field: "routing.used",
            expected: "the name of one of `routing.routers`",
            got: used.clone(),
        })?;
        let domains: Vec<&str> = specialists.iter().map(|(name, _)| name.as_str()).collect();
        let data = RouterData::from_splits(&splits, &domains)?;
        let asked = match &config.routing.model {
            Some(source) => source.load()?,
            None => model.clone(),
        };
        let materials = RouterMaterials {
            data: &data,
            model: asked.clone(),
            model_name: "base",
            labels: Arc::new(LocalLabels::new(asked)),
            runtime,
        };
        let router = chosen.build(&materials)?;
        let sampling = config.rl.sampling.clone();
        Ok(Self { specialists, generalist, router, prompt: config.prompt, sampling })
    }
}
